"""Calibration: turns past forecast errors into quantiles that keep the coverage they claim.

Errors come standardised, in units of a scale that only the forecaster knows. Their conformal quantile over a sliding
window (Lei et al., "Distribution-Free Predictive Inference for Regression", JASA 2018) has the claimed coverage if
errors are exchangeable. Under drift the window is read at a shifted level, and each answer moves that level by whether
it was covered: adaptive conformal inference (Gibbs & Candès, "Adaptive Conformal Inference Under Distribution Shift",
NeurIPS 2021, equation 2). The shift is on the logit scale, so that one number serves every percentile a client may ask
for.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from functools import lru_cache
from statistics import NormalDist

from msgspec import Struct

WINDOW = 128
"""Errors that a window keeps. Set by hand."""

ENOUGH = 40
"""Errors that a calibration needs before it trusts its own. Set by hand."""

MAX_AGE_S = 60.0
"""Age at which an error is forgotten, in seconds. Set by hand."""

LEAST_SHARE = 0.05
"""Share of answers that come sooner than the forecast's least latency."""

_STEP = 0.2
"""Step of the level per answer, on the logit scale: gamma of equation 2. Set by hand."""

_MOST_SHIFT = 3.0
"""Largest shift of a level, on the logit scale."""

_PRIOR_WIDENING = 2.0
"""Factor by which the prior is wider upwards than a normal distribution: delays are larger than speed-ups."""

_MOST_KNOWN = 64
"""Percentiles whose quantiles are cached."""


class Residuals(Struct, frozen=True, gc=False):
    """Two quantiles of standardised errors: `most` at the percentile asked for, `least` at `LEAST_SHARE`.

    They hold until `until_s`, when the oldest error is forgotten.
    """

    least: float
    most: float
    until_s: float


class ResidualWindow:
    """The most recent standardised errors of one kind, kept sorted."""

    def __init__(self, capacity: int = WINDOW) -> None:
        self._capacity = capacity
        self._arrivals: deque[tuple[float, float]] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    @property
    def oldest_s(self) -> float:
        """When the oldest error came; infinite if there is none."""
        return self._arrivals[0][0] if self._arrivals else math.inf

    def add(self, residual: float, now_s: float) -> None:
        """Adds one error; a full window drops its oldest."""
        self._arrivals.append((now_s, residual))
        insort(self._sorted, residual)
        if len(self._arrivals) > self._capacity:
            self._forget()

    def forget(self, before_s: float) -> None:
        """Drops errors that came before `before_s`.

        A checkpoint that was slow once is chosen less, and could otherwise never show that it has recovered.
        """
        while self._arrivals and self._arrivals[0][0] < before_s:
            self._forget()

    def most(self, level: float, beyond: float) -> float:
        """The upper quantile at `level`; with too few errors for that level, at least `beyond`."""
        rank = math.ceil((len(self._sorted) + 1) * level)
        return self._sorted[rank - 1] if rank <= len(self._sorted) else max(self._sorted[-1], beyond)

    def least(self, level: float, beyond: float) -> float:
        """The lower quantile at `level`; with too few errors for that level, at most `beyond`."""
        rank = math.floor((len(self._sorted) + 1) * level)
        return self._sorted[rank - 1] if rank >= 1 else min(self._sorted[0], beyond)

    def beyond(self, residual: float) -> float:
        """Stands in for an error of which only a lower bound is known: the median of the larger errors."""
        larger = self._sorted[bisect_right(self._sorted, residual) :]
        return larger[len(larger) // 2] if larger else residual

    def _forget(self) -> None:
        _, residual = self._arrivals.popleft()
        del self._sorted[bisect_left(self._sorted, residual)]


class Calibration:
    """The errors met under similar circumstances, and the levels to read them at.

    Uses `fallback` while it has too few errors of its own, and without one a prior.
    """

    def __init__(self, fallback: Calibration | None = None) -> None:
        self._fallback = fallback
        self._window = ResidualWindow()
        self._shift_most = 0.0
        self._shift_least = 0.0
        self._own: dict[float, Residuals] = {}
        self.known: dict[float, Residuals] = fallback.known if fallback else self._own
        """Quantiles read since the last error came, by percentile; those of the fallback while it is in use."""

    @property
    def enough(self) -> bool:
        """True if it has enough errors of its own, and asks no fallback."""
        return len(self._window) >= ENOUGH

    def residuals(self, percentile: float, now_s: float) -> Residuals:
        """The quantiles at `percentile` (in percent) now."""
        known = self.known.get(percentile)
        return self.read(percentile, now_s) if known is None or now_s > known.until_s else known

    def read(self, percentile: float, now_s: float) -> Residuals:
        """Computes the quantiles at `percentile` anew and caches them."""
        self._forget(now_s)
        fallback = self._fallback
        residuals = fallback.residuals(percentile, now_s) if fallback else _expected(percentile)
        if self.enough:
            most = self._window.most(_shifted(percentile / 100, self._shift_most), residuals.most)
            least = self._window.least(_shifted(LEAST_SHARE, self._shift_least), residuals.least)
            residuals = Residuals(min(least, most), most, self._window.oldest_s + MAX_AGE_S)
        if len(self.known) >= _MOST_KNOWN:
            self.known.clear()
        self.known[percentile] = residuals
        return residuals

    def learn(self, residual: float, percentile: float, now_s: float) -> None:
        """Adds an error of a forecast at this percentile; moves the levels by whether the present quantiles cover it.

        Not the quantiles at the time of the forecast: after a drift is noticed, each forecast still unanswered would
        move the levels for it once more.
        """
        self._forget(now_s)
        if self.enough:
            said = self.residuals(percentile, now_s)
            self._shift_most = _moved(self._shift_most, (residual > said.most) - (1 - percentile / 100))
            self._shift_least = _moved(self._shift_least, LEAST_SHARE - (residual < said.least))
        self._window.add(residual, now_s)
        self._anew()

    def learn_beyond(self, residual: float, percentile: float, now_s: float) -> None:
        """Adds an error of which only a lower bound is known."""
        self.learn(self._window.beyond(residual), percentile, now_s)

    def _forget(self, now_s: float) -> None:
        """Drops errors that are too old; with the last of them the levels return to nominal."""
        if self._window.oldest_s < now_s - MAX_AGE_S:
            self._window.forget(now_s - MAX_AGE_S)
            self._anew()

    def _anew(self) -> None:
        if not len(self._window):
            self._shift_most = self._shift_least = 0.0
        self._own.clear()
        fallback = None if self.enough else self._fallback
        self.known = fallback.known if fallback else self._own


def _moved(shift: float, missed: float) -> float:
    return min(max(shift + _STEP * missed, -_MOST_SHIFT), _MOST_SHIFT)


def _shifted(share: float, shift: float) -> float:
    """The share moved by `shift` on the logit scale."""
    return 1 / (1 + math.exp(-shift) * (1 - share) / share)


@lru_cache(maxsize=1024)
def _expected(percentile: float) -> Residuals:
    """The prior: a normal distribution, twice as wide upwards, since delays are larger than speed-ups."""
    normal = NormalDist()
    return Residuals(normal.inv_cdf(LEAST_SHARE), _PRIOR_WIDENING * normal.inv_cdf(percentile / 100), math.inf)
