"""What replicas that write share: texts share the engine, and a request is answered by its deadline, also as it grows.

A kind says which jobs a request's texts are, and when the deadline left too little of one. It knows no task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic

from deployments.replica.gathering import all_or_failure, each
from deployments.replica.sentences import split_sentences
from deployments.replica.tokens import well_formed
from deployments.replica.totals import Totals
from deployments.replica.writing.job import TextBudget, WritingJob, WritingResult
from deployments.replica.writing.past_budget import PastBudget
from deployments.replica.writing.step_log import step_log_for
from deployments.replica.writing.time_slicing import FinishedJob, TimeSlicer, Together
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
    ParametersT,
    ReplicaTimings,
    Work,
    parameters_of,
    to_nobody,
)


@dataclass(frozen=True, slots=True)
class Begun:
    """A text to be written: its job, what it is written from, and what its answer repeats in front of it."""

    job: WritingJob
    source: str = ""
    repeated: str = ""


class WritingReplica(ABC, Generic[ParametersT]):
    """Serves one checkpoint that writes. A subclass makes the jobs of a request."""

    def __init__(
        self,
        entry: CatalogEntry,
        max_queued_inputs: int,
        clock: Clock,
        parameters: type[ParametersT],
        output: Callable[[str], object],
        together: Together | None = None,
        memory: PastBudget | None = None,
    ) -> None:
        """Takes the task's parameters, and what makes an output of a text.

        Texts step `together` where that is given; else they take turns. `memory` is that for keys and values.
        """
        self._clock = clock
        self._parameters = parameters
        self._output = output
        log = step_log_for(entry.name)
        self.time_slicer = TimeSlicer(
            entry.slots,
            clock,
            max_queued_inputs,
            log,
            niceness=entry.niceness or 0,
            together=together,
            memory=memory,
            shares_runs=entry.prefixes,
        )

    @abstractmethod
    async def begin(
        self, inputs: Sequence[str], parameters: ParametersT, budget: Callable[[], TextBudget]
    ) -> Sequence[Begun] | Failure:
        """Makes the jobs of a request, each with a budget of its own; runs nothing yet."""

    @abstractmethod
    def too_little(self, written: WritingResult) -> bool:
        """True if the deadline left too little of a text to be an answer of strict work."""

    def or_instead(self, written: WritingResult, source: str, parameters: ParametersT) -> WritingResult:
        """The text, or what stands in for one of which nothing was streamed."""
        return written

    def start(self) -> None:
        """Opens the queue on the running loop."""
        self.time_slicer.start()

    async def stop(self, grace_s: float) -> None:
        """Admits no more work and finishes what it can within `grace_s` seconds."""
        await self.time_slicer.stop(grace_s)

    async def handle(self, batch: Sequence[Work], emit: Emit = to_nobody) -> Sequence[Answer | Failure]:
        """Answers a batch, each request by its deadline. The texts of all of them share the engine.

        Of those that are streamed it emits, after each step, what of a text is settled, and at the end the rest by
        sentences.
        """
        return await each(self._answer(work, partial(emit, place)) for place, work in enumerate(batch))

    async def _answer(self, work: Work, emit: Callable[[Delta], None]) -> Answer | Failure:
        """Answers one request by its deadline, strict or not, with what was written by then.

        Strict work of which that is too little fails as EXPIRED. Cancelling it stops it after the current step.
        """
        arrived = self._clock()
        parameters = parameters_of(work, self._parameters)
        deadline, reserve = arrived + work.remaining_s, reserve_s(work.remaining_s)
        begun = await self.begin(work.inputs, parameters, lambda: TextBudget(deadline, reserve, self._clock))
        if isinstance(begun, Failure):
            return begun
        growing = [GrowingAnswer(index, emit, one.repeated) for index, one in enumerate(begun)]
        finished = await all_or_failure(
            self.time_slicer.submit(work.request_id, one.job, grown.take if work.streamed else None)
            for one, grown in zip(begun, growing, strict=True)
        )
        if isinstance(finished, Failure):
            return finished
        if work.strict and any(self.too_little(one.summary) for one in finished):
            return Failure(FailureKind.EXPIRED)
        written = [
            one.summary if grown.begun else self.or_instead(one.summary, asked.source, parameters)
            for one, asked, grown in zip(finished, begun, growing, strict=True)
        ]
        texts = [asked.repeated + well_formed(one.text) for one, asked in zip(written, begun, strict=True)]
        if work.streamed and not all(grown.end(text) for grown, text in zip(growing, texts, strict=True)):
            return Failure(FailureKind.ENGINE, "a text does not begin as it was streamed")
        return Answer(
            tuple(map(self._output, texts)),
            input_report([one.input for one in written]),
            timings(finished, self._clock() - arrived),
            tuple(one.generation for one in written),
        )

    def load(self) -> LoadReport:
        """Reports the load, which goes out with every answer."""
        return self.time_slicer.load()

    def totals(self) -> Totals:
        """The counts since the start."""
        return self.time_slicer.totals


class GrowingAnswer:
    """One answer as it is streamed, behind what it repeats: what was emitted of it so far."""

    def __init__(self, index: int, emit: Callable[[Delta], None], repeated: str = "") -> None:
        self._index = index
        self._emit = emit
        self._repeated = repeated
        self._sent = ""

    @property
    def begun(self) -> bool:
        """True if something was emitted, which nothing else can replace."""
        return bool(self._sent)

    def take(self, settled: str) -> None:
        """Emits what is new of a text's beginning."""
        answer = self._repeated + settled
        if answer.startswith(self._sent):
            self._emit(Delta(self._index, answer[len(self._sent) :]))
            self._sent = answer

    def end(self, text: str) -> bool:
        """Emits the rest of the finished answer, by sentences; False if it does not begin as it was emitted."""
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
