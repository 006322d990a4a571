"""Arrival statistics of one task: the rate of requests, how they cluster, and the budgets they bring.

Learnt from arrivals alone. This module knows neither checkpoints nor load; `price` uses what it learns.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence

MEMORY_S = 0.5
"""Time constant of the rate, in seconds: the weight of an arrival falls to 1/e in this time. Set by hand."""

REMEMBERED = 256
"""Number of arrivals whose budgets and gaps are kept. Set by hand."""

HORIZONS_S = (0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
"""Times ahead at which arrivals are counted, in seconds; counts between them are interpolated."""

_AGES_S = (0.0, 0.003, 0.01, 0.03, 0.1)
"""Pauses since the last arrival that are told apart, in seconds."""

_LEAST_CASES = 8
"""Earlier pauses that must have been seen before their mean is used; with fewer, the rate is."""

_RELEARNT_EVERY = 64
"""Arrivals between two lessons."""

_BUDGETS = 16
"""Size of the budget sample."""

_SMOOTHING = 0.02
"""Weight of a new observation of the text length."""

_SHORTEST_S = 1e-6
_FEW = 32
"""Arrivals below which the dispersion is taken to be 1."""

_WINDOWS = 64
"""Windows over which arrivals are counted for the dispersion."""

_WIDEST = 1 / 8
"""Largest window, as a share of the time that is remembered."""

_LEAST_DISPERSION, _MOST_DISPERSION = 0.3, 64.0


class ArrivalStats:
    """Arrival statistics of one task, as one gateway process sees it. Callers pass the time; it reads no clock."""

    def __init__(self) -> None:
        """Starts without any arrival."""
        self._times: deque[float] = deque(maxlen=REMEMBERED)
        self._budgets: deque[float] = deque(maxlen=REMEMBERED)
        self._decayed = 0.0
        self._since = 0
        self._tokens: list[float] = []
        self.lesson = 0
        """Number of times that the statistics were learnt anew; figures from an earlier lesson are out of date."""
        self.tokens: Sequence[int] = ()
        """Recent mean length of a text in tokens, by each tokenizer of the task."""
        self._following: dict[int, tuple[float, ...] | None] = {}
        self._lesson_s: Sequence[float] = ()
        self.budgets_s: Sequence[float] = ()
        """A sample of recent budgets in seconds: ascending, at most 16, evenly spaced in rank."""

    def arrived(self, now_s: float, budget_s: float, tokens: Sequence[int]) -> None:
        """Records one arrival: its latency budget in seconds, and the length of one of its texts by each tokenizer."""
        weight = max(1 / (len(self._times) + 1), _SMOOTHING)
        known = self._tokens or [0.0] * len(tokens)
        self._tokens = [one + weight * (new - one) for one, new in zip(known, tokens, strict=True)]
        self._decayed = self._decayed_to(now_s) + 1.0
        self._times.append(now_s)
        self._budgets.append(budget_s)
        self._since += 1
        if self._since >= _RELEARNT_EVERY or len(self._times) <= _BUDGETS:
            self._since = 0
            self._relearn()

    def rate(self, now_s: float) -> float:
        """Recent arrivals per second."""
        return self._decayed_to(now_s) / MEMORY_S

    def mean_rate(self, now_s: float) -> float:
        """Arrivals per second over all that are remembered, bursts and pauses together."""
        if not self._times:
            return 0.0
        least_s = MEMORY_S if len(self._times) < REMEMBERED else _SHORTEST_S
        return len(self._times) / max(now_s - self._times[0], least_s)

    def dispersion(self, window_s: float) -> float:
        """Variance of the number of arrivals in a window, divided by its mean; 1 if arrivals are independent.

        Windows are spread evenly over the remembered arrivals; each is at most an eighth of that time. The result is
        kept between 0.3 and 64.
        """
        times = list(self._times)
        over_s = times[-1] - times[0] if len(times) >= _FEW else 0.0
        window_s = min(window_s, over_s * _WIDEST)
        if window_s <= 0:
            return 1.0
        begins_s = [times[0] + (over_s - window_s) * at / (_WINDOWS - 1) for at in range(_WINDOWS)]
        counts = [bisect_left(times, begin_s + window_s) - bisect_left(times, begin_s) for begin_s in begins_s]
        mean = sum(counts) / _WINDOWS
        if mean <= 0:
            return 1.0
        variance = sum((count - mean) ** 2 for count in counts) / _WINDOWS / (1 - _WIDEST)
        return min(max(variance / mean, _LEAST_DISPERSION), _MOST_DISPERSION)

    def ahead(self, now_s: float) -> tuple[float, ...]:
        """Expected number of arrivals from now until each of `HORIZONS_S`.

        Averages what followed earlier pauses as long as the present one, so that bursts are expected to go on. Uses the
        recent rate if fewer than 8 such pauses were seen.
        """
        if self._times:
            pause_s = now_s - self._times[-1]
            at = bisect_right(_AGES_S, max(pause_s, 0.0)) - 1
            if at not in self._following:
                self._following[at] = _following(self._lesson_s, _AGES_S[at])
            following = self._following[at]
            if following is not None:
                return following
        rate = self.rate(now_s)
        return tuple(rate * horizon_s for horizon_s in HORIZONS_S)

    def _decayed_to(self, now_s: float) -> float:
        if not self._times:
            return 0.0
        return self._decayed * math.exp(-(now_s - self._times[-1]) / MEMORY_S)

    def _relearn(self) -> None:
        self.lesson += 1
        self.tokens = [max(1, round(one)) for one in self._tokens]
        kept = sorted(self._budgets)
        step = max(1, len(kept) // _BUDGETS)
        self.budgets_s = tuple(kept[step // 2 :: step][:_BUDGETS])
        self._following.clear()
        self._lesson_s = list(self._times)


def until(counts: Sequence[float], horizon_s: float) -> float:
    """Interpolates the counts at `HORIZONS_S` to any horizon, in seconds."""
    if horizon_s <= 0:
        return 0.0
    if horizon_s >= HORIZONS_S[-1]:
        return counts[-1] * horizon_s / HORIZONS_S[-1]
    right = bisect_right(HORIZONS_S, horizon_s)
    left_s, right_s = HORIZONS_S[right - 1], HORIZONS_S[right]
    share = (horizon_s - left_s) / (right_s - left_s)
    return counts[right - 1] + (counts[right] - counts[right - 1]) * share


def _following(times: Sequence[float], pause_s: float) -> tuple[float, ...] | None:
    """Mean arrivals within each horizon, counted from `pause_s` after an arrival; None with fewer than 8 cases."""
    totals = [0] * len(HORIZONS_S)
    cases = 0
    for at in range(len(times) - 1):
        begin_s = times[at] + pause_s
        if times[at + 1] <= begin_s:
            continue
        if begin_s + HORIZONS_S[-1] > times[-1]:
            break
        cases += 1
        end = at + 1
        for place, horizon_s in enumerate(HORIZONS_S):
            end = bisect_right(times, begin_s + horizon_s, end)
            totals[place] += end - at - 1
    return tuple(total / cases for total in totals) if cases >= _LEAST_CASES else None
