"""RAMSIS's decision process of one worker, and its solution: what to run at each queue length and slack.

It knows numbers only: seconds, qualities, a rate, an objective. How a worker is fed and followed is `ramsis`'s.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
Flags = NDArray[np.bool_]

SLACKS = 40
"""How many slacks are told apart, from the shortest run to the objective at even ratios; slack is rounded down."""

LONGEST = range(16, 48)
"""The longest queue told apart from a longer one: four of the largest batches, within this range."""

HORIZON = 10.0
"""What the discount looks ahead, in objectives."""

TOLERANCE = 1e-5
"""Value iteration ends when no value moves by more than this part of the highest ..."""

SWEEPS = 500
"""... or after so many sweeps."""


@dataclass(frozen=True)
class Worker:
    """One worker's problem: Poisson arrivals with one objective, and actions (variant, batch size).

    `seconds[v][i]`: a run of `sizes[i]` inputs in variant v; infinite where it cannot.
    """

    seconds: tuple[tuple[float, ...], ...]
    sizes: tuple[int, ...]
    qualities: tuple[float, ...]
    rate_per_s: float
    objective_s: float


@dataclass(frozen=True)
class Action:
    """Which variant, by its place, and how many inputs at most."""

    variant: int
    size: int


@dataclass(frozen=True)
class Decisions:
    """The solution: for each queue length and each step of slack an action, or none where every run would be late."""

    actions: tuple[tuple[Action | None, ...], ...]
    slacks_s: tuple[float, ...]

    def at(self, inputs: int, slack_s: float) -> Action | None:
        """The action with so many inputs waiting, the most urgent of them with such a slack."""
        step = max(bisect_right(self.slacks_s, slack_s) - 1, 0)
        return self.actions[min(inputs, len(self.actions) - 1)][step]


@lru_cache(maxsize=512)
def decisions(worker: Worker) -> Decisions:
    """Solves a worker's problem by value iteration, for the quality answered in time, discounted over a long horizon.

    Approximated: behind the most urgent of n that wait, arrivals are evenly spread over its age; of k that arrive in a
    run the first comes after 1/(k + 1) of it. Where every run would be late the most urgent is dropped.
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
    values = np.full((length + 1, SLACKS + 1), max(worker.qualities) * served_per_s * horizon_s)  # no less than it is
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
    """Where each run leads from each state. Axes: run, inputs waiting, step of slack; the first step is no slack."""

    def __init__(self, worker: Worker, seconds: Floats, sizes: Places, length: int) -> None:
        self._length = length
        shortest_s = min(float(seconds.min()), worker.objective_s / 2)
        self.slacks_s: Floats = np.concatenate(([0.0], np.geomspace(shortest_s, worker.objective_s, SLACKS)))
        counts = np.arange(length + 1)
        waiting, slack_s = counts[None, :, None], self.slacks_s[None, None, :]
        runs_s, taken = seconds[:, None, None], sizes[:, None, None]
        gap_s = (worker.objective_s - slack_s) / np.maximum(waiting, 1)  # between the deadlines of those that wait
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
        """The mean value of what a run leads to: arrivals behind those left over, or the first of new ones."""
        behind = self._moves @ values
        going_on: Floats = behind[self._run, self._left, self._slack_left]
        counts = np.arange(self._length + 1)
        afresh = (self._odds * values[counts, np.where(counts, self._slack_first, 0)]).sum(axis=1)
        return np.where(self._left == 0, afresh[self._run], going_on)

    def drop_late(self, values: Floats) -> None:
        """Gives a state in which every run is late the value of the one without its most urgent."""
        for n in range(1, self._length + 1):
            values[n, self._late] = values[n - 1, self._slack_behind[n, self._late]] if n > 1 else values[0, 0]


def _poisson(mean: float, most: int) -> Floats:
    """The odds of 0 to `most` arrivals, more counting as the most."""
    counts = np.arange(most + 1)
    logs = counts * math.log(mean) - mean - np.array([math.lgamma(count + 1) for count in counts])
    odds: Floats = np.exp(logs)
    odds[-1] += max(1.0 - odds.sum(), 0.0)
    return odds
