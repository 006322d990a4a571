"""Runs published policies: one central queue before the node's cores.

Whenever a core is free, the policy chooses a variant and a batch. Generous to the policies: they see the whole queue
at once, decide in no time, and share the cores with nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from loadtests.simulator.world import Run, World
from loadtests.workload.arrivals import Offered
from loadtests.workload.variants import Variant


@dataclass(frozen=True)
class Chosen:
    """The next run of a free core; its members must be waiting. Requests in `drop` fail first."""

    variant: Variant | None = None
    members: tuple[Offered, ...] = ()
    drop: tuple[Offered, ...] = ()


class Rule(Protocol):
    """A published policy for one task: it sees the task's queue and chooses what a free core runs.

    `arrived` and `ended` do nothing by default.
    """

    def arrived(self, request: Offered, now_s: float) -> None:
        """Observes an arrival before it is queued, to estimate the load or bind the request to a variant."""
        return

    def choose(self, queue: Sequence[Offered], now_s: float) -> Chosen:
        """Chooses a run from a queue that is not empty, in order of arrival.

        An empty choice waits for the next arrival or end of a run.
        """

    def ended(self, variant: Variant, members: Sequence[Offered], seconds: float, now_s: float) -> None:
        """Observes the end of a run."""
        return


@dataclass(frozen=True)
class Setting:
    """What a rule knows in advance: its task's variants (best quality first) and cores, and the offered load.

    `rate_per_s` is the task's mean arrival rate, `budgets_s` a sample of budgets, `tokens` the mean length, and
    `overhead_s` the time of a request outside queue and engine.
    """

    variants: tuple[Variant, ...]
    cores: int
    rate_per_s: float
    budgets_s: tuple[float, ...]
    tokens: int
    overhead_s: float


class Central:
    """Runs one rule per task on one node: a free core goes to the task whose head has the earliest deadline."""

    def __init__(self, world: World, rules: Mapping[str, Rule], cores: int, overhead_s: float) -> None:
        """An answer reaches its client `overhead_s` after the end of its run."""
        self._world = world
        self._rules = rules
        self._cores = cores
        self._overhead_s = overhead_s
        self._queues: dict[str, list[Offered]] = {task: [] for task in rules}

    def arrived(self, request: Offered) -> None:
        """Queues the request and fills the free cores."""
        self._rules[request.task].arrived(request, self._world.now_s)
        self._queues[request.task].append(request)
        self._fill()

    def ended(self) -> None:
        """Fails every request that is still queued."""
        for queue in self._queues.values():
            for request in queue:
                self._world.fail(request)
            queue.clear()

    def _fill(self) -> None:
        idle = False
        while len(self._world.node.running) < self._cores and not idle:
            idle = True
            waiting = [task for task, queue in self._queues.items() if queue]
            for task in sorted(waiting, key=lambda name: min(r.deadline_s for r in self._queues[name])):
                if self._run_of(task):
                    idle = False
                    break

    def _run_of(self, task: str) -> bool:
        """Lets the task's rule choose; True if it started or dropped anything."""
        queue = self._queues[task]
        chosen = self._rules[task].choose(queue, self._world.now_s)
        gone = {*chosen.drop, *chosen.members}
        if not gone:
            return False
        self._queues[task] = [request for request in queue if request not in gone]
        for request in chosen.drop:
            self._world.fail(request)
        if chosen.variant is not None and chosen.members:
            tokens = max(request.tokens for request in chosen.members)
            inputs = sum(request.texts for request in chosen.members)
            self._world.node.start(chosen.variant, chosen.members, tokens, self._done, inputs=inputs)
        return True

    def _done(self, run: Run) -> None:
        now_s = self._world.now_s
        task = run.members[0].task
        for request in run.members:
            self._world.finish(request, run.variant.name, now_s + self._overhead_s)
        self._rules[task].ended(run.variant, run.members, now_s - run.began_s, now_s)
        self._fill()


RuleMaker = Callable[[Setting], Rule]
"""Makes a rule for one task."""
