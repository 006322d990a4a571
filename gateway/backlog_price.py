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
from typing import NamedTuple

_NARROWEST = 1e-9
_HALVINGS = 14
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


class _Stretch(NamedTuple):
    """The prices at which one corner is the best: from `first` on, over `prices`, where F begins at `worth`.

    `steepness` is the slope of F there; `scale` is rate * dispersion / 2 * cost of the equation.
    """

    first: float
    prices: float
    worth: float
    steepness: float
    scale: float

    def price(self, waiting: float, had: float) -> float:
        """The price where so many more wait than at its beginning."""
        excess, exponent = self.worth - had, self.steepness * waiting / self.scale
        if abs(exponent) < _STRAIGHT:
            return self.first + excess * waiting / self.scale
        return self.first + min(excess * math.expm1(exponent) / self.steepness, self.prices)


class BacklogPrice:
    """The price for any number of requests that wait, of one frontier, rate and number of cores."""

    def __init__(self, hull: Sequence[Corner], rate: float, cores: float, most: float, dispersion: float) -> None:
        """`hull` is a frontier of at least two corners, the first of nothing for nothing.

        At most `most` can wait and be in time; `dispersion` is the variance of the number of arrivals over its mean.
        """
        low, worth = 0.0, rate * hull[-1].worth
        self._stretches: list[_Stretch] = []
        for left, right in reversed(list(pairwise(hull))):
            high, steepness = slope(left, right), cores - rate * right.cost_s
            scale = rate * dispersion / 2 * right.cost_s
            self._stretches.append(_Stretch(low, high - low, worth, steepness, scale))
            low, worth = high, worth + steepness * (high - low)
        self._dearest = low
        self._had = _had(self._stretches, min(worth, *(stretch.worth for stretch in self._stretches)), most)
        self._widths = [_width(stretch, self._had) for stretch in self._stretches]
        self._narrowed = min(sum(self._widths) / most, 1.0)

    def price(self, waiting: float) -> float:
        """Points of quality a core-second: 0 where nobody waits, never falling, at the most the cheapest bargain's."""
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
    _, prices, worth, steepness, scale = stretch
    excess = worth - had
    grown = steepness * prices / excess
    if -_STRAIGHT < grown < _STRAIGHT:
        return scale * prices / excess
    return scale * math.log(max(1 + grown, _ROUNDING)) / steepness
