"""The congestion price: what a core-second of the node is worth to others at this moment, in points of quality.

It is the shadow price of capacity in "maximise the total quality of answers in time": the slope, at the time that each
request can be given, of the best quality that so much time buys. Two of them count, and the higher rules: that of
the rate at which requests come, over the long run, and that of the most pressed of several horizons, in which waiting
requests and those to expect must be done. Pure: it knows requests by their slack, checkpoints by what runs of them
take.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from gateway.traffic import Traffic, until

HORIZONS_S = (0.025, 0.05, 0.1, 0.2, 0.5)
"""The horizons whose demand is priced."""

UTILISATION = 0.9
"""The share of a horizon's core time that is given out: what is left absorbs noise."""

CYCLE = 3.0
"""A batch may take this part of a budget in the long run: one like it runs before, and half of one is left over."""

DOUBT = 0.05
"""The price is raised by this part, so that what runs take need not be known exactly for the cheaper to win a tie.

Between two corners of a frontier both are worth the price of time alike; which is run must not be left to the noise in
which their times were learnt. It is never raised past the best bargain: one that pays remains.
"""

SPARE_S = 0.05
"""So many seconds a core are remembered at the most of the core time that was there for requests and that they left.

While it lasts, what is kept for those to come may be spent on those who are here: else, where the time there is lies
between two corners of the frontier, everybody would have the cheaper one and the cores would be idle in between.
"""

SPARE_UTILISATION = 0.8
"""This part of the core time is taken to have been there for them: runs are often smaller, and dearer, than planned."""

_COST_WEIGHT = 0.05
_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


class Runner(Protocol):
    """What is known of a checkpoint: its worth in points of quality and what its runs take."""

    @property
    def worth(self) -> float:
        """In points of quality."""

    @property
    def max_batch(self) -> int:
        """Inputs that one run may take; 1 where none share a run."""

    def run_s(self, inputs: int, characters: int) -> float:
        """The median core-seconds of one run of so many inputs of so many characters each."""


@dataclass(frozen=True, slots=True)
class Corner:
    """A corner of the best that time buys: core-seconds a request, and the worth they buy."""

    cost_s: float
    worth: float


def sizes(most: int) -> list[int]:
    """The batch sizes that are tried, up to and with `most`."""
    tried = [size for size in _SIZES if size < most]
    return [*tried, most]


def frontier(points: Sequence[Corner]) -> list[Corner]:
    """The upper concave envelope of the points and of doing nothing, from the cheapest corner on."""
    hull: list[Corner] = []
    for point in sorted((Corner(0.0, 0.0), *points), key=lambda corner: (corner.cost_s, -corner.worth)):
        if hull and point.worth <= hull[-1].worth:
            continue
        while len(hull) >= 2 and _slope(hull[-2], hull[-1]) <= _slope(hull[-2], point):
            hull.pop()
        hull.append(point)
    return hull


def together(hulls: Sequence[Sequence[Corner]]) -> list[Corner]:
    """The frontier of the mean of several requests, each with a frontier of its own.

    The steps of all of them in order of what a second buys: where one price is asked of everybody, those with the
    better bargain have taken theirs.
    """
    steps = [
        Corner(right.cost_s - left.cost_s, right.worth - left.worth) for hull in hulls for left, right in pairwise(hull)
    ]
    steps.sort(key=lambda step: (-step.worth / step.cost_s, step.cost_s))
    at = Corner(0.0, 0.0)
    mean = [at]
    for step in steps:
        at = Corner(at.cost_s + step.cost_s / len(hulls), at.worth + step.worth / len(hulls))
        mean.append(at)
    return mean


def price_of(hull: Sequence[Corner], each_s: float) -> float:
    """The slope of the frontier where each request may have `each_s` core-seconds; 0 where that is more than enough.

    Between two corners the cheaper one is just preferred; only where there is time for the dearer, it is.
    """
    for left, right in pairwise(hull):
        if each_s < right.cost_s:
            return _slope(left, right) * (1 + 1e-6)
    return 0.0


class Congestion:
    """Prices the core time of one task's requests, from the traffic and from what waits.

    What runs take is looked up anew with each lesson of the traffic, not for every price.
    """

    def __init__(self, traffic: Traffic, runners: Sequence[Runner]) -> None:
        """Prices by this traffic, for these checkpoints."""
        self._traffic = traffic
        self._runners = runners
        self._lesson = -1
        self._spare_s = 0.0
        self.cost_s = 0.0
        """The core-seconds that a request has cost of late."""
        self.crowded_s = 0.0
        """Of those to be done within this time not all could be served, at the last price: 0 where all could."""
        self.worth_left = 0.0
        """What the best bargain left of its worth at the last price: 0 where there was more demand than can be met."""
        self._in_the_long_run: list[Corner] = []
        self._least_cost_s = 0.0
        self._within: dict[tuple[float, int], list[Corner]] = {}

    def price(self, waiting: Sequence[int], cores: float, busy_s: float, now_s: float) -> float:
        """Points of quality a core-second.

        `waiting` says how many requests that wait must be done within each of `HORIZONS_S`; `busy_s` is what is left
        of the runs under way, in core-seconds.
        """
        traffic = self._traffic
        if traffic.lesson != self._lesson:
            self._learn()
        rate = traffic.rate(now_s)
        binding, each_s = self._in_the_long_run, cores / rate if rate > 0 else math.inf
        price = price_of(binding, each_s)
        usual = traffic.mean_rate(now_s)
        self.crowded_s = math.inf if cores < min(rate, usual) * self._least_cost_s else 0.0
        freed = min(self._spare_s / (SPARE_S * cores), 1.0)
        if not self.crowded_s:
            price *= 1 - freed
        usual *= freed
        expected, budgets_s = traffic.ahead(now_s), traffic.budgets_s
        for horizon_s, count in zip(HORIZONS_S, waiting, strict=True):
            rooms_s = [horizon_s - budget_s for budget_s in budgets_s if budget_s < horizon_s]
            coming = sum(max(until(expected, room_s) - usual * room_s, 0.0) for room_s in rooms_s)
            due = count + coming / max(len(budgets_s), 1)
            if due < 1:
                continue
            each_s = max(cores * horizon_s - busy_s, 1e-4) * UTILISATION / due
            hull = self._hull(horizon_s, math.ceil(due / cores))
            if _crowded(hull, each_s):
                self.crowded_s = max(self.crowded_s, horizon_s)
            if (pressed := price_of(hull, each_s)) > price:
                price, binding = pressed, hull
        self.worth_left = max((corner.worth - price * corner.cost_s for corner in binding), default=0.0)
        return max(price, min(price * (1 + DOUBT), _slope(binding[0], binding[1]))) if price > 0 else 0.0

    def spent(self, requests: int, core_s: float, cores: float, now_s: float) -> None:
        """Takes what a run of so many requests costs, and so what it leaves of the time that there was for them.

        `cores` are those that the others' requests leave to these.
        """
        self.cost_s += _COST_WEIGHT * (core_s / requests - self.cost_s)
        rate = max(self._traffic.mean_rate(now_s), 1e-9)
        spare_s = self._spare_s + requests * SPARE_UTILISATION * cores / rate - core_s
        self._spare_s = min(max(spare_s, 0.0), SPARE_S * cores)

    @property
    def least_cost_s(self) -> float:
        """The least core-seconds that a request costs, on average; 0 before any has come."""
        return self._least_cost_s

    def _learn(self) -> None:
        traffic = self._traffic
        self._lesson = traffic.lesson
        self._within.clear()
        hulls = [
            frontier(
                [_cheapest(one, traffic.characters, budget_s / CYCLE, one.max_batch) for one in self._runners],
            )
            for budget_s in traffic.budgets_s
        ]
        self._in_the_long_run = together(hulls)
        self._least_cost_s = sum(hull[1].cost_s for hull in hulls if len(hull) > 1) / max(len(hulls), 1)

    def _hull(self, horizon_s: float, most: int) -> list[Corner]:
        try:
            return self._within[horizon_s, most]
        except KeyError:
            characters = self._traffic.characters
            hull = frontier([_cheapest(runner, characters, horizon_s, most) for runner in self._runners])
            return self._within.setdefault((horizon_s, most), hull)


def _cheapest(runner: Runner, characters: int, within_s: float, most: int) -> Corner:
    """The least that a request costs in a run of at most `most` that takes no longer than `within_s`."""
    cost_s = runner.run_s(1, characters)
    for size in sizes(min(most, runner.max_batch))[1:] if most > 1 else ():
        run_s = runner.run_s(size, characters)
        if run_s > within_s:
            break
        cost_s = min(cost_s, run_s / size)
    return Corner(cost_s, runner.worth)


def _crowded(hull: Sequence[Corner], each_s: float) -> bool:
    """Whether not even the least that a request costs is there for each."""
    return len(hull) > 1 and each_s < hull[1].cost_s


def _slope(left: Corner, right: Corner) -> float:
    return (right.worth - left.worth) / (right.cost_s - left.cost_s) if right.cost_s > left.cost_s else math.inf
