"""Calibration: how far answers strayed from their forecasts, as quantiles that go on covering what they say.

The errors come standardised, in units of a scale that `forecast` knows; here they are numbers. Their conformal
quantile over a sliding window (Lei et al., "Distribution-Free Predictive Inference for Regression", JASA 2018) covers
its share where errors come as they came. Where they drift it is read at another level than the nominal one, and every
answer moves that level by whether it was covered: adaptive conformal inference (Gibbs & Candès, "Adaptive Conformal
Inference Under Distribution Shift", NeurIPS 2021, equation 2). The level is moved on the logit scale, so that one
number serves every percentile that clients may ask for.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from functools import lru_cache
from statistics import NormalDist

from msgspec import Struct

WINDOW = 128
ENOUGH = 40
MAX_AGE_S = 60.0
LEAST_SHARE = 0.05
"""The share of answers that come sooner than what is called the least."""

_STEP = 0.2
_MOST_SHIFT = 3.0
_PRIOR_WIDENING = 2.0
_MOST_KNOWN = 64


class Residuals(Struct, frozen=True, gc=False):
    """Two quantiles of standardised errors: `most` at the percentile that was asked for, `least` at `LEAST_SHARE`.

    They hold until `until_s`, when the oldest of the errors is to be forgotten.
    """

    least: float
    most: float
    until_s: float


class ResidualWindow:
    """The most recent standardised errors of one kind, sorted for their quantiles."""

    def __init__(self, capacity: int = WINDOW) -> None:
        self._capacity = capacity
        self._arrivals: deque[tuple[float, float]] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    @property
    def oldest_s(self) -> float:
        """When the oldest error came; infinite where there is none."""
        return self._arrivals[0][0] if self._arrivals else math.inf

    def add(self, residual: float, now_s: float) -> None:
        """Takes one error; the oldest leaves when the window is full."""
        self._arrivals.append((now_s, residual))
        insort(self._sorted, residual)
        if len(self._arrivals) > self._capacity:
            self._forget()

    def forget(self, before_s: float) -> None:
        """Drops the errors that came before then.

        A checkpoint that was slow once is chosen less, and could otherwise never show that it has recovered.
        """
        while self._arrivals and self._arrivals[0][0] < before_s:
            self._forget()

    def most(self, level: float, beyond: float) -> float:
        """The error that so large a share does not exceed; where too few are known for it, no less than `beyond`."""
        rank = math.ceil((len(self._sorted) + 1) * level)
        return self._sorted[rank - 1] if rank <= len(self._sorted) else max(self._sorted[-1], beyond)

    def least(self, level: float, beyond: float) -> float:
        """The error that no larger share falls short of; where too few are known for it, no more than `beyond`."""
        rank = math.floor((len(self._sorted) + 1) * level)
        return self._sorted[rank - 1] if rank >= 1 else min(self._sorted[0], beyond)

    def beyond(self, residual: float) -> float:
        """What to take for an error of which only this is known, that it is larger: the median of those that were."""
        larger = self._sorted[bisect_right(self._sorted, residual) :]
        return larger[len(larger) // 2] if larger else residual

    def _forget(self) -> None:
        _, residual = self._arrivals.popleft()
        del self._sorted[bisect_left(self._sorted, residual)]


class Calibration:
    """The errors met under like circumstances, and at which levels to read them.

    While it has too few of its own, what `standing_in` knows holds, and without one a prior.
    """

    def __init__(self, standing_in: Calibration | None = None) -> None:
        self._standing_in = standing_in
        self._window = ResidualWindow()
        self._shift_most = 0.0
        self._shift_least = 0.0
        self._own: dict[float, Residuals] = {}
        self.known: dict[float, Residuals] = standing_in.known if standing_in else self._own
        """What has been read since the last error came, by percentile: those of who stands in, while one does."""

    def residuals(self, percentile: float, now_s: float) -> Residuals:
        """The quantiles as of now. `percentile` is in percent."""
        known = self.known.get(percentile)
        return self.read(percentile, now_s) if known is None or now_s > known.until_s else known

    def read(self, percentile: float, now_s: float) -> Residuals:
        """The same where it is not known yet, or no longer true."""
        self._forget(now_s)
        around = self._standing_in
        elsewhere = around.residuals(percentile, now_s) if around else _expected(percentile)
        if len(self._window) >= ENOUGH:
            most = self._window.most(_shifted(percentile / 100, self._shift_most), elsewhere.most)
            least = self._window.least(_shifted(LEAST_SHARE, self._shift_least), elsewhere.least)
            elsewhere = Residuals(min(least, most), most, self._window.oldest_s + MAX_AGE_S)
        if len(self.known) >= _MOST_KNOWN:
            self.known.clear()
        self.known[percentile] = elsewhere
        return elsewhere

    def learn(self, residual: float, percentile: float, now_s: float) -> None:
        """Takes an error of a forecast at this percentile. It moves the levels by what they would say just now.

        Forecasts that are still unanswered when a drift is noticed would else each move them once more for it.
        """
        self._forget(now_s)
        if len(self._window) >= ENOUGH:
            said = self.residuals(percentile, now_s)
            self._shift_most = _moved(self._shift_most, (residual > said.most) - (1 - percentile / 100))
            self._shift_least = _moved(self._shift_least, LEAST_SHARE - (residual < said.least))
        self._window.add(residual, now_s)
        self._anew()

    def learn_beyond(self, residual: float, percentile: float, now_s: float) -> None:
        """Takes an error of which only this is known, that it was larger."""
        self.learn(self._window.beyond(residual), percentile, now_s)

    def _forget(self, now_s: float) -> None:
        """Drops what is too old, and with the last of it what it moved."""
        if self._window.oldest_s < now_s - MAX_AGE_S:
            self._window.forget(now_s - MAX_AGE_S)
            self._anew()

    def _anew(self) -> None:
        if not len(self._window):
            self._shift_most = self._shift_least = 0.0
        self._own.clear()
        stands_in = self._standing_in if len(self._window) < ENOUGH else None
        self.known = stands_in.known if stands_in else self._own


def _moved(shift: float, missed: float) -> float:
    return min(max(shift + _STEP * missed, -_MOST_SHIFT), _MOST_SHIFT)


def _shifted(share: float, shift: float) -> float:
    """The share moved by so much on the logit scale."""
    return 1 / (1 + math.exp(-shift) * (1 - share) / share)


@lru_cache(maxsize=1024)
def _expected(percentile: float) -> Residuals:
    """By a normal distribution; twice as wide upwards, since what delays is more than what speeds up."""
    normal = NormalDist()
    return Residuals(normal.inv_cdf(LEAST_SHARE), _PRIOR_WIDENING * normal.inv_cdf(percentile / 100), math.inf)
