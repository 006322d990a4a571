"""A queue as tests play it: checkpoints with known times, and a time that the test sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fakes import reraise

from gateway.forecasting.forecaster import ServedCheckpoint
from gateway.scheduling.arrivals import ArrivalStats
from gateway.scheduling.batching import QueuedRequest
from gateway.scheduling.task_queue import Batch, TaskQueue
from gateway.tasks.service_time import StepSharing

OVERHEAD_S = 0.001


@dataclass(eq=False)
class Played(ServedCheckpoint):
    """A checkpoint of known times: each further input of a batch takes half of what the first does."""

    name: str
    one_s: float
    utility: float
    max_batch: int = 8
    threads: int = 1
    slots: int = 4
    tokenizer: int = 0
    joins: StepSharing | None = None

    def run_s(self, inputs: int, tokens: int) -> float:
        """Return the core-seconds of a batch, whatever its length."""
        return self.threads * self.one_s * (1 + 0.5 * (inputs - 1))

    def reach_s(self, run_s: float, now_s: float) -> float:
        """Return 1.2 times the expected time, plus the overhead."""
        return 1.2 * run_s / self.threads + OVERHEAD_S


@dataclass
class PlayedQueue:
    """A queue with its checkpoints and time, which starts batches as the scheduler does and records them."""

    checkpoints: Sequence[Played]
    cores: float = 1.0
    now_s: float = 1000.0
    released: list[Batch] = field(default_factory=list)
    lost: list[QueuedRequest] = field(default_factory=list)
    places: int = 0

    def __post_init__(self) -> None:
        """Create the queue, empty, with no arrivals yet."""
        self.arrivals = ArrivalStats()
        self.queue = TaskQueue(self.checkpoints, self.arrivals, reraise, self.cores)

    def queued_request(
        self, budget_s: float, texts: int = 1, strict: bool = False, eligible: frozenset[str] | None = None
    ) -> QueuedRequest:
        """Return a request that arrives now; its optimistic forecast is nine tenths of the expected time."""
        self.places += 1
        able = [one for one in self.checkpoints if eligible is None or one.name in eligible]
        least_s = min(0.9 * one.run_s(texts, 1) / one.threads for one in able)
        deadline_s = self.now_s + budget_s
        return QueuedRequest(self.places, deadline_s, (16,), texts, strict, eligible, last_s=deadline_s - least_s)

    def arrives(self, budget_s: float, texts: int = 1, strict: bool = False, *eligible: str) -> QueuedRequest:
        """Enter a request, and start each batch that can begin."""
        held = self.queued_request(budget_s, texts, strict, frozenset(eligible) or None)
        self.arrivals.arrived(self.now_s, budget_s, (16,))
        self.queue.enter(held)
        self.look()
        return held

    def look(self) -> list[Batch]:
        """Record the requests that are given up, and start each batch that can begin."""
        self.lost += self.queue.expired(self.now_s)
        begun: list[Batch] = []
        while (release := self.queue.next_batch(self.now_s)) is not None:
            begun.append(release)
        self.released += begun
        return begun

    def ends(self, release: Batch, after_s: float = 0.0) -> list[Batch]:
        """End a batch for all of its members, `after_s` later."""
        self.now_s += after_s
        while release.left:
            self.queue.ended(release, self.now_s)
        return self.look()

    def where(self, held: QueuedRequest) -> str:
        """Return `lost`, `released` if its batch has begun, or `waits`."""
        if held in self.lost:
            return "lost"
        return "released" if any(held in release.members for release in self.released) else "waits"
