"""Choosing for each request by itself, when it arrives, by budget and profile: what ignoring the load costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loadtests.simulator.policies.batching import Profile, VariantQueues
from loadtests.simulator.policies.central import Chosen, Rule, Setting
from loadtests.workload.arrivals import Offered
from loadtests.workload.variants import Variant

Select = Callable[[Sequence[Variant], Profile], Variant]
"""Which of the variants that fit a budget is taken; they come best quality first."""


def fastest_of(fitting: Sequence[Variant], profile: Profile) -> Variant:
    """The one with the shortest run."""
    return min(fitting, key=lambda variant: variant.median_s(1, profile.setting.tokens))


def best_of(fitting: Sequence[Variant], profile: Profile) -> Variant:
    """The one of the highest quality, of equals the faster."""
    top = max(variant.quality for variant in fitting)
    return fastest_of([variant for variant in fitting if variant.quality == top], profile)


class PerQuery(Rule):
    """Selection as INFaaS does it for a query (Romero et al., "INFaaS: Automated Model-less Inference Serving",
    USENIX ATC 2021): of the variants whose profiled latency meets the query's own budget, one is taken at once.

    Latency is the 95th percentile of a run of the request alone; where no variant fits, the fastest is taken. Each
    variant has its own queue, served earliest deadline first, and any core may run any of them. INFaaS prefers the
    cheapest variant that is accurate enough: `fastest_of` is the cheapest without a floor, `best_of` the most accurate.
    Left out: scaling by machines and by replacing loaded variants, since there is one node and all are loaded.
    """

    def __init__(self, setting: Setting, select: Select) -> None:
        self._profile = Profile(setting)
        self._select = select
        self._queues = VariantQueues(self._profile)

    def arrived(self, request: Offered, now_s: float) -> None:
        """Binds it to its variant for good."""
        room_s = self._profile.room_s(request, now_s)
        fitting = [
            variant
            for variant in self._profile.setting.variants
            if self._profile.p95_s(variant, request.texts, request.tokens) <= room_s
        ]
        self._queues.bind(request, self._select(fitting, self._profile) if fitting else self._profile.fastest)

    def choose(self, queue: Sequence[Offered], now_s: float) -> Chosen:
        """A batch of the queue whose first is the most urgent."""
        return self._queues.choose(queue, now_s)

    def ended(self, variant: Variant, members: Sequence[Offered], seconds: float, now_s: float) -> None:
        """Its core is free."""
        self._queues.ended(variant)
