"""A summarizer's replica, whichever way it condenses: re-anchors the budget, takes turns, ends with a usable text.

What a piece of work meets here, in order. How a text is condensed is the `Way`s' business: `writer` and `reader`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from deployments.replica.gathering import all_or_failure
from deployments.replica.summarize.job import Condensed, SummaryJob, TextBudget, lead_of, usable, words_for
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
    """Condenses texts, one way or another. It may have several under way at once."""

    def begin(self, text: str, parameters: SummarizeParameters, room: TextBudget) -> SummaryJob:
        """The text on its way; nothing is run yet."""


class SummarizerReplica:
    """Serves one summarizer."""

    def __init__(self, entry: CatalogEntry, summarizer: Summarizer, max_queued_inputs: int, clock: Clock) -> None:
        self._summarizer = summarizer
        self._clock = clock
        log = step_log_for(entry.name)
        self.time_slicer = TimeSlicer(entry.slots, clock, max_queued_inputs, log, niceness=entry.niceness or 0)

    def start(self) -> None:
        """Opens the queue, on the running loop."""
        self.time_slicer.start()

    async def stop(self, grace_s: float) -> None:
        """Admits nothing more and finishes what it can within the grace."""
        await self.time_slicer.stop(grace_s)

    async def handle(self, work: Work) -> Answer | Failure:
        """Answers one piece of work, by its deadline in either mode. Cancelling it stops at the next step.

        Where nothing usable was written by then, strict work is EXPIRED, and best-effort work gets the lead of its
        text, which says so.
        """
        arrived = self._clock()
        parameters = parameters_of(work, SummarizeParameters)
        deadline, reserve = arrived + work.remaining_s, reserve_s(work.remaining_s)
        rooms = [TextBudget(deadline, reserve, self._clock) for _ in work.inputs]
        begun = [self._summarizer.begin(text, parameters, room) for text, room in zip(work.inputs, rooms, strict=True)]
        finished = await all_or_failure(self.time_slicer.submit(work.request_id, one) for one in begun)
        if isinstance(finished, Failure):
            return finished
        condensed = [one.condensed for one in finished]
        if work.strict and not all(usable(one.text, one.generation.finish_reason) for one in condensed):
            return Failure(FailureKind.EXPIRED)
        condensed = [_or_lead(one, text, parameters) for one, text in zip(condensed, work.inputs, strict=True)]
        return Answer(
            tuple(Summary(well_formed(one.text)) for one in condensed),
            _input_report([one.input for one in condensed]),
            _timings(finished, self._clock() - arrived),
            tuple(one.generation for one in condensed),
        )

    def load(self) -> LoadReport:
        """What travels with every answer."""
        return self.time_slicer.load()

    def totals(self) -> Totals:
        """What was counted since the start."""
        return self.time_slicer.totals


def reserve_s(remaining_s: float) -> float:
    """What of a budget is kept back for the way of the answer: 8 ms and a fiftieth, at most 50 ms or a quarter of it.

    The way itself takes 1 to 2 ms on a quiet machine; the rest is for one that is not.
    """
    return min(0.008 + max(remaining_s, 0.0) / 50, 0.05, max(remaining_s, 0.0) / 4)


def _or_lead(one: Condensed, source: str, parameters: SummarizeParameters) -> Condensed:
    """The summary where it is usable, else the source's first sentence, no longer than was asked for."""
    if usable(one.text, one.generation.finish_reason):
        return one
    generation = msgspec.structs.replace(one.generation, finish_reason="deadline", lead=True)
    return Condensed(lead_of(source, words_for(parameters.max_new_tokens)), generation, one.input)


def _input_report(reports: Sequence[InputReport]) -> InputReport:
    return InputReport(
        sum(one.tokens for one in reports), sum(one.kept for one in reports), any(one.truncated for one in reports)
    )


def _timings(finished: Sequence[FinishedJob], total_s: float) -> ReplicaTimings:
    """The engine's time for all texts of the request; the rest of the time they waited for turns."""
    service_time_s = min(sum(one.service_time_s for one in finished), total_s)
    queueing_delay_s = min(one.queueing_delay_s for one in finished) if len(finished) == 1 else total_s - service_time_s
    return ReplicaTimings(max(queueing_delay_s, 0.0), service_time_s, total_s, 1)
