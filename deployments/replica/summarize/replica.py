"""A summarizer's replica: sets the deadline, lets texts share the engine, and answers with usable summaries.

How a summary is made is the business of `abstractive` and `extractive`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import msgspec

from deployments.replica.gathering import all_or_failure, each
from deployments.replica.summarize.job import SummaryJob, SummaryResult, TextBudget, lead_of, usable, words_for
from deployments.replica.summarize.sentences import split_sentences
from deployments.replica.summarize.step_log import step_log_for
from deployments.replica.summarize.time_slicing import FinishedJob, TimeSlicer
from deployments.replica.tokens import well_formed
from deployments.replica.totals import Totals
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.messages import (
    Answer,
    Delta,
    Emit,
    Failure,
    FailureKind,
    InputReport,
    LoadReport,
    ReplicaTimings,
    Work,
    parameters_of,
    to_nobody,
)
from gateway.tasks.summarize import SummarizeParameters, Summary


class Summarizer(Protocol):
    """Summarises texts. Several jobs may be under way at once."""

    def begin(self, text: str, parameters: SummarizeParameters, budget: TextBudget) -> SummaryJob:
        """Makes the job of one text; runs nothing yet."""


class SummarizerReplica:
    """Serves one summarizer."""

    def __init__(self, entry: CatalogEntry, summarizer: Summarizer, max_queued_inputs: int, clock: Clock) -> None:
        self._summarizer = summarizer
        self._clock = clock
        log = step_log_for(entry.name)
        self.time_slicer = TimeSlicer(entry.slots, clock, max_queued_inputs, log, niceness=entry.niceness or 0)

    def start(self) -> None:
        """Opens the queue on the running loop."""
        self.time_slicer.start()

    async def stop(self, grace_s: float) -> None:
        """Admits no more work and finishes what it can within `grace_s` seconds."""
        await self.time_slicer.stop(grace_s)

    async def handle(self, batch: Sequence[Work], emit: Emit = to_nobody) -> Sequence[Answer | Failure]:
        """Answers a batch, each request by its deadline. The texts of all of them share the engine.

        Of those that are streamed it emits, after each step, what of a summary is settled, and at the end the rest by
        sentences.
        """
        return await each(self._answer(work, partial(emit, place)) for place, work in enumerate(batch))

    async def _answer(self, work: Work, emit: Callable[[Delta], None]) -> Answer | Failure:
        """Answers one request by its deadline, strict or not. Cancelling it stops it after the current step.

        If a summary is not usable by then, strict work fails as EXPIRED. Else the first sentence of its text stands in,
        marked as such, as it does where a checkpoint wrote nothing with time to spare.
        """
        arrived = self._clock()
        parameters = parameters_of(work, SummarizeParameters)
        deadline, reserve = arrived + work.remaining_s, reserve_s(work.remaining_s)
        budgets = [TextBudget(deadline, reserve, self._clock) for _ in work.inputs]
        begun = [
            self._summarizer.begin(text, parameters, budget) for text, budget in zip(work.inputs, budgets, strict=True)
        ]
        growing = [GrowingAnswer(index, emit) for index in range(len(begun))]
        finished = await all_or_failure(
            self.time_slicer.submit(work.request_id, one, grown.take if work.streamed else None)
            for one, grown in zip(begun, growing, strict=True)
        )
        if isinstance(finished, Failure):
            return finished
        summaries = [one.summary for one in finished]
        if work.strict and any(_cut_short(one) for one in summaries):
            return Failure(FailureKind.EXPIRED)
        summaries = [
            one if grown.begun else _or_lead(one, text, parameters)
            for one, text, grown in zip(summaries, work.inputs, growing, strict=True)
        ]
        texts = [well_formed(one.text) for one in summaries]
        if work.streamed and not all(grown.end(text) for grown, text in zip(growing, texts, strict=True)):
            return Failure(FailureKind.ENGINE, "a summary does not begin as it was streamed")
        return Answer(
            tuple(map(Summary, texts)),
            input_report([one.input for one in summaries]),
            timings(finished, self._clock() - arrived),
            tuple(one.generation for one in summaries),
        )

    def load(self) -> LoadReport:
        """Reports the load, which goes out with every answer."""
        return self.time_slicer.load()

    def totals(self) -> Totals:
        """The counts since the start."""
        return self.time_slicer.totals


class GrowingAnswer:
    """One summary as it is streamed: what was emitted of it so far."""

    def __init__(self, index: int, emit: Callable[[Delta], None]) -> None:
        self._index = index
        self._emit = emit
        self._sent = ""

    @property
    def begun(self) -> bool:
        """True if something was emitted, which nothing else can replace."""
        return bool(self._sent)

    def take(self, settled: str) -> None:
        """Emits what is new of a summary's beginning."""
        if settled.startswith(self._sent):
            self._emit(Delta(self._index, settled[len(self._sent) :]))
            self._sent = settled

    def end(self, text: str) -> bool:
        """Emits the rest of the finished summary, by sentences; False if it does not begin as it was emitted."""
        if not text.startswith(self._sent):
            return False
        for sentence in _sentences(text[len(self._sent) :]):
            self._emit(Delta(self._index, sentence))
        self._sent = text
        return True


def _sentences(text: str) -> Iterator[str]:
    """Cuts a text behind each sentence; joined, they are the text."""
    at = 0
    for end in [*(span.end for span in split_sentences(text)[:-1]), len(text)]:
        if end > at:
            yield text[at:end]
            at = end


def reserve_s(remaining_s: float) -> float:
    """The part of a budget kept for sending the answer: 8 ms plus a fiftieth, at most 50 ms and at most a quarter.

    Sending takes 1 to 2 ms on a quiet machine; the rest is for a busy one.
    """
    return min(0.008 + max(remaining_s, 0.0) / 50, 0.05, max(remaining_s, 0.0) / 4)


def _cut_short(one: SummaryResult) -> bool:
    """True if the deadline left nothing usable."""
    reason = one.generation.finish_reason
    return reason == "deadline" and not usable(one.text, reason)


def _or_lead(one: SummaryResult, source: str, parameters: SummarizeParameters) -> SummaryResult:
    """The summary if it is usable, else the source's first sentence within the requested length."""
    if usable(one.text, one.generation.finish_reason):
        return one
    generation = msgspec.structs.replace(one.generation, lead=True)
    return SummaryResult(lead_of(source, words_for(parameters.max_new_tokens)), generation, one.input)


def input_report(reports: Sequence[InputReport]) -> InputReport:
    """What was read of a request's texts together."""
    return InputReport(
        sum(one.tokens for one in reports), sum(one.kept for one in reports), any(one.truncated for one in reports)
    )


def timings(finished: Sequence[FinishedJob], total_s: float) -> ReplicaTimings:
    """Splits the total into the time of steps of all texts of the request and time spent waiting.

    Of several texts that stepped together each counts for its part.
    """
    texts = max(one.texts for one in finished)
    several = len(finished) > 1
    service_time_s = min(sum(one.service_time_s / (one.texts if several else 1) for one in finished), total_s)
    queueing_delay_s = min(one.queueing_delay_s for one in finished) if len(finished) == 1 else total_s - service_time_s
    return ReplicaTimings(max(queueing_delay_s, 0.0), service_time_s, total_s, texts)
