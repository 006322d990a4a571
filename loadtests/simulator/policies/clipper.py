"""Clipper: one variant, and a batch size that finds its own way to the latency objective."""

from __future__ import annotations

import math
from collections.abc import Sequence

from loadtests.simulator.policies.batching import Profile
from loadtests.simulator.policies.central import Chosen, Rule, Setting
from loadtests.workload.arrivals import Offered
from loadtests.workload.variants import Variant

GROWTH = 1.0
"""By how many inputs the batch size grows after a full batch that kept the objective."""

BACKOFF = 0.9
"""By what it is multiplied after one that broke it: the paper's 10 %."""


class ClipperAimd(Rule):
    """Adaptive batching by additive increase and multiplicative decrease (Crankshaw et al., "Clipper: A Low-Latency
    Online Prediction Serving System", NSDI 2017).

    Clipper selects models by feedback on their answers, not by load: here it serves the best variant whose run alone
    keeps the median budget. Its objective is one latency for the whole application: here half the budget that a
    quarter does not exceed, so that a batch may wait for another, or one run alone where that takes longer (chosen
    among tenth, quarter and half, whole and halved, for the most goodput). Without delayed batching: nothing would wake
    a policy that waits. Generous: earliest deadline first with `after_early_drop`, where Clipper is first come, first
    served, and what would be late even alone is dropped, where Clipper answers with a default at the deadline.
    """

    def __init__(self, setting: Setting) -> None:
        self._profile = profile = Profile(setting)
        alone = {variant.name: profile.p95_s(variant, 1, setting.tokens) for variant in setting.variants}
        fitting = [variant for variant in setting.variants if alone[variant.name] <= profile.budget_s(0.5)]
        self._variant = max(fitting, key=lambda variant: variant.quality) if fitting else profile.fastest
        self._objective_s = max(profile.budget_s(0.25) / 2, alone[self._variant.name])
        self._size = 1.0

    def choose(self, queue: Sequence[Offered], now_s: float) -> Chosen:
        """As many as the batch size now says, or the whole queue where it is shorter."""
        ordered, lost = self._profile.earliest_first(queue, self._variant, now_s)
        if not ordered:
            return Chosen(drop=lost)
        size = int(self._size)
        served = self._profile.after_early_drop(self._variant, ordered, now_s, size)
        return Chosen(self._variant, self._profile.filled(self._variant, served, math.inf, size), lost)

    def ended(self, variant: Variant, members: Sequence[Offered], seconds: float, now_s: float) -> None:
        """Larger after a full batch within the objective, smaller after any that missed it."""
        if seconds > self._objective_s:
            self._size = max(self._size * BACKOFF, 1.0)
        elif sum(request.texts for request in members) >= int(self._size):
            self._size = min(self._size + GROWTH, float(self._variant.max_batch))
