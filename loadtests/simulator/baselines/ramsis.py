"""RAMSIS: each worker follows the solution of a Markov decision process, made for the load observed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from loadtests.simulator.baselines.arrivals import ArrivalRate, level_of, rate_at
from loadtests.simulator.baselines.batches import by_deadline, filled
from loadtests.simulator.baselines.known import Profile
from loadtests.simulator.baselines.ramsis_decisions import Decisions, Worker, decisions
from loadtests.simulator.central import Chosen, Setting
from loadtests.simulator.requests import Offered
from loadtests.simulator.variants import Variant

WINDOW_S = 1.0
"""Over how long the load is observed: of 0.2 to 1 s the best when tried."""

OBJECTIVE = 0.7
"""What part of budgets does not exceed the one objective that the process knows: of 0.1 to 0.95 the best when tried."""

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
"""The batch sizes that are actions."""


class Ramsis:
    """Model selection by decision process (Mendoza et al., "Model Selection for Latency-Critical Inference Serving",
    EuroSys 2024).

    A worker, here a core, has its own queue; its state is the queue's length and the slack of the most urgent in it, an
    action a variant and a batch size, the reward the quality answered in time. The process is solved offline for levels
    of Poisson load, by 95th percentiles of runs; online the level observed selects the solution.

    Mixed budgets are outside the paper: the process has one objective, `OBJECTIVE` of the budgets, and the slack it
    looks up is the real one, cut off there. Simplified: see `decisions`. Generous: the batch may be smaller than the
    queue, which the paper serves whole; a request joins the worker with the least before it; a queue is served earliest
    deadline first; what would be late even alone in the fastest variant is dropped, where the paper serves it late.
    """

    def __init__(self, setting: Setting) -> None:
        self._profile = Profile(setting)
        self._setting = setting
        self._rate = ArrivalRate(WINDOW_S, setting.rate_per_s)
        self._objective_s = max(self._profile.budget_s(OBJECTIVE), 1e-3)
        self._seconds = tuple(tuple(self._p95_s(variant, size) for size in SIZES) for variant in setting.variants)
        self._worker_of: dict[Offered, int] = {}
        self._runs: dict[Offered, int] = {}
        self._busy = [False] * setting.cores
        self._inputs = [0] * setting.cores

    def arrived(self, request: Offered, now_s: float) -> None:
        """Joins the queue of the worker with the fewest inputs waiting or running."""
        self._rate.add(request.texts, now_s)
        worker = min(range(self._setting.cores), key=lambda one: self._inputs[one])
        self._worker_of[request] = worker
        self._inputs[worker] += request.texts

    def choose(self, queue: Sequence[Offered], now_s: float) -> Chosen:
        """The action of the idle worker whose queue has the most urgent request."""
        lost = tuple(request for request in queue if self._profile.is_lost(request, self._profile.fastest, now_s))
        for request in lost:
            self._inputs[self._worker_of.pop(request)] -= request.texts
        waiting: dict[int, list[Offered]] = {}
        for request in queue:
            worker = self._worker_of.get(request)
            if worker is not None and not self._busy[worker]:
                waiting.setdefault(worker, []).append(request)
        if not waiting:
            return Chosen(drop=lost)
        worker = min(waiting, key=lambda one: min(map(by_deadline, waiting[one])))
        variant, members = self._action(sorted(waiting[worker], key=by_deadline), now_s)
        for request in members:
            del self._worker_of[request]
        self._busy[worker] = True
        self._runs[members[0]] = worker
        return Chosen(variant, members, lost)

    def ended(self, variant: Variant, members: Sequence[Offered], seconds: float, now_s: float) -> None:
        """Its worker is idle again."""
        worker = self._runs.pop(members[0])
        self._busy[worker] = False
        self._inputs[worker] -= sum(request.texts for request in members)

    def _action(self, ordered: Sequence[Offered], now_s: float) -> tuple[Variant, tuple[Offered, ...]]:
        """As the process says, where the first really has the time for it; else the fastest variant."""
        slack_s = self._profile.room_s(ordered[0], now_s)
        inputs = sum(request.texts for request in ordered)
        action = self._decisions(now_s).at(inputs, slack_s)
        variant, most = self._profile.fastest, None
        if action is not None:
            wanted = self._setting.variants[action.variant]
            if self._profile.p95_s(wanted, ordered[0].texts, ordered[0].tokens) <= slack_s:
                variant, most = wanted, action.size
        return variant, filled(self._profile, variant, ordered, slack_s, most)

    def _decisions(self, now_s: float) -> Decisions:
        rate_per_s = rate_at(level_of(self._rate.per_s(now_s) / self._setting.cores))
        qualities = tuple(variant.quality for variant in self._setting.variants)
        return decisions(Worker(self._seconds, SIZES, qualities, rate_per_s, self._objective_s))

    def _p95_s(self, variant: Variant, size: int) -> float:
        return self._profile.p95_s(variant, size, self._setting.tokens) if size <= variant.max_batch else math.inf
