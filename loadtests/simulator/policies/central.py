"""One queue before the node's cores: the frame in which published policies run.

Generous to them: the queue is seen whole and at once, a decision takes no time, nothing but the policy's own runs is on
the cores. A policy chooses a variant and a batch whenever a core is free.
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
    """What a free core is to run next; members must be waiting. `drop` are given up before that."""

    variant: Variant | None = None
    members: tuple[Offered, ...] = ()
    drop: tuple[Offered, ...] = ()


class Rule(Protocol):
    """A published policy for one task: it sees its own queue and says what a free core runs.

    Who learns nothing of arrivals or of ends inherits observers that do nothing.
    """

    def arrived(self, request: Offered, now_s: float) -> None:
        """Called for each arrival before it is queued: some estimate the load, some bind the request to a variant."""
        return

    def choose(self, queue: Sequence[Offered], now_s: float) -> Chosen:
        """What to run now of a queue that is not empty, in order of arrival. Nothing chosen: nothing runs before the
        next arrival or end of a run.
        """

    def ended(self, variant: Variant, members: Sequence[Offered], seconds: float, now_s: float) -> None:
        """A run has ended; some learn from it."""
        return


@dataclass(frozen=True)
class Setting:
    """What a rule may know beforehand: the variants (best quality first) and cores of its task, and the load offered.

    `rate_per_s` is the mean rate at which requests of the task will arrive, `budgets_s` a sample of their budgets,
    `tokens` their mean length; `overhead_s` is what a request takes outside queue and engine.
    """

    variants: tuple[Variant, ...]
    cores: int
    rate_per_s: float
    budgets_s: tuple[float, ...]
    tokens: int
    overhead_s: float


class Central:
    """Runs one rule for each task on one node: a free core goes to the task whose head has the earliest deadline."""

    def __init__(self, world: World, rules: Mapping[str, Rule], cores: int, overhead_s: float) -> None:
        """A request's answer takes `overhead_s` more to its client than its run."""
        self._world = world
        self._rules = rules
        self._cores = cores
        self._overhead_s = overhead_s
        self._queues: dict[str, list[Offered]] = {task: [] for task in rules}

    def arrived(self, request: Offered) -> None:
        """Queues it and fills the cores."""
        self._rules[request.task].arrived(request, self._world.now_s)
        self._queues[request.task].append(request)
        self._fill()

    def ended(self) -> None:
        """What still waits has failed."""
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
        """Has the task's rule choose; whether it did anything."""
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
