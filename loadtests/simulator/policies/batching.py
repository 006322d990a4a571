"""Offline profiles for published policies, and batching by them: earliest deadline first, late requests dropped.

Knows service times, their spread, and the expected budgets. Knows no load and chooses no variant.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from operator import attrgetter

from gateway.scheduling.ruled import Chosen, RequestView
from loadtests.simulator.policies.setting import Setting
from loadtests.workload.variants import Variant

DRAWS = 200
"""Profiled runs of each variant and batch size: enough for a 95th percentile."""

by_deadline = attrgetter("deadline_s")


class Profile:
    """Offline service times of a setting's variants: median and 95th percentile."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.fastest = min(setting.variants, key=lambda variant: variant.median_s(1, setting.tokens))
        self._budgets_s = sorted(setting.budgets_s)
        self._spread: dict[tuple[str, int], float] = {}
        self._windows: dict[str, int] = {}

    def p95_s(self, variant: Variant, batch: int, tokens: int) -> float:
        """The 95th percentile of runs of `batch` inputs padded to `tokens` tokens, in seconds."""
        spread = self._spread.get((variant.name, batch))
        if spread is None:
            chance = random.Random(batch)  # the same profile in every run
            residuals = sorted(variant.times.noise(batch, chance) for _ in range(DRAWS))
            spread = self._spread[variant.name, batch] = residuals[DRAWS * 95 // 100]
        return spread * variant.median_s(batch, tokens)

    def window(self, variant: Variant) -> int:
        """The batch size for a busy queue: the largest whose run takes at most half the median budget, at least 1.

        Half, as in Nexus: a request that just missed a batch must wait for it and then run itself.
        """
        if variant.name not in self._windows:
            sizes, half_s = range(1, variant.max_batch + 1), self.budget_s(0.5) / 2
            fitting = [size for size in sizes if self.p95_s(variant, size, self.setting.tokens) <= half_s]
            self._windows[variant.name] = max(fitting, default=1)
        return self._windows[variant.name]

    def budget_s(self, part: float) -> float:
        """This quantile of the budgets, less the overhead, in seconds."""
        place = min(int(part * len(self._budgets_s)), len(self._budgets_s) - 1)
        return max(self._budgets_s[place] - self.setting.overhead_s, 0.0)

    def available_s(self, request: RequestView, now_s: float) -> float:
        """The longest run from now, in seconds, that answers the request in time."""
        return request.deadline_s - self.setting.overhead_s - now_s

    def is_lost(self, request: RequestView, variant: Variant, now_s: float) -> bool:
        """True if the request would be late even in a median run of it alone."""
        return variant.median_s(request.texts, request.tokens) > self.available_s(request, now_s)

    def earliest_first(
        self, queue: Sequence[RequestView], variant: Variant, now_s: float
    ) -> tuple[list[RequestView], tuple[RequestView, ...]]:
        """The queue by deadline, and separately the requests that would be late even alone in a run of the variant."""
        lost = tuple(request for request in queue if self.is_lost(request, variant, now_s))
        gone = set(lost)
        return sorted((request for request in queue if request not in gone), key=by_deadline), lost

    def filled(
        self, variant: Variant, ordered: Sequence[RequestView], available_s: float, most: int | None = None
    ) -> tuple[RequestView, ...]:
        """The first of the queue and as many after it as fit into a run of `available_s` seconds and `most` inputs.

        One that does not fit is skipped. The first is always taken.
        """
        most = variant.max_batch if most is None else min(most, variant.max_batch)
        members = [ordered[0]]
        inputs, tokens = ordered[0].texts, ordered[0].tokens
        for request in islice(ordered, 1, None):
            if inputs >= most or self.p95_s(variant, inputs + 1, tokens) > available_s:
                break
            more, longer = inputs + request.texts, max(tokens, request.tokens)
            if more <= most and self.p95_s(variant, more, longer) <= available_s:
                members.append(request)
                inputs, tokens = more, longer
        return tuple(members)

    def after_early_drop(
        self, variant: Variant, ordered: Sequence[RequestView], now_s: float, window: int
    ) -> Sequence[RequestView]:
        """The queue from the first request with time for a batch of `window` inputs, if as many follow; else all.

        Nexus's early drop (Shen et al., SOSP 2019). Without it, a queue that is always late has batches of one.
        Skipped requests stay queued: they are served if the burst ends in time.
        """
        for place, request in enumerate(ordered[: max(len(ordered) - window + 1, 0)]):
            if self.p95_s(variant, window, request.tokens) <= self.available_s(request, now_s):
                return ordered[place:]
        return ordered


class VariantQueues:
    """A queue for each variant, earliest deadline first; the most urgent queue that may run goes first.

    A request that would be late even alone in its variant is dropped; a busy queue drops early.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._variants: dict[RequestView, Variant] = {}
        self._running: Counter[str] = Counter()

    def bind(self, request: RequestView, variant: Variant) -> None:
        """Queues the request for this variant."""
        self._variants[request] = variant

    def rebind(self, may_stay: Callable[[Variant], bool], choose: Callable[[RequestView], Variant]) -> None:
        """Binds requests anew if their variant fails `may_stay`."""
        for request, variant in self._variants.items():
            if not may_stay(variant):
                self._variants[request] = choose(request)

    def choose(
        self, queue: Sequence[RequestView], now_s: float, cores: Mapping[str, int] | None = None
    ) -> Chosen[Variant]:
        """The next batch for a free core, of a variant that runs on fewer than its `cores` (None: of any)."""
        waiting: dict[str, list[RequestView]] = {}
        lost = []
        for request in queue:
            variant = self._variants[request]
            if self._profile.is_lost(request, variant, now_s):
                lost.append(request)
            elif cores is None or self._running[variant.name] < cores.get(variant.name, 0):
                waiting.setdefault(variant.name, []).append(request)
        members: tuple[RequestView, ...] = ()
        if waiting:
            ordered = sorted(min(waiting.values(), key=lambda of: min(map(by_deadline, of))), key=by_deadline)
            chosen = self._variants[ordered[0]]
            served = self._profile.after_early_drop(chosen, ordered, now_s, self._profile.window(chosen))
            members = self._profile.filled(chosen, served, self._profile.available_s(served[0], now_s))
            self._running[chosen.name] += 1
        for request in (*lost, *members):
            del self._variants[request]
        return Chosen(chosen if members else None, members, tuple(lost))

    def ended(self, variant: Variant) -> None:
        """Frees the core of a finished run."""
        self._running[variant.name] -= 1
