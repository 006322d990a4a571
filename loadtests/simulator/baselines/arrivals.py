"""The load as a policy observes it: inputs that arrived within a sliding window. What comes next it does not guess."""

from __future__ import annotations

import math
from collections import deque


class ArrivalRate:
    """Inputs arriving per second, over the last `window_s`; before that has passed, mixed with the rate expected."""

    def __init__(self, window_s: float, expected_per_s: float) -> None:
        self._window_s = window_s
        self._expected_per_s = expected_per_s
        self._arrivals: deque[tuple[float, int]] = deque()
        self._inputs = 0

    def add(self, inputs: int, now_s: float) -> None:
        """So many inputs have arrived."""
        self._arrivals.append((now_s, inputs))
        self._inputs += inputs

    def per_s(self, now_s: float) -> float:
        """The rate as of now."""
        while self._arrivals and self._arrivals[0][0] <= now_s - self._window_s:
            self._inputs -= self._arrivals.popleft()[1]
        unseen_s = max(self._window_s - now_s, 0.0)
        return (self._inputs + unseen_s * self._expected_per_s) / self._window_s


STEP = 1.2
"""The ratio between neighbouring levels of load: plans are made for a level once and kept."""


def level_of(rate_per_s: float) -> int:
    """The level nearest to a rate, on a scale whose neighbours differ by `STEP`; a rate below one a minute is that."""
    return round(math.log(max(rate_per_s, 1 / 60), STEP))


def rate_at(level: int) -> float:
    """The rate that a level stands for."""
    return float(STEP**level)
