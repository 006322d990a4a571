"""The simulated world: a virtual clock, a node whose runs share its cores, and the outcome of each request.

Decides nothing. The world calls a policy for arrivals and ends of runs; the policy starts runs and finishes or
refuses requests.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from loadtests.workload.arrivals import Fate, Offered
from loadtests.workload.variants import Variant

URGENT, PATIENT = 0, 1
"""Priorities of runs: patient runs get what urgent runs leave, as under the kernel's idle policy."""

LEAST_FREE = 0.05
"""The share of a core that runs always get, however much is stolen: no kernel starves a process."""

LEAST_PATIENT = 0.02
"""The share of a core that urgent runs always leave to patient ones, for the same reason."""


class Policy(Protocol):
    """Decides on each arrival, and acts on the world that it was made with."""

    def arrived(self, request: Offered) -> None:
        """Takes an arrival. The policy must finish, refuse or drop it in the end."""

    def ended(self) -> None:
        """Called after the last event: a request that still waits will never run."""


@dataclass(slots=True, eq=False)
class Run:
    """One engine run in progress: its members, its variant, and the core-seconds left.

    It goes `pace` times as fast while it has the node for itself.
    """

    variant: Variant
    members: tuple[Offered, ...]
    done: Callable[[Run], None]
    began_s: float
    left_s: float
    priority: int = URGENT
    pace: float = 1.0


@dataclass(slots=True)
class Node:
    """Cores that runs share: one core per run while there are enough, else an equal share.

    `stolen` is the number of cores taken by other work (the gateway's own, a neighbour's).
    """

    world: World
    cores: float
    stolen: float = 0.0
    busy_s: float = 0.0
    _running: list[Run] = field(default_factory=list)
    _as_of_s: float = 0.0
    _interrupted_until_s: float = 0.0
    _version: int = 0

    @property
    def running(self) -> Sequence[Run]:
        """The runs in progress."""
        return self._running

    def start(
        self,
        variant: Variant,
        members: Sequence[Offered],
        tokens: int,
        done: Callable[[Run], None],
        priority: int = URGENT,
        inputs: int | None = None,
    ) -> Run:
        """Starts a run of the members padded to `tokens`, with the variant's noise; calls `done` at its end."""
        batch = len(members) if inputs is None else inputs
        seconds = variant.median_s(batch, tokens) * variant.times.noise(batch, self.world.chance)
        return self.start_work(variant, members, seconds, done, priority)

    def start_work(
        self,
        variant: Variant,
        members: Sequence[Offered],
        seconds: float,
        done: Callable[[Run], None],
        priority: int = URGENT,
        pace: float = 1.0,
    ) -> Run:
        """Starts a run of `seconds` core-seconds; calls `done` at its end. Alone it goes `pace` times as fast."""
        begun = sum(member.engine_s == 0 for member in members)
        self.interrupt(begun * self.world.served_core_s)
        self._advance()
        for member in members:
            member.engine_s += seconds / len(members)
        run = Run(variant, tuple(members), done, self.world.now_s, seconds, priority, pace)
        self._running.append(run)
        self._schedule()
        return run

    def steal(self, cores: float) -> None:
        """Gives this many cores to other work from now on."""
        self._advance()
        self.stolen = cores
        self._schedule()

    def interrupt(self, core_s: float) -> None:
        """Takes one core for the gateway's own work, piece after piece.

        It goes before all runs, since the kernel favours processes that mostly sleep.
        """
        if core_s <= 0:
            return
        if self._interrupted_until_s <= self.world.now_s:
            self.steal(self.stolen + 1.0)
            self._interrupted_until_s = self.world.now_s
            self.world.at(self._interrupted_until_s + core_s, self._resume)
        self._interrupted_until_s += core_s

    def _resume(self) -> None:
        if self.world.now_s < self._interrupted_until_s:
            self.world.at(self._interrupted_until_s, self._resume)
        else:
            self.steal(self.stolen - 1.0)

    def _rates(self) -> tuple[float, float]:
        """Cores per urgent run and per patient run."""
        free = max(self.cores - self.stolen, LEAST_FREE)
        urgent = sum(run.priority == URGENT for run in self._running)
        patient = len(self._running) - urgent
        for_urgent = free - LEAST_PATIENT if patient else free
        rate = min(1.0, for_urgent / urgent) if urgent else 0.0
        return rate, min(1.0, (free - rate * urgent) / patient) if patient else 0.0

    def _rate(self, run: Run, rates: tuple[float, float]) -> float:
        """The core-seconds that a run gets done in a second."""
        alone = len(self._running) == 1 and self.stolen <= 0
        return rates[run.priority] * (run.pace if alone else 1.0)

    def _advance(self) -> None:
        now_s = self.world.now_s
        passed_s = now_s - self._as_of_s
        self._as_of_s = now_s
        if passed_s <= 0 or not self._running:
            return
        rates = self._rates()
        for run in self._running:
            worked_s = passed_s * self._rate(run, rates)
            run.left_s -= worked_s
            self.busy_s += worked_s

    def _schedule(self) -> None:
        self._version += 1
        if self._running:
            rates = self._rates()
            in_s = min(max(run.left_s, 0.0) / self._rate(run, rates) for run in self._running)
            self.world.after(in_s, self._check, self._version)

    def _check(self, version: int) -> None:
        if version != self._version:
            return
        self._advance()
        over = [run for run in self._running if run.left_s <= 1e-9]
        self._running = [run for run in self._running if run.left_s > 1e-9]
        self._schedule()
        for run in over:
            run.done(run)


class World:
    """The clock, the node, and the outcome of every request."""

    def __init__(self, cores: float, seed: int, offered_core_s: float = 0.0, served_core_s: float = 0.0) -> None:
        """Starts at 0 s with nothing running.

        Each request offered takes `offered_core_s` of the cores, and each that runs `served_core_s` beside its runs.
        """
        self.now_s = 0.0
        self.offered_core_s, self.served_core_s = offered_core_s, served_core_s
        self.chance = random.Random(seed)
        self.node = Node(self, cores)
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._count = 0

    def at(self, when_s: float, act: Callable[..., None], *arguments: object) -> None:
        """Calls `act` at an instant; calls for the same instant run in the order of registration."""
        self._count += 1
        heapq.heappush(self._events, (max(when_s, self.now_s), self._count, act, arguments))

    def after(self, seconds: float, act: Callable[..., None], *arguments: object) -> None:
        """Calls `act` after this many seconds."""
        self.at(self.now_s + seconds, act, *arguments)

    def finish(self, request: Offered, variant: str, at_s: float | None = None) -> None:
        """Records that the answer reaches its client at `at_s` (default: now)."""
        at_s = self.now_s if at_s is None else at_s
        _open(request)
        request.fate = Fate.IN_TIME if at_s <= request.deadline_s else Fate.LATE
        request.variant, request.finished_s = variant, at_s

    def refuse(self, request: Offered) -> None:
        """Records a refusal, before any work."""
        _open(request)
        request.fate, request.finished_s = Fate.REFUSED, self.now_s

    def fail(self, request: Offered) -> None:
        """Records that an admitted request expired or was dropped."""
        _open(request)
        request.fate, request.finished_s = Fate.FAILED, self.now_s

    def play(self, offered: Sequence[Offered], policy: Policy, until: Offered | None = None) -> None:
        """Simulates all arrivals and their consequences; with `until`, only until that request has ended."""
        for request in offered:
            self.at(request.arrived_s, self._arrive, policy, request)
        while self._events:
            self.now_s, _, act, arguments = heapq.heappop(self._events)
            act(*arguments)
            if until is not None and until.fate is not Fate.OPEN:
                return
        policy.ended()

    def _arrive(self, policy: Policy, request: Offered) -> None:
        self.node.interrupt(self.offered_core_s)
        policy.arrived(request)


def _open(request: Offered) -> None:
    if request.fate is not Fate.OPEN:
        raise ValueError(f"request {request.sequence} ends a second time")
