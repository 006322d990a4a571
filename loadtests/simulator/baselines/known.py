"""What a policy knows before the first request: service times with their spread, and the budgets to be expected.

It knows nothing of queues, of the clock, or of what becomes of a request.
"""

from __future__ import annotations

import random
from bisect import bisect_right

from loadtests.simulator.central import Setting
from loadtests.simulator.requests import Offered
from loadtests.simulator.variants import Variant

DRAWS = 200
"""How many runs of each variant and batch size a policy has profiled: enough for a 95th percentile."""


class Profile:
    """The service times of a setting's variants as measured offline: the median, and the 95th percentile of runs."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.fastest = min(setting.variants, key=lambda variant: variant.median_s(1, setting.tokens))
        self._budgets_s = sorted(setting.budgets_s)
        self._spread: dict[tuple[str, int], float] = {}
        self._windows: dict[str, int] = {}

    def p95_s(self, variant: Variant, batch: int, tokens: int) -> float:
        """The seconds that 95 of 100 runs of `batch` inputs padded to `tokens` tokens stay within."""
        spread = self._spread.get((variant.name, batch))
        if spread is None:
            chance = random.Random(batch)  # the same profile in every run of the simulator
            residuals = sorted(variant.times.noise(batch, chance) for _ in range(DRAWS))
            spread = self._spread[variant.name, batch] = residuals[DRAWS * 95 // 100]
        return spread * variant.median_s(batch, tokens)

    def window(self, variant: Variant) -> int:
        """The batch that a busy queue is served in: the largest whose run takes half the median budget, at least 1.

        Half, as in Nexus: what just missed a batch must wait for it and then run itself.
        """
        name, half_s = variant.name, self.budget_s(0.5) / 2
        if name not in self._windows:
            fitting = [
                batch
                for batch in range(1, variant.max_batch + 1)
                if self.p95_s(variant, batch, self.setting.tokens) <= half_s
            ]
            self._windows[name] = max(fitting, default=1)
        return self._windows[name]

    def budget_s(self, part: float) -> float:
        """The budget that such a part of requests does not exceed, less the overhead."""
        place = min(int(part * len(self._budgets_s)), len(self._budgets_s) - 1)
        return max(self._budgets_s[place] - self.setting.overhead_s, 0.0)

    def room_s(self, request: Offered, now_s: float) -> float:
        """The seconds that a run for it may take from now on, so that its answer comes in time."""
        return request.deadline_s - self.setting.overhead_s - now_s

    def is_lost(self, request: Offered, variant: Variant, now_s: float) -> bool:
        """Whether the median run of it alone would come too late."""
        return variant.median_s(request.texts, request.tokens) > self.room_s(request, now_s)


class BudgetClasses:
    """Budgets in classes of equal share; a class is known by the smallest budget in it, less the overhead."""

    def __init__(self, setting: Setting, classes: int) -> None:
        profile = Profile(setting)
        edges_s = {profile.budget_s(index / classes) for index in range(classes)}
        self.least_s = tuple(sorted(edges_s))
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
