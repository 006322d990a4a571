"""A replica: one open variant of any kind that answers work and reports its load and metrics.

It knows no cluster. `deployments.serve.checkpoint` connects it to the transport and drains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from deployments.engines.base import yield_to_others
from deployments.engines.host import usable_cores
from deployments.engines.opening import open_lone_engine
from deployments.replica.batched import BatchedReplica
from deployments.replica.kinds import Server, kind_named
from deployments.replica.totals import GAUGES
from deployments.replica.variant import check_tasks, open_variant
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.messages import Answer, Emit, Failure, LoadReport, Work, to_nobody
from gateway.observability.metrics import ReplicaFacts, replica_text

MEMORY_AGE_S = 1.0
"""Seconds for which a reading of resident memory is reused, since reading it takes 20 µs."""


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """A replica's catalog entry, its variant's folder, and the most inputs that may wait."""

    entry: CatalogEntry
    folder: Path
    max_queued_inputs: int


class Replica:
    """Serves one variant and reports on itself."""

    def __init__(self, entry: CatalogEntry, agreement: float, server: Server, clock: Clock) -> None:
        """`agreement` says how well the variant agrees with its source, from 0 to 1."""
        self.checkpoint = entry.name
        self.server = server
        self._clock = clock
        self._process = psutil.Process()
        self._facts = ReplicaFacts(entry.name, entry.task, entry.tier, agreement, self._process.create_time())
        self._cores = usable_cores()
        self._memory_bytes = 0
        self._memory_seen = float("-inf")

    async def handle(self, batch: Sequence[Work], emit: Emit = to_nobody) -> Sequence[Answer | Failure]:
        """Answers a batch: one result for each request, in order. `emit` gets deltas of streamed answers before."""
        return await self.server.handle(batch, emit)

    def load(self) -> LoadReport:
        """Reports the load, which goes out with every answer."""
        return msgspec.structs.replace(self.server.load(), memory_bytes=self._memory(), cores=self._cores)

    def metrics(self) -> str:
        """Gives this replica's metrics in the Prometheus text format."""
        load, counted = self.load(), self.server.totals()
        totals = {
            f"{name.removesuffix('_s')}_seconds" if name.endswith("_s") else name: value
            for name, value in counted.figures().items()
        }
        counters = {name: value for name, value in totals.items() if not name.startswith(GAUGES)}
        gauges = {name: value for name, value in totals.items() if name.startswith(GAUGES)} | {
            "backlog_seconds": load.backlog_s,
            "queued_inputs": load.queued,
            "sharing_inputs": load.sharing or 0,
            "memory_bytes": load.memory_bytes,
        }
        return replica_text(self._facts, counters, gauges, counted.sizes)

    def _memory(self) -> int:
        now = self._clock()
        if now - self._memory_seen > MEMORY_AGE_S:
            self._memory_bytes, self._memory_seen = self._process.memory_info().rss, now
        return self._memory_bytes


def open_replica(settings: ReplicaSettings, clock: Clock) -> Replica:
    """Opens and checks a variant with the entry's priority and threads. Blocking. Raises VariantRejected."""
    entry = settings.entry
    yield_to_others(entry.niceness or 0)  # before the engine makes threads, which inherit it
    variant = open_variant(settings.folder, entry.threads, entry.slots)
    check_tasks(variant.manifest, entry.tasks)
    queued = settings.max_queued_inputs
    server = kind_named(variant.manifest.kind).serve(entry, variant, queued, clock)
    if isinstance(server, BatchedReplica):
        lone = open_lone_engine(settings.folder, variant.manifest, entry.threads * entry.slots)
        server.batcher.lone_run = lone.run if lone is not None else None
    return Replica(entry, variant.manifest.agreement, server, clock)
