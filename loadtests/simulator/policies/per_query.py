"""Chooses a variant for each request at its arrival, by budget and profile, and ignores the load."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.scheduling.ruled import Chosen, RequestView, Rule
from loadtests.simulator.policies.batching import Profile, VariantQueues
from loadtests.simulator.policies.setting import Setting
from loadtests.workload.variants import Variant

Select = Callable[[Sequence[Variant], Profile], Variant]
"""Chooses among the variants that fit a budget, given best quality first."""


def fastest_of(fitting: Sequence[Variant], profile: Profile) -> Variant:
    """The variant with the shortest run."""
    return min(fitting, key=lambda variant: variant.median_s(1, profile.setting.tokens))


def best_of(fitting: Sequence[Variant], profile: Profile) -> Variant:
    """The variant of the highest quality; on a tie, the faster."""
    top = max(variant.quality for variant in fitting)
    return fastest_of([variant for variant in fitting if variant.quality == top], profile)


class PerQuery(Rule[Variant]):
    """Selection by INFaaS: of the variants whose profiled latency meets the query's budget, one is taken at once.

    Source: Romero et al., "INFaaS: Automated Model-less Inference Serving", USENIX ATC 2021.

    Latency is the 95th percentile of a run of the request alone; where no variant fits, the fastest is taken. Each
    variant has its own queue, served earliest deadline first, and any core may run any of them. INFaaS prefers the
    cheapest variant that is accurate enough: `fastest_of` is the cheapest without a floor, `best_of` the most accurate.
    Left out: scaling by machines and by replacing loaded variants, since there is one node and all are loaded.
    """

    def __init__(self, setting: Setting, select: Select) -> None:
        self._profile = Profile(setting)
        self._select = select
        self._queues = VariantQueues(self._profile)

    def arrived(self, request: RequestView, now_s: float) -> None:
        """Binds the request to its variant for good."""
        available_s = self._profile.available_s(request, now_s)
        fitting = [
            variant
            for variant in self._profile.setting.variants
            if self._profile.p95_s(variant, request.texts, request.tokens) <= available_s
        ]
        self._queues.bind(request, self._select(fitting, self._profile) if fitting else self._profile.fastest)

    def choose(self, queue: Sequence[RequestView], now_s: float) -> Chosen[Variant]:
        """A batch from the queue with the most urgent head."""
        return self._queues.choose(queue, now_s)

    def ended(self, variant: Variant, members: Sequence[RequestView], seconds: float, now_s: float) -> None:
        """Frees the run's core."""
        self._queues.ended(variant)
