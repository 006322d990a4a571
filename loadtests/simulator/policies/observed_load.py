"""The load as a published policy sees it: budgets in classes, and inputs that arrived within a sliding window.

What comes next it does not guess.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque

from loadtests.simulator.policies.batching import Profile
from loadtests.simulator.policies.central import Setting
from loadtests.workload.arrivals import Offered

STEP = 1.2
"""The ratio between neighbouring levels of load: plans are made for a level once and kept."""


class BudgetClasses:
    """Budgets in classes of equal share; a class is known by the smallest budget in it, less the overhead."""

    def __init__(self, setting: Setting, classes: int) -> None:
        profile = Profile(setting)
        self.least_s = tuple(sorted({profile.budget_s(index / classes) for index in range(classes)}))
        self._overhead_s = setting.overhead_s
        sizes = [0] * len(self.least_s)
        for budget_s in setting.budgets_s:
            sizes[self._place(budget_s)] += 1
        self.expected_per_s = tuple(setting.rate_per_s * size / sum(sizes) for size in sizes)

    def of(self, request: Offered) -> int:
        """The class of a request."""
        return self._place(request.budget_s)

    def _place(self, budget_s: float) -> int:
        return max(bisect_right(self.least_s, max(budget_s - self._overhead_s, 0.0)) - 1, 0)


class ArrivalRate:
    """Inputs arriving per second, over the last `window_s`; before that has passed, mixed with the rate expected."""

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
        """The rate as of now."""
        while self._arrivals and self._arrivals[0][0] <= now_s - self._window_s:
            self._inputs -= self._arrivals.popleft()[1]
        unseen_s = max(self._window_s - now_s, 0.0)
        return (self._inputs + unseen_s * self._expected_per_s) / self._window_s


def level_of(rate_per_s: float) -> int:
    """The level nearest to a rate, on a scale whose neighbours differ by `STEP`; a rate below one a minute is that."""
    return round(math.log(max(rate_per_s, 1 / 60), STEP))


def rate_at(level: int) -> float:
    """The rate that a level stands for."""
    return float(STEP**level)
