"""A summarizer's replica: sets the deadline, lets texts share the engine, and answers with usable summaries.

How a summary is made is the business of `abstractive` and `extractive`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from deployments.replica.gathering import all_or_failure, each
from deployments.replica.summarize.job import SummaryJob, SummaryResult, TextBudget, lead_of, usable, words_for
from deployments.replica.summarize.step_log import step_log_for
from deployments.replica.summarize.time_slicing import FinishedJob, TimeSlicer
from deployments.replica.tokens import well_formed
from deployments.replica.totals import Totals
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.messages import (
    Answer,
    Failure,
    FailureKind,
    InputReport,
    LoadReport,
    ReplicaTimings,
    Work,
    parameters_of,
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

    async def handle(self, batch: Sequence[Work]) -> Sequence[Answer | Failure]:
        """Answers a batch, each request by its deadline. The texts of all of them share the engine."""
        return await each(self._answer(work) for work in batch)

    async def _answer(self, work: Work) -> Answer | Failure:
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
        finished = await all_or_failure(self.time_slicer.submit(work.request_id, one) for one in begun)
        if isinstance(finished, Failure):
            return finished
        summaries = [one.summary for one in finished]
        if work.strict and any(_cut_short(one) for one in summaries):
            return Failure(FailureKind.EXPIRED)
        summaries = [_or_lead(one, text, parameters) for one, text in zip(summaries, work.inputs, strict=True)]
        return Answer(
            tuple(Summary(well_formed(one.text)) for one in summaries),
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
    """Splits the total into engine time for all texts of the request and time spent waiting."""
    service_time_s = min(sum(one.service_time_s for one in finished), total_s)
    queueing_delay_s = min(one.queueing_delay_s for one in finished) if len(finished) == 1 else total_s - service_time_s
    return ReplicaTimings(max(queueing_delay_s, 0.0), service_time_s, total_s, 1)
