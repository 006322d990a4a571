"""A variant as the simulator sees it: its quality, and what runs of it take."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import quantiles
from typing import Protocol

from gateway.model.profile import spread_of
from gateway.model.tier import Tier


class Times(Protocol):
    """Service times of one variant, in seconds; `sigma` is the spread of their logarithm."""

    @property
    def sigma(self) -> float:
        """The standard deviation of the logarithm of a run's time."""

    def median_s(self, batch: int, tokens: int) -> float:
        """The median of one run of `batch` inputs padded to `tokens` tokens."""

    def noise(self, batch: int, chance: random.Random) -> float:
        """By what factor a run strays from the median, drawn anew."""


@dataclass(frozen=True)
class Variant:
    """One variant of the catalog. `quality` is in the catalog's own points; `max_batch` 1 is one that never batches."""

    name: str
    task: str
    quality: float
    tier: Tier
    times: Times
    max_batch: int
    domain: str | None = None
    _known: dict[tuple[int, int], float] = field(default_factory=dict, repr=False, compare=False)

    def median_s(self, batch: int, tokens: int) -> float:
        """The median seconds of one run of `batch` inputs padded to `tokens` tokens; remembered."""
        try:
            return self._known[batch, tokens]
        except KeyError:
            return self._known.setdefault((batch, tokens), self.times.median_s(batch, tokens))

    def cheapest_s(self, tokens: int) -> float:
        """The least engine seconds an input costs in any batch."""
        return min(self.median_s(batch, tokens) / batch for batch in range(1, self.max_batch + 1))


@dataclass(frozen=True)
class SampledTimes:
    """Times from measured samples, seconds by batch size, one sample of one batch size at least; tokens do not count.

    Between batch sizes the median is interpolated; before the least measured it is that one's, since a smaller batch
    can be filled up; past the largest it grows as between the last two, as in the gateway's own profiles.
    """

    samples: Mapping[int, Sequence[float]]

    @cached_property
    def _medians(self) -> tuple[tuple[int, float], ...]:
        return tuple((batch, _median(self.samples[batch])) for batch in sorted(self.samples))

    @cached_property
    def sigma(self) -> float:
        """By the 95th percentiles of the batch sizes, of several the middle one."""
        return spread_of([self.p95_s(batch) / median_s for batch, median_s in self._medians])

    @cached_property
    def _strays(self) -> Mapping[int, tuple[float, ...]]:
        return {batch: tuple(s / _median(of) for s in of) for batch, of in self.samples.items()}

    def median_s(self, batch: int, tokens: int) -> float:
        """Whatever the tokens. Past a single batch size in proportion, past the largest of several never less."""
        places = self._medians
        if batch <= places[0][0]:
            return places[0][1]
        if len(places) == 1:
            return places[0][1] * batch / places[0][0]
        at = min(bisect_left(places, batch, key=lambda place: place[0]), len(places) - 1)
        (left, below), (right, above) = places[at - 1], places[at]
        median_s = above - (above - below) * (right - batch) / (right - left)
        return max(median_s, above) if batch > right else median_s

    def noise(self, batch: int, chance: random.Random) -> float:
        """One of the samples of the nearest batch size, over their median."""
        nearest = min(self._strays, key=lambda measured: abs(measured - batch))
        return chance.choice(self._strays[nearest])

    def p95_s(self, batch: int) -> float:
        """The 95th percentile of the samples of one batch size, of few samples the largest."""
        of = sorted(self.samples[batch])
        return quantiles(of, n=20)[-1] if len(of) >= 20 else of[-1]


@dataclass(frozen=True)
class ProfiledTimes:
    """Times from a manifest's latency profile: log-normal around its medians. `pace` scales them."""

    median: Medians
    sigma: float
    slowdown: float = 1.0

    def median_s(self, batch: int, tokens: int) -> float:
        """By the profile."""
        return self.slowdown * self.median.median_s(batch, tokens)

    def noise(self, batch: int, chance: random.Random) -> float:
        """Log-normal with the profile's spread, no further than three of it."""
        strayed = min(max(chance.gauss(0.0, 1.0), -_FURTHEST), _FURTHEST)
        return math.exp(self.sigma * strayed)


class Medians(Protocol):
    """What is needed of a latency profile."""

    def median_s(self, batch: int, tokens: int) -> float:
        """The median seconds of one run."""


_FURTHEST = 3.0


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
