"""The replica's side of `/count`: opens the list of words that are not counted, and counts the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments.replica.kinds import ReplicaKind
from deployments.replica.totals import Totals
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.messages import (
    Answer,
    Emit,
    Failure,
    InputReport,
    LoadReport,
    ReplicaTimings,
    Work,
    parameters_of,
    to_nobody,
)
from made_up_task.task import Counted, CounterManifest, CountParameters

WORDS_FILE = "words.json"


@dataclass(frozen=True)
class OpenCounter:
    """A counter, ready to run."""

    manifest: CounterManifest
    uncounted: frozenset[str]


class CounterServer:
    """Counts at once, without a queue."""

    def __init__(self, entry: CatalogEntry, variant: OpenCounter, max_queued_inputs: int, clock: Clock) -> None:
        self._uncounted = variant.uncounted
        self._clock = clock
        self._totals = Totals()

    def start(self) -> None:
        """Do nothing: there is nothing to open."""

    async def stop(self, grace_s: float) -> None:
        """Do nothing: there is nothing to wait for."""

    async def handle(self, batch: Sequence[Work], emit: Emit = to_nobody) -> Sequence[Answer | Failure]:
        """Count the texts of each request."""
        return [self._counted(work) for work in batch]

    def _counted(self, work: Work) -> Answer:
        began, parameters = self._clock(), parameters_of(work, CountParameters)
        words = [[word for word in text.split() if word not in self._uncounted] for text in work.inputs]
        counts = tuple(Counted(len(set(found)) if parameters.distinct else len(found)) for found in words)
        tokens, took_s = sum(map(len, words)), self._clock() - began
        self._totals.inputs += len(words)
        return Answer(counts, InputReport(tokens, tokens, False), ReplicaTimings(0.0, took_s, took_s, len(words)))

    def load(self) -> LoadReport:
        """Report no load."""
        return LoadReport(0.0, 0)

    def totals(self) -> Totals:
        """Return what was counted since the start."""
        return self._totals


def _open(folder: Path, manifest: CounterManifest, threads: int, at_once: int) -> OpenCounter:
    return OpenCounter(manifest, frozenset(json.loads((folder / WORDS_FILE).read_text())))


KIND = ReplicaKind(lambda manifest: (WORDS_FILE,), _open, CounterServer)
