"""A replica: one opened variant behind its end of the link, of whichever kind the variant is.

It knows no cluster: `serving` gives it a place to listen and tells it when to drain.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import psutil

from deployments.classifying import ClassifierReplica
from deployments.engines.host import usable_cores
from deployments.engines.priority import yield_to_others
from deployments.reader import Reader
from deployments.summarizing import SummarizerReplica
from deployments.variant import OpenClassifier, OpenSeq2Seq, open_variant
from deployments.writer import Writer
from gateway.catalog import CatalogEntry
from gateway.deadline import Clock
from gateway.metrics import replica_text
from gateway.work import Answer, Failure, LoadReport, Work

MEMORY_AGE_S = 1.0
"""How old a figure of resident memory may be that goes out with an answer: reading it costs 20 µs."""


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """What a replica is told at its start: its catalog entry, where its variant lies, how much may wait."""

    entry: CatalogEntry
    folder: Path
    max_queued_inputs: int


class Server(Protocol):
    """Answers work of one task with one variant."""

    def start(self) -> None:
        """Opens the queue, on the running loop."""

    async def stop(self, grace_s: float) -> None:
        """Admits nothing more and finishes what it can within the grace."""

    async def handle(self, work: Work) -> Answer | Failure:
        """Answers one piece of work. Cancelling it withdraws it."""

    def load(self) -> LoadReport:
        """How much is still to be done."""

    def totals(self) -> dict[str, float]:
        """What was counted since the start, by name; names of seconds end in `_s`, of maxima begin with `longest_`."""


class Replica:
    """Serves one variant and reports on itself."""

    def __init__(self, checkpoint: str, server: Server, clock: Clock) -> None:
        self.checkpoint = checkpoint
        self.server = server
        self._clock = clock
        self._process = psutil.Process()
        self._cores = usable_cores()
        self._memory_bytes = 0
        self._memory_seen = float("-inf")

    async def handle(self, work: Work) -> Answer | Failure:
        """Answers one piece of work."""
        return await self.server.handle(work)

    def load(self) -> LoadReport:
        """What travels with every answer."""
        return msgspec.structs.replace(self.server.load(), memory_bytes=self._memory(), cores=self._cores)

    def metrics(self) -> str:
        """This replica's totals in the Prometheus text format."""
        load = self.load()
        totals = {
            f"{name.removesuffix('_s')}_seconds" if name.endswith("_s") else name: value
            for name, value in self.server.totals().items()
        }
        counters = {name: value for name, value in totals.items() if not name.startswith("longest_")}
        gauges = {name: value for name, value in totals.items() if name.startswith("longest_")} | {
            "backlog_seconds": load.backlog_s,
            "queued_inputs": load.queued,
            "sharing_inputs": load.sharing or 0,
            "memory_bytes": load.memory_bytes,
        }
        return replica_text(self.checkpoint, counters, gauges)

    def _memory(self) -> int:
        now = self._clock()
        if now - self._memory_seen > MEMORY_AGE_S:
            self._memory_bytes, self._memory_seen = self._process.memory_info().rss, now
        return self._memory_bytes


def open_replica(settings: ReplicaSettings, clock: Clock) -> Replica:
    """Opens and checks the variant at the entry's priority and threads. Blocking. Raises VariantRejected."""
    entry = settings.entry
    yield_to_others(entry.niceness or 0)  # before an engine makes threads of its own, which inherit it
    variant = open_variant(settings.folder, entry.threads)
    queued = settings.max_queued_inputs
    if isinstance(variant, OpenClassifier):
        return Replica(entry.name, ClassifierReplica(entry, variant, queued, clock), clock)
    if isinstance(variant, OpenSeq2Seq):
        summarizer = Writer(variant.manifest, variant.engine, variant.tokens)
        return Replica(entry.name, SummarizerReplica(entry, summarizer, queued, clock), clock)
    reader = Reader(variant.manifest, variant.engine, variant.tokens, variant.ranker)
    return Replica(entry.name, SummarizerReplica(entry, reader, queued, clock), clock)
