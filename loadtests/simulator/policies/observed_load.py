"""The load that published policies observe: budget classes, and arrivals in a sliding window.

Predicts nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque

from gateway.scheduling.ruled import RequestView
from loadtests.simulator.policies.batching import Profile
from loadtests.simulator.policies.setting import Setting

STEP = 1.2
"""The ratio of neighbouring levels of load; plans are made once a level and kept."""


class BudgetClasses:
    """Budget classes of equal share; a class is represented by its smallest budget, less the overhead."""

    def __init__(self, setting: Setting, classes: int) -> None:
        profile = Profile(setting)
        self.least_s = tuple(sorted({profile.budget_s(index / classes) for index in range(classes)}))
        self._overhead_s = setting.overhead_s
        sizes = [0] * len(self.least_s)
        for budget_s in setting.budgets_s:
            sizes[self._place(budget_s)] += 1
        self.expected_per_s = tuple(setting.rate_per_s * size / sum(sizes) for size in sizes)

    def of(self, request: RequestView) -> int:
        """The index of a request's class."""
        return self._place(request.budget_s)

    def _place(self, budget_s: float) -> int:
        return max(bisect_right(self.least_s, max(budget_s - self._overhead_s, 0.0)) - 1, 0)


class ArrivalRate:
    """Input arrivals per second over the last `window_s`; in the first window, mixed with the expected rate."""

    def __init__(self, window_s: float, expected_per_s: float) -> None:
        self._window_s = window_s
        self._expected_per_s = expected_per_s
        self._arrivals: deque[tuple[float, int]] = deque()
        self._inputs = 0

    def add(self, inputs: int, now_s: float) -> None:
        """Counts inputs that have arrived."""
        self._arrivals.append((now_s, inputs))
        self._inputs += inputs

    def per_s(self, now_s: float) -> float:
        """The rate at this time."""
        while self._arrivals and self._arrivals[0][0] <= now_s - self._window_s:
            self._inputs -= self._arrivals.popleft()[1]
        unseen_s = max(self._window_s - now_s, 0.0)
        return (self._inputs + unseen_s * self._expected_per_s) / self._window_s


def level_of(rate_per_s: float) -> int:
    """The level nearest to a rate, in powers of `STEP`; rates below one a minute count as one a minute."""
    return round(math.log(max(rate_per_s, 1 / 60), STEP))


def rate_at(level: int) -> float:
    """The rate that a level stands for."""
    return float(STEP**level)
