"""The capacity price: what a core-second of the node is worth to other requests now, in points of quality.

It is the shadow price of capacity in "maximise the total quality of answers in time": the slope, at the core time that
each request can be given, of the best utility which that time buys. `QueuePrice` gives the price by the number of
queued requests in the long run. `CapacityPrice` also prices several horizons, within each of which the requests due
by then must be done; the highest price rules. Pure: it knows requests by the time they have left, and
checkpoints by their service times.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from gateway.forecasting.forecaster import ServedCheckpoint
from gateway.scheduling.arrivals import ArrivalStats

_NARROWEST = 1e-9
"""Smallest shortfall of quality that is tried, as a share of the best."""

_HALVINGS = 14
"""Halvings of the interval in which the shortfall lies."""

_STRAIGHT = 1e-9
"""Growth below which the exponential is taken to be a straight line."""

_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """A point of the Pareto front: core-seconds per request, and the utility they buy."""

    cost_s: float
    utility: float


def slope(left: ParetoPoint, right: ParetoPoint) -> float:
    """Utility that a core-second buys between two points of the front, in points of quality per core-second."""
    return (right.utility - left.utility) / (right.cost_s - left.cost_s) if right.cost_s > left.cost_s else math.inf


class _Stretch(NamedTuple):
    """A range of prices over which one point of the Pareto front is the best: from `first` on, `prices` wide.

    `utility` is the value of F at `first`, and `steepness` its slope there. `scale` is rate / 2 * cost in the equation.
    """

    first: float
    prices: float
    utility: float
    steepness: float
    scale: float

    def price(self, waiting: float, had: float) -> float:
        """The price with `waiting` more requests queued than at the stretch's beginning."""
        excess, exponent = self.utility - had, self.steepness * waiting / self.scale
        if abs(exponent) < _STRAIGHT:
            return self.first + excess * waiting / self.scale
        return self.first + min(excess * math.expm1(exponent) / self.steepness, self.prices)


class QueuePrice:
    """The price for any number of queued requests, given a front, an arrival rate and a number of cores.

    Queued requests are an asset while they are few, since a core that runs out of them is idle, and a liability once
    some will be too late. The price between solves the drift control of a Brownian queue (Ata, Harrison and Shepp,
    "Drift rate control of a Brownian processing system", Annals of Applied Probability 15, 2005).

    With `rate` requests and `cores` core-seconds per second, let F(p) = rate * max over the front's points of
    (utility - p * cost) + cores * p: the utility per second at a price p that never changed. Its minimum is the most
    that can be had. As the number n of queued requests grows from none to `most`, the price p rises from zero to that
    at which the cheapest point buys nothing, by dn = rate / 2 * cost * dp / (F(p) - g), with g the utility that is had,
    if arrivals are independent. Between two points of the front F is a straight line, so that n is a logarithm of p.
    """

    def __init__(self, front: Sequence[ParetoPoint], rate: float, cores: float, most: float) -> None:
        """`front` has at least two points, the first at (0, 0); at most `most` requests can wait and still be in time.

        `rate` is in arrivals per second.
        """
        low, utility = 0.0, rate * front[-1].utility
        self._stretches: list[_Stretch] = []
        for left, right in reversed(list(pairwise(front))):
            high, steepness = slope(left, right), cores - rate * right.cost_s
            scale = rate / 2 * right.cost_s
            self._stretches.append(_Stretch(low, high - low, utility, steepness, scale))
            low, utility = high, utility + steepness * (high - low)
        self._dearest = low
        if most <= 0:  # no request can wait and be in time: any queue pays the highest price
            self._stretches, self._widths, self._narrowed = [], [], 1.0
            return
        self._had = _had(self._stretches, min(utility, *(stretch.utility for stretch in self._stretches)), most)
        self._widths = [_width(stretch, self._had) for stretch in self._stretches]
        self._narrowed = min(sum(self._widths) / most, 1.0)

    def price(self, waiting: float) -> float:
        """Points of quality per core-second: 0 for an empty queue, rising to the slope of the front's first step."""
        if waiting <= 0:
            return 0.0
        waiting *= self._narrowed
        for stretch, width in zip(self._stretches, self._widths, strict=True):
            if waiting < width:
                return stretch.price(waiting, self._had)
            waiting -= width
        return self._dearest


def _had(stretches: Sequence[_Stretch], best: float, most: float) -> float:
    """The utility per second that is had if at most `most` requests can wait: less than the best that F allows.

    Found as the value at which the stretches together are `most` requests wide; the further below the best, the wider.

    If so many hardly ever wait, the stretches stay narrower even at almost no loss; `price` scales them up.
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
    """True if the stretches together are wider than `most`. Called often, so it stops as soon as it knows."""
    for _, prices, utility, steepness, scale in stretches:
        excess = utility - had
        grown = steepness * prices / excess
        if -_STRAIGHT < grown < _STRAIGHT:
            most -= scale * prices / excess
        else:
            most -= scale * math.log(max(1 + grown, _ROUNDING)) / steepness
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
"""Horizons whose demand is priced, in seconds."""

UTILISATION = 0.9
"""Share of a horizon's core time that is given out; the rest absorbs noise. Set by hand."""

STEADY_UTILISATION = 0.8
"""Share of the core time that is given out in the long run: batches are often smaller, so dearer, than planned.

Live, giving out all of it was 2 to 5 points behind (docs/performance.md).
"""

CYCLE = 3.0
"""In the long run a batch may take 1 / CYCLE of a budget: a batch runs before it, and half of one is left over."""

LASTING = 3.0
"""If the recent rate is below the mean rate by more than this factor, the rush behind the mean is over. Set by hand."""

_STEPS = 10
"""Prices are kept for rates and cores rounded to steps of 1 / 10 on the natural logarithm."""

_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128)


def sizes(most: int) -> list[int]:
    """The batch sizes to try, up to and including `most`."""
    tried = [size for size in _SIZES if size < most]
    return [*tried, most]


def pareto_front(points: Sequence[ParetoPoint]) -> list[ParetoPoint]:
    """The upper concave envelope of the points and of doing nothing, cheapest point first."""
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

    Takes the steps of all fronts in order of what a core-second buys: at one price for all, the better steps come
    first.
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
    """The slope of the front at `each_s` core-seconds per request; 0 if that is more than enough.

    Between two points the price is just high enough to prefer the cheaper one.
    """
    for left, right in pairwise(front):
        if each_s < right.cost_s:
            return slope(left, right) * (1 + 1e-6)
    return 0.0


class CapacityPrice:
    """Prices the core time of one task's requests from its arrivals and its queue.

    Service times are looked up once per lesson of the arrivals, not for every price.
    """

    def __init__(self, arrivals: ArrivalStats, checkpoints: Sequence[ServedCheckpoint]) -> None:
        """Prices these checkpoints under these arrivals."""
        self._arrivals = arrivals
        self._checkpoints = checkpoints
        self._lesson = -1
        self.utility_left = 0.0
        """Utility per request that the best point of the front leaves after the last price; 0 under overload."""
        self.crowded = False
        """True if by the last price more arrives than can be served, lately and on average."""
        self.least_cost_s = 0.0
        """Mean of the fewest core-seconds that a request costs; 0 before any has come."""
        self._usual: list[ParetoPoint] = []
        """The mean Pareto front of recent requests."""
        self._most = 0.0
        """The number of requests per core that can wait and still be in time."""
        self._by_queue: dict[tuple[int, int], QueuePrice] = {}
        self._runs: list[list[tuple[int, float]]] = []
        """For each checkpoint the batch sizes to try and their core-seconds, at the mean length."""
        self._within: dict[tuple[float, int], list[ParetoPoint]] = {}

    def price(self, waiting: Sequence[int], cores: float, busy_s: float, now_s: float) -> float:
        """Points of quality per core-second.

        `waiting` has the number of queued requests due within each of `HORIZONS_S`, then of all. `busy_s` is the rest
        of the running batches, in core-seconds.
        """
        arrivals = self._arrivals
        if arrivals.lesson != self._lesson:
            self._learn()
        rate, usual = arrivals.rate(now_s), arrivals.mean_rate(now_s)
        self.crowded = cores < min(rate, usual) * self.least_cost_s
        binding, price = self._usual, self._in_the_long_run(waiting[-1], min(usual, LASTING * rate), cores)
        for horizon_s, due in zip(HORIZONS_S, waiting, strict=False):
            if not due:
                continue
            each_s = max(cores * horizon_s - busy_s, 1e-4) * UTILISATION / due
            front = self._front(horizon_s, due / cores)
            if (pressed := price_of(front, each_s)) > price:
                price, binding = pressed, front
        self.utility_left = _utility_left(binding, price)
        return price

    def _in_the_long_run(self, waiting: int, rate: float, cores: float) -> float:
        """The price by backlog: with so many queued, at `rate` arrivals per second."""
        if not waiting or len(self._usual) < 2:
            return 0.0
        at = _step(rate), _step(STEADY_UTILISATION * cores)
        known = self._by_queue.get(at)
        if known is None:
            rounded, usable = (math.exp(step / _STEPS) for step in at)
            known = self._by_queue.setdefault(at, QueuePrice(self._usual, rounded, usable, usable * self._most))
        return known.price(waiting)

    def _learn(self) -> None:
        arrivals = self._arrivals
        self._lesson = arrivals.lesson
        self._within.clear()
        self._by_queue.clear()
        self._runs = []
        for one in self._checkpoints if arrivals.tokens else ():
            tokens = arrivals.tokens[one.tokenizer]
            self._runs.append([(size, one.run_s(size, tokens)) for size in sizes(one.max_batch)])
        known = {budget_s: self._front_of(budget_s / CYCLE, math.inf) for budget_s in set(arrivals.budgets_s)}
        fronts = [known[budget_s] for budget_s in arrivals.budgets_s]
        self.least_cost_s = _least_cost_s(fronts)
        self._usual = joined(fronts)
        if len(self._usual) > 1:
            shortest_s = min(runs[0][1] for runs in self._runs)
            self._most = (sum(arrivals.budgets_s) / len(fronts) - shortest_s) / self.least_cost_s

    def _front(self, horizon_s: float, most: float) -> list[ParetoPoint]:
        place = bisect_left(_SIZES, most)
        try:
            return self._within[horizon_s, place]
        except KeyError:
            front = self._front_of(horizon_s, _SIZES[place] if place < len(_SIZES) else math.inf)
            return self._within.setdefault((horizon_s, place), front)

    def _front_of(self, within_s: float, most: float) -> list[ParetoPoint]:
        """The Pareto front of batches of up to `most` requests that take up to `within_s` core-seconds."""
        costs_s = [_least_s(runs, within_s, most) for runs in self._runs]
        return pareto_front(
            [ParetoPoint(cost_s, one.utility) for cost_s, one in zip(costs_s, self._checkpoints, strict=True)]
        )


def _step(value: float) -> int:
    """The step of a rate or a number of cores, to about 10 %."""
    return round(_STEPS * math.log(max(value, 1e-6)))


def _utility_left(front: Sequence[ParetoPoint], price: float) -> float:
    """The most utility that a point of the front leaves at a price."""
    if price == 0.0:  # its last point costs most and has most utility
        return front[-1].utility if front else 0.0
    return max([point.utility - price * point.cost_s for point in front], default=0.0)


def _least_cost_s(fronts: Sequence[Sequence[ParetoPoint]]) -> float:
    return sum(front[1].cost_s for front in fronts if len(front) > 1) / max(len(fronts), 1)


def _least_s(runs: Sequence[tuple[int, float]], within_s: float, most: float) -> float:
    """The core-seconds per request at the cheapest batch size, up to `most` requests and `within_s` core-seconds."""
    cost_s = runs[0][1]
    for size, run_s in runs[1:]:
        if size > most or run_s > within_s:
            break
        cost_s = min(cost_s, run_s / size)
    return cost_s
