"""What a published policy has measured offline, and how it forms batches by that: deadlines first, in time, or dropped.

Knows service times, their spread, and the budgets to be expected. Knows no load and chooses no variant.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from operator import attrgetter

from loadtests.simulator.policies.central import Chosen, Setting
from loadtests.workload.arrivals import Offered
from loadtests.workload.variants import Variant

DRAWS = 200
"""How many runs of each variant and batch size a policy has profiled: enough for a 95th percentile."""

by_deadline = attrgetter("deadline_s")


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
        if variant.name not in self._windows:
            sizes, half_s = range(1, variant.max_batch + 1), self.budget_s(0.5) / 2
            fitting = [size for size in sizes if self.p95_s(variant, size, self.setting.tokens) <= half_s]
            self._windows[variant.name] = max(fitting, default=1)
        return self._windows[variant.name]

    def budget_s(self, part: float) -> float:
        """The budget, less the overhead, that this part of requests does not exceed."""
        place = min(int(part * len(self._budgets_s)), len(self._budgets_s) - 1)
        return max(self._budgets_s[place] - self.setting.overhead_s, 0.0)

    def room_s(self, request: Offered, now_s: float) -> float:
        """The seconds that a run for it may take from now on, so that its answer comes in time."""
        return request.deadline_s - self.setting.overhead_s - now_s

    def is_lost(self, request: Offered, variant: Variant, now_s: float) -> bool:
        """Whether the median run of it alone would come too late."""
        return variant.median_s(request.texts, request.tokens) > self.room_s(request, now_s)

    def earliest_first(
        self, queue: Sequence[Offered], variant: Variant, now_s: float
    ) -> tuple[list[Offered], tuple[Offered, ...]]:
        """The queue in order of deadlines, and apart from it what would be late even alone in a run of the variant."""
        lost = tuple(request for request in queue if self.is_lost(request, variant, now_s))
        gone = set(lost)
        return sorted((request for request in queue if request not in gone), key=by_deadline), lost

    def filled(
        self, variant: Variant, ordered: Sequence[Offered], room_s: float, most: int | None = None
    ) -> tuple[Offered, ...]:
        """The first of the queue and as many behind it as one run of `room_s` seconds holds, `most` inputs at most.

        One that does not fit is passed over. The first is taken whatever its size and however long it takes.
        """
        most = variant.max_batch if most is None else min(most, variant.max_batch)
        members = [ordered[0]]
        inputs, tokens = ordered[0].texts, ordered[0].tokens
        for request in islice(ordered, 1, None):
            if inputs >= most or self.p95_s(variant, inputs + 1, tokens) > room_s:
                break
            more, longer = inputs + request.texts, max(tokens, request.tokens)
            if more <= most and self.p95_s(variant, more, longer) <= room_s:
                members.append(request)
                inputs, tokens = more, longer
        return tuple(members)

    def after_early_drop(
        self, variant: Variant, ordered: Sequence[Offered], now_s: float, window: int
    ) -> Sequence[Offered]:
        """The queue from the first request that leaves time for `window` inputs, if as many wait behind it; else all.

        Nexus's early drop (Shen et al., SOSP 2019), without which a queue that is always late is served in batches of
        one. What is passed over goes on waiting: it is served if the rush ends in time, and lost if not.
        """
        for place, request in enumerate(ordered[: max(len(ordered) - window + 1, 0)]):
            if self.p95_s(variant, window, request.tokens) <= self.room_s(request, now_s):
                return ordered[place:]
        return ordered


class VariantQueues:
    """A queue for each variant, earliest deadline first; the most urgent queue that may run goes first.

    A request that would be late even alone in its variant is dropped; a busy queue drops early.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._variants: dict[Offered, Variant] = {}
        self._running: Counter[str] = Counter()

    def bind(self, request: Offered, variant: Variant) -> None:
        """From now on it waits for this variant."""
        self._variants[request] = variant

    def rebind(self, may_stay: Callable[[Variant], bool], choose: Callable[[Offered], Variant]) -> None:
        """Binds anew whatever waits for a variant that it may not stay with."""
        for request, variant in self._variants.items():
            if not may_stay(variant):
                self._variants[request] = choose(request)

    def choose(self, queue: Sequence[Offered], now_s: float, cores: Mapping[str, int] | None = None) -> Chosen:
        """What a free core runs: a batch of a variant that runs on fewer than its `cores`; of any, without `cores`."""
        waiting: dict[str, list[Offered]] = {}
        lost = []
        for request in queue:
            variant = self._variants[request]
            if self._profile.is_lost(request, variant, now_s):
                lost.append(request)
            elif cores is None or self._running[variant.name] < cores.get(variant.name, 0):
                waiting.setdefault(variant.name, []).append(request)
        members: tuple[Offered, ...] = ()
        if waiting:
            ordered = sorted(min(waiting.values(), key=lambda of: min(map(by_deadline, of))), key=by_deadline)
            chosen = self._variants[ordered[0]]
            served = self._profile.after_early_drop(chosen, ordered, now_s, self._profile.window(chosen))
            members = self._profile.filled(chosen, served, self._profile.room_s(served[0], now_s))
            self._running[chosen.name] += 1
        for request in (*lost, *members):
            del self._variants[request]
        return Chosen(chosen if members else None, members, tuple(lost))

    def ended(self, variant: Variant) -> None:
        """A run of it has ended: its core is free."""
        self._running[variant.name] -= 1
