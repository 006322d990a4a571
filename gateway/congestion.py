"""The congestion price: what a core-second of the node is worth to others at this moment, in points of quality.

It is the shadow price of capacity in "maximise the total quality of answers in time": the slope, at the time that each
request can be given, of the best quality that so much time buys. For several horizons, and for all requests together,
two prices are asked and the highest rules: that of how many wait, given how many come in the long run
(`backlog_price`), and that of a rush, in which those who wait and those to expect must be done within the horizon.
Pure: it knows requests by their slack, checkpoints by what runs of them take.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

from gateway.backlog_price import BacklogPrice, Corner, slope
from gateway.traffic import Traffic, until

HORIZONS_S = (0.025, 0.05, 0.1, 0.2, 0.5)
"""The horizons whose demand is priced."""

UTILISATION = 0.9
"""The share of a horizon's core time that is given out: what is left absorbs noise."""

STEADY_UTILISATION = 0.8
"""The same in the long run: runs are often smaller, and so dearer, than planned."""

CYCLE = 3.0
"""A batch may take this part of a budget in the long run: one like it runs before, and half of one is left over."""

DOUBT = 0.05
"""The price is raised by this part, so that what runs take need not be known exactly for the cheaper to win a tie.

Between two corners of a frontier both are worth the price of time alike; which is run must not be left to the noise in
which their times were learnt. It is never raised past the best bargain: one that pays remains.
"""

LASTING = 3.0
"""Where the rate of late is less than the mean by more than so many times, the rush that made the mean is over."""

NEGLIGIBLE = 0.1
"""A price of less is none: of an answer that takes 100 ms it would be a hundredth of a point."""

_LEAST_SLACK = 0.25
_STEPS = 10
_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128)


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
        while len(hull) >= 2 and slope(hull[-2], hull[-1]) <= slope(hull[-2], point):
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
            return slope(left, right) * (1 + 1e-6)
    return 0.0


@dataclass(slots=True, eq=False)
class _Class:
    """Requests with budgets up to a horizon: their part of all, the frontier of their mean, how many can wait a core.

    `prices` are those for rates that were met.
    """

    share: float
    hull: list[Corner]
    most: float
    dispersion: float
    prices: dict[tuple[int, int], BacklogPrice] = field(default_factory=dict)

    def price(self, waiting: float, rate: float, cores: float) -> float:
        """The price where so many of them wait, at this rate of all arrivals; both are taken to the nearest 10 %."""
        at = round(_STEPS * math.log(max(rate, 1e-6))), round(_STEPS * math.log(max(cores, 1e-6)))
        known = self.prices.get(at)
        if known is None:
            rate, cores = self.share * math.exp(at[0] / _STEPS), math.exp(at[1] / _STEPS)
            known = self.prices.setdefault(at, BacklogPrice(self.hull, rate, cores, cores * self.most, self.dispersion))
        return known.price(waiting)


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
        """What the best bargain is worth after its price, as of the last price; 0 where there was more demand than can
        be met."""
        self.crowded_s = 0.0
        """Within what time not all that is due can be done, as of the last price; infinite where that is so in the long
        run, 0 where all can."""
        self._in_the_long_run: list[Corner] = []
        self._classes: list[_Class | None] = []
        self.least_cost_s = 0.0
        """The least core-seconds that a request costs, on average; 0 before any has come."""
        self._within: dict[tuple[float, int], list[Corner]] = {}

    def price(self, waiting: Sequence[int], cores: float, busy_s: float, now_s: float) -> float:
        """Points of quality a core-second.

        `waiting` says how many requests that wait must be done within each of `HORIZONS_S`, and in all; `busy_s` is
        what is left of the runs under way, in core-seconds.
        """
        traffic = self._traffic
        if traffic.lesson != self._lesson:
            self._learn()
        rate, usual = traffic.rate(now_s), traffic.mean_rate(now_s)
        self.crowded_s = math.inf if cores < min(rate, usual) * self.least_cost_s else 0.0
        binding, price, lasting = self._in_the_long_run, 0.0, min(usual, LASTING * rate)
        for of, count in zip(self._classes, waiting, strict=True):
            if of is not None and (asked := of.price(count, lasting, STEADY_UTILISATION * cores)) > price:
                price, binding = asked, of.hull
        expected, budgets_s = traffic.ahead(now_s), traffic.budgets_s
        for horizon_s, count in zip(HORIZONS_S, waiting, strict=False):
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
        if price < NEGLIGIBLE:
            return 0.0
        return max(price, min(price * (1 + DOUBT), slope(binding[0], binding[1])))

    def _learn(self) -> None:
        traffic = self._traffic
        self._lesson = traffic.lesson
        self._within.clear()
        budgets_s = traffic.budgets_s
        known: dict[float, list[Corner]] = {}
        for budget_s in budgets_s:
            if budget_s not in known:
                within_s = budget_s / CYCLE
                known[budget_s] = frontier(
                    [_cheapest(one, traffic.characters, within_s, one.max_batch) for one in self._runners]
                )
        hulls = [known[budget_s] for budget_s in budgets_s]
        self.least_cost_s = _least_cost_s(hulls)
        self._in_the_long_run = together(hulls)
        counts = [bisect_right(budgets_s, horizon_s) for horizon_s in (*HORIZONS_S, math.inf)]
        self._classes = [
            self._class_of(hulls[:count]) if count > before else None for before, count in pairwise((0, *counts))
        ]

    def _class_of(self, hulls: Sequence[list[Corner]]) -> _Class | None:
        """Those with the shortest budgets, as many as hulls are given."""
        traffic, hull = self._traffic, together(hulls)
        if len(hull) < 2:
            return None
        budgets_s = traffic.budgets_s
        mean_s, share = sum(budgets_s[: len(hulls)]) / len(hulls), len(hulls) / len(budgets_s)
        shortest_s = min(one.run_s(1, traffic.characters) for one in self._runners)
        slack_s = max(mean_s - shortest_s, _LEAST_SLACK * mean_s)
        dispersion = 1 + share * (traffic.dispersion(min(mean_s, 1.0)) - 1)
        return _Class(share, hull, slack_s / _least_cost_s(hulls), dispersion)

    def _hull(self, horizon_s: float, most: int) -> list[Corner]:
        try:
            return self._within[horizon_s, most]
        except KeyError:
            characters = self._traffic.characters
            hull = frontier([_cheapest(runner, characters, horizon_s, most) for runner in self._runners])
            return self._within.setdefault((horizon_s, most), hull)


def _least_cost_s(hulls: Sequence[Sequence[Corner]]) -> float:
    return sum(hull[1].cost_s for hull in hulls if len(hull) > 1) / max(len(hulls), 1)


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
