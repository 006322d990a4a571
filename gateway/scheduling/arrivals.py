"""Arrival statistics of one task: the rate of requests, their lengths, and the budgets they bring.

Learnt from arrivals alone. This module knows neither checkpoints nor load; `price` uses what it learns.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

MEMORY_S = 0.5
"""Time constant of the rate, in seconds: the weight of an arrival falls to 1/e in this time. Set by hand."""

REMEMBERED = 256
"""Number of arrivals whose budgets and gaps are kept. Set by hand."""

_RELEARNT_EVERY = 64
"""Arrivals between two lessons."""

_BUDGETS = 16
"""Size of the budget sample."""

_SMOOTHING = 0.02
"""Weight of a new observation of the text length."""

_SHORTEST_S = 1e-6


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
