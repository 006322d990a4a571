"""RAMSIS: each worker follows the solution of a Markov decision process for the observed load."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gateway.scheduling.ruled import Chosen, RequestView, Rule
from loadtests.simulator.policies.batching import Profile, by_deadline
from loadtests.simulator.policies.observed_load import ArrivalRate, level_of, rate_at
from loadtests.simulator.policies.setting import Setting
from loadtests.workload.variants import Variant

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
Flags = NDArray[np.bool_]

SLACKS = 40
"""The number of slack steps, spaced geometrically from the shortest run to the objective; slack is rounded down."""

LONGEST = range(16, 48)
"""The limits of the longest queue in the state space; within them it is four of the largest batches."""

HORIZON = 10.0
"""The horizon of the discount, in objectives."""

TOLERANCE = 1e-5
"""Value iteration ends when no value changes by more than this share of the highest ..."""

SWEEPS = 500
"""... or after this many sweeps."""


@dataclass(frozen=True)
class Worker:
    """One worker's problem: Poisson arrivals with one objective, and actions (variant, batch size).

    `seconds[v][i]`: the duration of a run of `sizes[i]` inputs on variant v; infinite if it cannot.
    """

    seconds: tuple[tuple[float, ...], ...]
    sizes: tuple[int, ...]
    qualities: tuple[float, ...]
    rate_per_s: float
    objective_s: float


@dataclass(frozen=True)
class Action:
    """A variant by its index, and the most inputs of the batch."""

    variant: int
    size: int


@dataclass(frozen=True)
class Decisions:
    """The solution: an action for each queue length and slack step, or none if every run would be late."""

    actions: tuple[tuple[Action | None, ...], ...]
    slacks_s: tuple[float, ...]

    def at(self, inputs: int, slack_s: float) -> Action | None:
        """The action for this many waiting inputs, with this slack of the most urgent."""
        step = max(bisect_right(self.slacks_s, slack_s) - 1, 0)
        return self.actions[min(inputs, len(self.actions) - 1)][step]


@lru_cache(maxsize=512)
def decisions(worker: Worker) -> Decisions:
    """Solves a worker's problem by value iteration, for the discounted quality of answers in time.

    Approximations: the n waiting requests arrived evenly over the age of the most urgent; the first of k arrivals
    during a run comes after 1/(k + 1) of it. If every run would be late, the most urgent is dropped.
    """
    runs = [(v, i) for v, row in enumerate(worker.seconds) for i, taken_s in enumerate(row) if math.isfinite(taken_s)]
    seconds = np.array([worker.seconds[v][i] for v, i in runs])
    sizes = np.array([worker.sizes[i] for _, i in runs])
    rewards = np.array([worker.qualities[v] for v, _ in runs]) * sizes
    length = min(max(4 * int(sizes.max()), LONGEST.start), LONGEST.stop)
    steps = _Steps(worker, seconds, sizes, length)
    horizon_s = HORIZON * worker.objective_s
    of_run = np.nonzero(steps.feasible)[0]
    discounts, gains = np.exp(-seconds / horizon_s)[of_run], rewards[of_run]
    scores = np.full(steps.feasible.shape, -np.inf)
    idle = worker.rate_per_s / (worker.rate_per_s + 1 / horizon_s)
    served_per_s = min(worker.rate_per_s, float((sizes / seconds).max()))
    values = np.full((length + 1, SLACKS + 1), max(worker.qualities) * served_per_s * horizon_s)  # an upper bound
    for _ in range(SWEEPS):
        before = values
        scores[steps.feasible] = gains + discounts * steps.expected(values)
        values = scores.max(axis=0)
        values[0] = idle * before[1, SLACKS]
        steps.drop_late(values)
        if np.abs(values - before).max() <= TOLERANCE * np.abs(values).max():
            break
    best = scores.argmax(axis=0)
    found = [
        [
            Action(runs[best[n, s]][0], worker.sizes[runs[best[n, s]][1]]) if steps.feasible[:, n, s].any() else None
            for s in range(SLACKS + 1)
        ]
        for n in range(length + 1)
    ]
    return Decisions(tuple(map(tuple, found)), tuple(steps.slacks_s))


class _Steps:
    """The transitions of each run from each state. Axes: run, waiting inputs, slack step; step 0 is no slack."""

    def __init__(self, worker: Worker, seconds: Floats, sizes: Places, length: int) -> None:
        self._length = length
        shortest_s = min(float(seconds.min()), worker.objective_s / 2)
        self.slacks_s: Floats = np.concatenate(([0.0], np.geomspace(shortest_s, worker.objective_s, SLACKS)))
        counts = np.arange(length + 1)
        waiting, slack_s = counts[None, :, None], self.slacks_s[None, None, :]
        runs_s, taken = seconds[:, None, None], sizes[:, None, None]
        gap_s = (worker.objective_s - slack_s) / np.maximum(waiting, 1)  # between the deadlines of waiting requests
        self.feasible = (taken <= waiting) & (runs_s <= slack_s)
        self._late: Flags = self.slacks_s < seconds[sizes == 1].min()
        self._run, of_waiting, _ = np.nonzero(self.feasible)
        self._left = of_waiting - sizes[self._run]
        self._slack_left = self._step(slack_s + gap_s * taken - runs_s)[self.feasible]
        self._slack_behind = self._step(slack_s + gap_s)[0]
        self._slack_first = self._step(worker.objective_s - seconds[:, None] * (counts / (counts + 1)))
        self._odds = np.array([_poisson(worker.rate_per_s * run_s, length) for run_s in seconds])
        self._moves = np.zeros((len(seconds), length + 1, length + 1))
        for left in range(length + 1):
            self._moves[:, left, left:length] = self._odds[:, : length - left]
            self._moves[:, left, length] = self._odds[:, length - left :].sum(axis=1)

    def _step(self, slack_s: Floats) -> Places:
        """The step of a slack, rounded down."""
        return np.maximum(np.searchsorted(self.slacks_s, slack_s + 1e-9, side="right") - 1, 0)

    def expected(self, values: Floats) -> Floats:
        """The expected value of a run's successor states."""
        behind = self._moves @ values
        going_on: Floats = behind[self._run, self._left, self._slack_left]
        counts = np.arange(self._length + 1)
        afresh = (self._odds * values[counts, np.where(counts, self._slack_first, 0)]).sum(axis=1)
        return np.where(self._left == 0, afresh[self._run], going_on)

    def drop_late(self, values: Floats) -> None:
        """Sets the value of a state in which every run is late to that of the state without its most urgent request."""
        for n in range(1, self._length + 1):
            values[n, self._late] = values[n - 1, self._slack_behind[n, self._late]] if n > 1 else values[0, 0]


def _poisson(mean: float, most: int) -> Floats:
    """The probabilities of 0 to `most` arrivals; the last includes more."""
    counts = np.arange(most + 1)
    logs = counts * math.log(mean) - mean - np.array([math.lgamma(count + 1) for count in counts])
    odds: Floats = np.exp(logs)
    odds[-1] += max(1.0 - odds.sum(), 0.0)
    return odds


WINDOW_S = 1.0
"""The window over which the load is observed, in seconds: the best of 0.2 to 1 s."""

OBJECTIVE = 0.7
"""The quantile of the budgets that is the process's one objective: the best of 0.1 to 0.95."""

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
"""The batch sizes of actions."""


class Ramsis(Rule[Variant]):
    """Model selection by decision process.

    Source: Mendoza et al., "Model Selection for Latency-Critical Inference Serving", EuroSys 2024.

    A worker, here a core, has its own queue; its state is the queue's length and the slack of the most urgent in it, an
    action a variant and a batch size, the reward the quality answered in time. The process is solved offline for levels
    of Poisson load, by 95th percentiles of runs; online the level observed selects the solution.

    Mixed budgets are outside the paper: the process has one objective, the quantile `OBJECTIVE` of the budgets, and
    real slack is capped there. Simplified: see `decisions`. Generous: the batch may be smaller than the queue, which
    the paper serves whole; a request joins the least loaded worker; a queue is served earliest deadline first;
    requests that would be late even alone in the fastest variant are dropped, where the paper serves them late.
    """

    def __init__(self, setting: Setting) -> None:
        self._profile = Profile(setting)
        self._setting = setting
        self._rate = ArrivalRate(WINDOW_S, setting.rate_per_s)
        self._objective_s = max(self._profile.budget_s(OBJECTIVE), 1e-3)
        self._seconds = tuple(tuple(self._p95_s(variant, size) for size in SIZES) for variant in setting.variants)
        self._worker_of: dict[RequestView, int] = {}
        self._runs: dict[RequestView, int] = {}
        self._busy = [False] * setting.cores
        self._inputs = [0] * setting.cores

    def arrived(self, request: RequestView, now_s: float) -> None:
        """Queues the request at the worker with the fewest inputs waiting or running."""
        self._rate.add(request.texts, now_s)
        worker = min(range(self._setting.cores), key=lambda one: self._inputs[one])
        self._worker_of[request] = worker
        self._inputs[worker] += request.texts

    def choose(self, queue: Sequence[RequestView], now_s: float) -> Chosen[Variant]:
        """The action of the idle worker with the most urgent request."""
        lost = tuple(request for request in queue if self._profile.is_lost(request, self._profile.fastest, now_s))
        for request in lost:
            self._inputs[self._worker_of.pop(request)] -= request.texts
        waiting: dict[int, list[RequestView]] = {}
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

    def ended(self, variant: Variant, members: Sequence[RequestView], seconds: float, now_s: float) -> None:
        """Marks the run's worker as idle."""
        worker = self._runs.pop(members[0])
        self._busy[worker] = False
        self._inputs[worker] -= sum(request.texts for request in members)

    def _action(self, ordered: Sequence[RequestView], now_s: float) -> tuple[Variant, tuple[RequestView, ...]]:
        """The solved process's action if the most urgent request has time for it, else the fastest variant."""
        slack_s = self._profile.available_s(ordered[0], now_s)
        inputs = sum(request.texts for request in ordered)
        action = self._decisions(now_s).at(inputs, slack_s)
        variant, most = self._profile.fastest, None
        if action is not None:
            wanted = self._setting.variants[action.variant]
            if self._profile.p95_s(wanted, ordered[0].texts, ordered[0].tokens) <= slack_s:
                variant, most = wanted, action.size
        return variant, self._profile.filled(variant, ordered, slack_s, most)

    def _decisions(self, now_s: float) -> Decisions:
        rate_per_s = rate_at(level_of(self._rate.per_s(now_s) / self._setting.cores))
        qualities = tuple(variant.quality for variant in self._setting.variants)
        return decisions(Worker(self._seconds, SIZES, qualities, rate_per_s, self._objective_s))

    def _p95_s(self, variant: Variant, size: int) -> float:
        return self._profile.p95_s(variant, size, self._setting.tokens) if size <= variant.max_batch else math.inf
