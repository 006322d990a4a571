"""The capacity price: what a core-second of the node is worth to others at this moment, in points of quality.

It is the shadow price of capacity in "maximise the total quality of answers in time": the slope, at the time that each
request can be given, of the best quality that so much time buys. For several horizons, and for all requests together,
two prices are asked and the highest rules. `QueuePrice` says what a core-second is worth by how many requests wait in
the long run; `CapacityPrice` adds that of a rush, in which those who wait and those to expect must be done within the
horizon. Pure: it knows requests by their slack, checkpoints by what their runs take.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from gateway.forecasting.forecaster import ServedCheckpoint
from gateway.scheduling.arrivals import ArrivalStats, until

_NARROWEST = 1e-9
_HALVINGS = 14
_STRAIGHT = 1e-9
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """A corner of the best that time buys: core-seconds a request, and the worth they buy."""

    cost_s: float
    utility: float


def slope(left: ParetoPoint, right: ParetoPoint) -> float:
    """What a core-second buys between two corners, in points of quality."""
    return (right.utility - left.utility) / (right.cost_s - left.cost_s) if right.cost_s > left.cost_s else math.inf


class _Stretch(NamedTuple):
    """The prices at which one corner is the best: from `first` on, over `prices`, where F begins at `worth`.

    `steepness` is the slope of F there; `scale` is rate * dispersion / 2 * cost of the equation.
    """

    first: float
    prices: float
    utility: float
    steepness: float
    scale: float

    def price(self, waiting: float, had: float) -> float:
        """The price where so many more wait than at its beginning."""
        excess, exponent = self.utility - had, self.steepness * waiting / self.scale
        if abs(exponent) < _STRAIGHT:
            return self.first + excess * waiting / self.scale
        return self.first + min(excess * math.expm1(exponent) / self.steepness, self.prices)


class QueuePrice:
    """The price for any number of requests that wait, of one frontier, rate and number of cores."""

    def __init__(self, front: Sequence[ParetoPoint], rate: float, cores: float, most: float, dispersion: float) -> None:
        """`hull` is a frontier of at least two corners, the first of nothing for nothing.

        At most `most` can wait and be in time; `dispersion` is the variance of the number of arrivals over its mean.
        """
        low, utility = 0.0, rate * front[-1].utility
        self._stretches: list[_Stretch] = []
        for left, right in reversed(list(pairwise(front))):
            high, steepness = slope(left, right), cores - rate * right.cost_s
            scale = rate * dispersion / 2 * right.cost_s
            self._stretches.append(_Stretch(low, high - low, utility, steepness, scale))
            low, utility = high, utility + steepness * (high - low)
        self._dearest = low
        if most <= 0:  # nobody can wait and be in time: whoever waits pays the most
            self._stretches, self._widths, self._narrowed = [], [], 1.0
            return
        self._had = _had(self._stretches, min(utility, *(stretch.utility for stretch in self._stretches)), most)
        self._widths = [_width(stretch, self._had) for stretch in self._stretches]
        self._narrowed = min(sum(self._widths) / most, 1.0)

    def price(self, waiting: float) -> float:
        """Points of quality a core-second: 0 where nobody waits, never falling, at the most the cheapest bargain's."""
        if waiting <= 0:
            return 0.0
        waiting *= self._narrowed
        for stretch, width in zip(self._stretches, self._widths, strict=True):
            if waiting < width:
                return stretch.price(waiting, self._had)
            waiting -= width
        return self._dearest


def _had(stretches: Sequence[_Stretch], best: float, most: float) -> float:
    """The quality a second at which the stretches are `most` wide together: the less below the best, the wider.

    Where hardly ever so many wait they are narrower even with next to nothing lost: `price` widens them.
    """
    low, high = _NARROWEST, 1.0
    while _wider(stretches, best * (1 - high), most) and high < 1 / _NARROWEST:
        low, high = high, 16 * high
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        if _wider(stretches, best * (1 - middle), most):
            low = middle
        else:
            high = middle
    return best * (1 - high)


def _wider(stretches: Sequence[_Stretch], had: float, most: float) -> bool:
    """Whether they are wider than `most` together. Asked often, so no further than needed."""
    for stretch in stretches:
        most -= _width(stretch, had)
        if most < 0:
            return True
    return False


def _width(stretch: _Stretch, had: float) -> float:
    _, prices, utility, steepness, scale = stretch
    excess = utility - had
    grown = steepness * prices / excess
    if -_STRAIGHT < grown < _STRAIGHT:
        return scale * prices / excess
    return scale * math.log(max(1 + grown, _ROUNDING)) / steepness


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

Between two corners of a front both are worth the price of time alike; which is run must not be left to the noise in
which their times were learnt. It is never raised past the best bargain: one that pays remains.
"""

LASTING = 3.0
"""Where the rate of late is less than the mean by more than so many times, the rush that made the mean is over."""

NEGLIGIBLE = 0.1
"""A price of less is none: of an answer that takes 100 ms it would be a hundredth of a point."""

_LEAST_SLACK = 0.25
_STEPS = 10
_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128)


def sizes(most: int) -> list[int]:
    """The batch sizes that are tried, up to and with `most`."""
    tried = [size for size in _SIZES if size < most]
    return [*tried, most]


def pareto_front(points: Sequence[ParetoPoint]) -> list[ParetoPoint]:
    """The upper concave envelope of the points and of doing nothing, from the cheapest corner on."""
    front: list[ParetoPoint] = []
    for point in sorted((ParetoPoint(0.0, 0.0), *points), key=lambda point: (point.cost_s, -point.utility)):
        if front and point.utility <= front[-1].utility:
            continue
        while len(front) >= 2 and slope(front[-2], front[-1]) <= slope(front[-2], point):
            front.pop()
        front.append(point)
    return front


def joined(fronts: Sequence[Sequence[ParetoPoint]]) -> list[ParetoPoint]:
    """The Pareto front of the mean of several requests, each with a front of its own.

    The steps of all of them in order of what a second buys: where one price is asked of everybody, those with the
    better bargain have taken theirs.
    """
    steps = [
        ParetoPoint(right.cost_s - left.cost_s, right.utility - left.utility)
        for front in fronts
        for left, right in pairwise(front)
    ]
    steps.sort(key=lambda step: (-step.utility / step.cost_s, step.cost_s))
    at = ParetoPoint(0.0, 0.0)
    mean = [at]
    for step in steps:
        at = ParetoPoint(at.cost_s + step.cost_s / len(fronts), at.utility + step.utility / len(fronts))
        mean.append(at)
    return mean


def price_of(front: Sequence[ParetoPoint], each_s: float) -> float:
    """The slope of the front where each request may have `each_s` core-seconds; 0 where that is more than enough.

    Between two corners the cheaper one is just preferred; only where there is time for the dearer, it is.
    """
    for left, right in pairwise(front):
        if each_s < right.cost_s:
            return slope(left, right) * (1 + 1e-6)
    return 0.0


@dataclass(slots=True, eq=False)
class _Class:
    """Requests with budgets up to a horizon: their part of all, the front of their mean, how many can wait a core.

    `prices` are those for rates that were met.
    """

    share: float
    front: list[ParetoPoint]
    most: float
    dispersion: float
    prices: dict[tuple[int, int], QueuePrice] = field(default_factory=dict)

    def price(self, waiting: float, rate: float, cores: float) -> float:
        """The price where so many of them wait, at this rate of all arrivals; both are taken to the nearest 10 %."""
        at = round(_STEPS * math.log(max(rate, 1e-6))), round(_STEPS * math.log(max(cores, 1e-6)))
        known = self.prices.get(at)
        if known is None:
            rate, cores = self.share * math.exp(at[0] / _STEPS), math.exp(at[1] / _STEPS)
            known = self.prices.setdefault(at, QueuePrice(self.front, rate, cores, cores * self.most, self.dispersion))
        return known.price(waiting)


class CapacityPrice:
    """Prices the core time of one task's requests, from the traffic and from what waits.

    What runs take is looked up anew with each lesson of the traffic, not for every price.
    """

    def __init__(self, arrivals: ArrivalStats, checkpoints: Sequence[ServedCheckpoint]) -> None:
        """Prices by this traffic, for these checkpoints."""
        self._arrivals = arrivals
        self._checkpoints = checkpoints
        self._lesson = -1
        self.utility_left = 0.0
        """What the best bargain is worth after its price, as of the last price; 0 where there was more demand than can
        be met."""
        self.crowded_s = 0.0
        """Within what time not all that is due can be done, as of the last price; infinite where that is so in the long
        run, 0 where all can."""
        self._in_the_long_run: list[ParetoPoint] = []
        self._classes: list[_Class | None] = []
        self.least_cost_s = 0.0
        """The least core-seconds that a request costs, on average; 0 before any has come."""
        self._within: dict[tuple[float, int], list[ParetoPoint]] = {}

    def price(self, waiting: Sequence[int], cores: float, busy_s: float, now_s: float) -> float:
        """Points of quality a core-second.

        `waiting` says how many requests that wait must be done within each of `HORIZONS_S`, and in all; `busy_s` is
        what is left of the runs under way, in core-seconds.
        """
        arrivals = self._arrivals
        if arrivals.lesson != self._lesson:
            self._learn()
        rate, usual = arrivals.rate(now_s), arrivals.mean_rate(now_s)
        self.crowded_s = math.inf if cores < min(rate, usual) * self.least_cost_s else 0.0
        binding, price, lasting = self._in_the_long_run, 0.0, min(usual, LASTING * rate)
        for of, count in zip(self._classes, waiting, strict=True):
            if of is not None and (asked := of.price(count, lasting, STEADY_UTILISATION * cores)) > price:
                price, binding = asked, of.front
        expected, budgets_s = arrivals.ahead(now_s), arrivals.budgets_s
        for horizon_s, count in zip(HORIZONS_S, waiting, strict=False):
            rooms_s = [horizon_s - budget_s for budget_s in budgets_s if budget_s < horizon_s]
            coming = sum(max(until(expected, room_s) - usual * room_s, 0.0) for room_s in rooms_s)
            due = count + coming / max(len(budgets_s), 1)
            if due < 1:
                continue
            each_s = max(cores * horizon_s - busy_s, 1e-4) * UTILISATION / due
            front = self._front(horizon_s, math.ceil(due / cores))
            if _crowded(front, each_s):
                self.crowded_s = max(self.crowded_s, horizon_s)
            if (pressed := price_of(front, each_s)) > price:
                price, binding = pressed, front
        self.utility_left = max((point.utility - price * point.cost_s for point in binding), default=0.0)
        if price < NEGLIGIBLE:
            return 0.0
        return max(price, min(price * (1 + DOUBT), slope(binding[0], binding[1])))

    def _learn(self) -> None:
        arrivals = self._arrivals
        self._lesson = arrivals.lesson
        self._within.clear()
        budgets_s = arrivals.budgets_s
        known: dict[float, list[ParetoPoint]] = {}
        for budget_s in budgets_s:
            if budget_s not in known:
                within_s = budget_s / CYCLE
                known[budget_s] = pareto_front(
                    [_cheapest(one, arrivals.characters, within_s, one.max_batch) for one in self._checkpoints]
                )
        fronts = [known[budget_s] for budget_s in budgets_s]
        self.least_cost_s = _least_cost_s(fronts)
        self._in_the_long_run = joined(fronts)
        counts = [bisect_right(budgets_s, horizon_s) for horizon_s in (*HORIZONS_S, math.inf)]
        self._classes = [
            self._class_of(fronts[:count]) if count > before else None for before, count in pairwise((0, *counts))
        ]

    def _class_of(self, fronts: Sequence[list[ParetoPoint]]) -> _Class | None:
        """Those with the shortest budgets, as many as hulls are given."""
        arrivals, front = self._arrivals, joined(fronts)
        if len(front) < 2:
            return None
        budgets_s = arrivals.budgets_s
        mean_s, share = sum(budgets_s[: len(fronts)]) / len(fronts), len(fronts) / len(budgets_s)
        shortest_s = min(one.run_s(1, arrivals.characters) for one in self._checkpoints)
        slack_s = max(mean_s - shortest_s, _LEAST_SLACK * mean_s)
        dispersion = 1 + share * (arrivals.dispersion(min(mean_s, 1.0)) - 1)
        return _Class(share, front, slack_s / _least_cost_s(fronts), dispersion)

    def _front(self, horizon_s: float, most: int) -> list[ParetoPoint]:
        try:
            return self._within[horizon_s, most]
        except KeyError:
            characters = self._arrivals.characters
            front = pareto_front(
                [_cheapest(checkpoint, characters, horizon_s, most) for checkpoint in self._checkpoints]
            )
            return self._within.setdefault((horizon_s, most), front)


def _least_cost_s(fronts: Sequence[Sequence[ParetoPoint]]) -> float:
    return sum(front[1].cost_s for front in fronts if len(front) > 1) / max(len(fronts), 1)


def _cheapest(checkpoint: ServedCheckpoint, characters: int, within_s: float, most: int) -> ParetoPoint:
    """The least that a request costs in a run of at most `most` that takes no longer than `within_s`."""
    cost_s = checkpoint.run_s(1, characters)
    for size in sizes(min(most, checkpoint.max_batch))[1:] if most > 1 else ():
        run_s = checkpoint.run_s(size, characters)
        if run_s > within_s:
            break
        cost_s = min(cost_s, run_s / size)
    return ParetoPoint(cost_s, checkpoint.utility)


def _crowded(front: Sequence[ParetoPoint], each_s: float) -> bool:
    """Whether not even the least that a request costs is there for each."""
    return len(front) > 1 and each_s < front[1].cost_s
