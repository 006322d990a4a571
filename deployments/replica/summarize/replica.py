"""A summarizer's replica: answers with usable summaries, or with the first sentence of a text.

How a summary is made is the business of `abstractive` and `extractive`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from deployments.replica.writing.answers import Begun, WritingReplica
from deployments.replica.writing.job import TextBudget, WritingJob, WritingResult, lead_of, usable, words_for
from deployments.replica.writing.past_budget import PastBudget
from deployments.replica.writing.time_slicing import Together
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.tasks.summarize import SummarizeParameters, Summary


class Summarizer(Protocol):
    """Summarises texts. Several jobs may be under way at once."""

    def begin(self, text: str, parameters: SummarizeParameters, budget: TextBudget) -> WritingJob:
        """Makes the job of one text; runs nothing yet."""


class SummarizerReplica(WritingReplica[SummarizeParameters]):
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
        super().__init__(entry, max_queued_inputs, clock, SummarizeParameters, Summary, together, memory)
        self._summarizer = summarizer

    async def begin(
        self, inputs: Sequence[str], parameters: SummarizeParameters, budget: Callable[[], TextBudget]
    ) -> Sequence[Begun]:
        """Makes a job of each text."""
        return [Begun(self._summarizer.begin(text, parameters, budget()), text) for text in inputs]

    def too_little(self, written: WritingResult) -> bool:
        """True if the deadline left no usable summary."""
        reason = written.generation.finish_reason
        return reason == "deadline" and not usable(written.text, reason)

    def or_instead(self, written: WritingResult, source: str, parameters: SummarizeParameters) -> WritingResult:
        """The summary if it is usable, else the source's first sentence within the requested length, marked as such.

        A checkpoint may also write nothing with time to spare.
        """
        if usable(written.text, written.generation.finish_reason):
            return written
        generation = msgspec.structs.replace(written.generation, lead=True)
        return WritingResult(lead_of(source, words_for(parameters.max_new_tokens)), generation, written.input)
