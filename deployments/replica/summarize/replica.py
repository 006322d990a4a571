"""A summarizer's replica: sets the deadline, lets texts share the engine, and answers with usable summaries.

How a summary is made is the business of `abstractive` and `extractive`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import msgspec

from deployments.replica.gathering import all_or_failure, each
from deployments.replica.tokens import well_formed
from deployments.replica.totals import Totals
from deployments.replica.writing.answers import GrowingAnswer, input_report, reserve_s, timings
from deployments.replica.writing.job import TextBudget, WritingJob, WritingResult, lead_of, usable, words_for
from deployments.replica.writing.past_budget import PastBudget
from deployments.replica.writing.step_log import step_log_for
from deployments.replica.writing.time_slicing import TimeSlicer, Together
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.messages import (
    Answer,
    Delta,
    Emit,
    Failure,
    FailureKind,
    LoadReport,
    Work,
    parameters_of,
    to_nobody,
)
from gateway.tasks.summarize import SummarizeParameters, Summary


class Summarizer(Protocol):
    """Summarises texts. Several jobs may be under way at once."""

    def begin(self, text: str, parameters: SummarizeParameters, budget: TextBudget) -> WritingJob:
        """Makes the job of one text; runs nothing yet."""


class SummarizerReplica:
    """Serves one summarizer."""

    def __init__(
        self,
        entry: CatalogEntry,
        summarizer: Summarizer,
        max_queued_inputs: int,
        clock: Clock,
        together: Together | None = None,
        memory: PastBudget | None = None,
    ) -> None:
        """Texts step `together` where that is given; else they take turns. `memory` is that for keys and values."""
        self._summarizer = summarizer
        self._clock = clock
        log = step_log_for(entry.name)
        self.time_slicer = TimeSlicer(
            entry.slots, clock, max_queued_inputs, log, niceness=entry.niceness or 0, together=together, memory=memory
        )

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


def _cut_short(one: WritingResult) -> bool:
    """True if the deadline left nothing usable."""
    reason = one.generation.finish_reason
    return reason == "deadline" and not usable(one.text, reason)


def _or_lead(one: WritingResult, source: str, parameters: SummarizeParameters) -> WritingResult:
    """The summary if it is usable, else the source's first sentence within the requested length."""
    if usable(one.text, one.generation.finish_reason):
        return one
    generation = msgspec.structs.replace(one.generation, lead=True)
    return WritingResult(lead_of(source, words_for(parameters.max_new_tokens)), generation, one.input)
