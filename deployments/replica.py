"""A replica: one opened variant, its batcher and its end of the link. What a piece of work meets here, in order.

It knows no cluster: `serving` gives it a place to listen and tells it when to drain.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from deployments.batch_forming import BatchLimits
from deployments.batcher import Batcher, Scored
from deployments.tasks import Encoded
from deployments.variant import OpenVariant, open_variant
from gateway.catalog import CatalogEntry
from gateway.deadline import Clock
from gateway.metrics import replica_text
from gateway.work import Answer, Failure, InputReport, LoadReport, ReplicaTimings, Work

INLINE_CHARACTERS = 2_000
"""Texts up to this long are tokenised on the loop (under 0.1 ms); longer ones on a thread."""

BATCH_LIMITS = BatchLimits(max_batch=16, max_batch_tokens=2_048, max_padding_waste=0.15)


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """What a replica is told at its start: its catalog entry, where its variant lies, how much may wait."""

    entry: CatalogEntry
    folder: Path
    max_queued_inputs: int


class Replica:
    """Serves one variant: re-anchors the budget, tokenises, queues, scores."""

    def __init__(self, settings: ReplicaSettings, variant: OpenVariant, clock: Clock) -> None:
        self._task = variant.task
        self._clock = clock
        self.checkpoint = settings.entry.name
        self.batcher = Batcher(
            variant.engine.run,
            variant.profile,
            BATCH_LIMITS,
            clock,
            settings.max_queued_inputs,
            pad_id=variant.task.pad_id,
            threads=settings.entry.runs,
        )

    async def handle(self, work: Work) -> Answer | Failure:
        """Answers one piece of work. Cancelling it withdraws what is still queued."""
        arrived = self._clock()
        deadline = arrived + work.remaining_s
        encoded = await self._encode(work)
        if isinstance(encoded, Failure):
            return encoded
        scored = await self._score(encoded, deadline, work.strict)
        if isinstance(scored, Failure):
            return scored
        outputs = tuple(self._task.scores(one.logits, work.parameters) for one in scored)
        return Answer(outputs, _input_report(encoded), _timings(scored, self._clock() - arrived))

    def load(self) -> LoadReport:
        """What travels with every answer."""
        return self.batcher.load()

    def metrics(self) -> str:
        """This replica's totals in the Prometheus text format."""
        load = self.load()
        counters = {
            f"{name.removesuffix('_s')}_seconds" if name.endswith("_s") else name: value
            for name, value in asdict(self.batcher.totals).items()
        }
        return replica_text(
            self.checkpoint, counters, {"backlog_seconds": load.backlog_s, "queued_inputs": load.queued}
        )

    async def _encode(self, work: Work) -> list[Encoded] | Failure:
        if sum(map(len, work.inputs)) <= INLINE_CHARACTERS:
            return self._encode_all(work)
        return await asyncio.to_thread(self._encode_all, work)

    def _encode_all(self, work: Work) -> list[Encoded] | Failure:
        """Every input encoded, or the first failure."""
        encoded: list[Encoded] = []
        for text in work.inputs:
            one = self._task.encode(text, work.parameters.truncation)
            if isinstance(one, Failure):
                return one
            encoded.append(one)
        return encoded

    async def _score(self, encoded: Sequence[Encoded], deadline: float, strict: bool) -> Sequence[Scored] | Failure:
        """Every input scored, or the first failure; the inputs of one request are queued together."""
        if len(encoded) == 1:
            one = await self.batcher.submit(encoded[0].token_ids, deadline, strict)
            return one if isinstance(one, Failure) else (one,)
        results = await asyncio.gather(*(self.batcher.submit(one.token_ids, deadline, strict) for one in encoded))
        failure = next((result for result in results if isinstance(result, Failure)), None)
        return failure or [result for result in results if isinstance(result, Scored)]


def open_replica(settings: ReplicaSettings, clock: Clock) -> Replica:
    """Opens and checks the variant at the entry's priority and threads. Blocking. Raises VariantRejected."""
    if settings.entry.niceness:
        os.nice(settings.entry.niceness)  # before the engine's threads exist, which inherit it
    return Replica(settings, open_variant(settings.folder, settings.entry.threads), clock)


def _input_report(encoded: Sequence[Encoded]) -> InputReport:
    return InputReport(
        sum(one.tokens_total for one in encoded),
        sum(one.kept for one in encoded),
        any(one.truncated for one in encoded),
    )


def _timings(scored: Sequence[Scored], total_s: float) -> ReplicaTimings:
    """Queueing until the first batch began; then from there to the end of the last."""
    if len(scored) == 1:
        one = scored[0]
        return ReplicaTimings(one.queueing_delay_s, one.service_time_s, total_s, one.batch_size)
    first_s = min(one.queueing_delay_s for one in scored)
    last_s = max(one.queueing_delay_s + one.service_time_s for one in scored)
    return ReplicaTimings(first_s, last_s - first_s, total_s, max(one.batch_size for one in scored))
