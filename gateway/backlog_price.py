"""What a core-second is worth by how many requests wait: the price that keeps their number where it pays best.

Waiting requests are an asset while they are few, for a core that runs out of them is idle, and a liability once some
will be too late. In between the price that most quality is had at is found by taking the number that wait for a
diffusion whose drift the choice of checkpoint controls (Ata, Harrison and Shepp, "Drift rate control of a Brownian
processing system", Annals of Applied Probability 15, 2005). With `rate` requests a second, `cores` core-seconds a
second, and a frontier of what time buys, F(p) = rate * max over corners of (worth - p * cost) + cores * p is the
quality a second that a price p would be worth if it never had to change; the least of F is what can be had at all. As
the number that wait grows from none to the most that can be in time, the price rises from nothing to that at which
the cheapest bargain leaves nothing, as fast as F exceeds what is had: dn = rate * dispersion / 2 * cost * dp / (F - g).
Between two corners F is a straight line, so that n is a logarithm of p there. Pure arithmetic; `congestion` asks it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_NARROWEST = 1e-9
_HALVINGS = 20
_STRAIGHT = 1e-9
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Corner:
    """A corner of the best that time buys: core-seconds a request, and the worth they buy."""

    cost_s: float
    worth: float


def slope(left: Corner, right: Corner) -> float:
    """What a core-second buys between two corners, in points of quality."""
    return (right.worth - left.worth) / (right.cost_s - left.cost_s) if right.cost_s > left.cost_s else math.inf


@dataclass(frozen=True, slots=True)
class _Stretch:
    """The prices at which one corner is the best: from `first` on, over `prices`; `excess` is F - g where it begins.

    `steepness` is the slope of F there, `scale` the number that wait for each part by which the excess falls short of
    itself.
    """

    first: float
    prices: float
    excess: float
    steepness: float
    scale: float

    @property
    def width(self) -> float:
        """How many more wait at its end than at its beginning."""
        grown = self.steepness * self.prices
        if abs(grown) < _STRAIGHT * self.excess:
            return self.scale * self.prices / self.excess
        return self.scale * math.log(max(1 + grown / self.excess, _ROUNDING)) / self.steepness

    def price(self, waiting: float) -> float:
        """The price where so many more wait than at its beginning."""
        exponent = self.steepness * waiting / self.scale
        if abs(exponent) < _STRAIGHT:
            return self.first + self.excess * waiting / self.scale
        return self.first + min(self.excess * math.expm1(exponent) / self.steepness, self.prices)


class BacklogPrice:
    """The price for any number of requests that wait, of one frontier, rate and number of cores."""

    def __init__(self, hull: Sequence[Corner], rate: float, cores: float, most: float, dispersion: float) -> None:
        """`hull` is a frontier of at least two corners, the first of nothing for nothing.

        At most `most` can wait and be in time; `dispersion` is the variance of the number of arrivals over its mean.
        """
        self._dearest = slope(hull[0], hull[1])
        prices = [0.0, *(slope(left, right) for left, right in reversed(list(pairwise(hull))))]
        costs_s = [corner.cost_s for corner in reversed(hull[1:])]
        worths = [rate * hull[-1].worth]
        for (low, high), cost_s in zip(pairwise(prices), costs_s, strict=True):
            worths.append(worths[-1] + (cores - rate * cost_s) * (high - low))
        self._bounds = list(zip(pairwise(prices), worths, costs_s, strict=False))
        self._rate, self._cores, self._noise = rate, cores, rate * dispersion / 2
        self._stretches = self._fitted(min(worths), most)
        self._scale = min(sum(stretch.width for stretch in self._stretches) / most, 1.0)

    def price(self, waiting: float) -> float:
        """Points of quality a core-second: 0 where nobody waits, never falling, at the most the cheapest bargain's."""
        waiting *= self._scale
        for stretch in self._stretches:
            width = stretch.width
            if waiting < width:
                return stretch.price(waiting)
            waiting -= width
        return self._dearest

    def _fitted(self, best: float, most: float) -> list[_Stretch]:
        """Such stretches as are `most` wide together: the less is had below the best there is, the narrower.

        Where hardly ever so many wait they are narrower even with next to nothing lost: `price` widens them.
        """
        low, high = _NARROWEST, 1.0
        while sum(one.width for one in self._stretched(best * (1 - high))) > most and high < 1 / _NARROWEST:
            low, high = high, 16 * high
        for _ in range(_HALVINGS):
            middle = math.sqrt(low * high)
            if sum(one.width for one in self._stretched(best * (1 - middle))) > most:
                low = middle
            else:
                high = middle
        return self._stretched(best * (1 - high))

    def _stretched(self, had: float) -> list[_Stretch]:
        return [
            _Stretch(low, high - low, worth - had, self._cores - self._rate * cost_s, self._noise * cost_s)
            for (low, high), worth, cost_s in self._bounds
        ]
