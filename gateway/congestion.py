"""The congestion price: what a core-second of the node is worth to others at this moment, in points of quality.

It is the shadow price of capacity in "maximise the total quality of answers in time": the slope, at the time that each
request can be given, of the best quality that so much time buys. Two of them count, and the higher rules: that of
the rate at which requests come, over the long run, and that of the most pressed of several horizons, in which waiting
requests and those to expect must be done. Pure: it knows requests by their slack, checkpoints by what runs of them
take.
"""

from __future__ import annotations

import math
from bisect import bisect_right
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
        self.worth_left = 0.0
        """What the best bargain left of its worth at the last price: 0 where there was more demand than can be met."""
        self._in_the_long_run: list[Corner] = []
        self._least_cost_s = 0.0
        self._within: dict[tuple[float, int], list[Corner]] = {}

    def price(self, slacks_s: Sequence[float], cores: float, busy_s: float, now_s: float) -> float:
        """Points of quality a core-second.

        `slacks_s` has, ascending, how long each waiting request has for its run; `busy_s` is what is left of the runs
        under way, in core-seconds.
        """
        traffic = self._traffic
        if traffic.lesson != self._lesson:
            self._learn()
        rate = traffic.rate(now_s)
        price, binding = price_of(self._in_the_long_run, cores / rate) if rate > 0 else 0.0, self._in_the_long_run
        expected, budgets_s = traffic.ahead(now_s), traffic.budgets_s
        for horizon_s in HORIZONS_S:
            coming = sum(until(expected, horizon_s - b) for b in budgets_s if b < horizon_s) / max(len(budgets_s), 1)
            count = bisect_right(slacks_s, horizon_s) + coming
            if count < 1:
                continue
            each_s = max(cores * horizon_s - busy_s, 1e-4) * UTILISATION / count
            hull = self._hull(horizon_s, math.ceil(count / cores))
            if (pressed := price_of(hull, each_s)) > price:
                price, binding = pressed, hull
        self.worth_left = max((corner.worth - price * corner.cost_s for corner in binding), default=0.0)
        return max(price, min(price * (1 + DOUBT), _slope(binding[0], binding[1]))) if price > 0 else 0.0

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


def _slope(left: Corner, right: Corner) -> float:
    return (right.worth - left.worth) / (right.cost_s - left.cost_s) if right.cost_s > left.cost_s else math.inf
