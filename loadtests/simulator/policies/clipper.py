"""Clipper: one variant, with a batch size that adapts to the latency objective."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gateway.scheduling.ruled import Chosen, RequestView, Rule
from loadtests.simulator.policies.batching import Profile
from loadtests.simulator.policies.setting import Setting
from loadtests.workload.variants import Variant

GROWTH = 1.0
"""The inputs added to the batch size after a full batch that met the objective."""

BACKOFF = 0.9
"""The factor after a batch that missed it: the paper's 10 %."""


class ClipperAimd(Rule[Variant]):
    """Adaptive batching by additive increase and multiplicative decrease.

    Source: Crankshaw et al., "Clipper: A Low-Latency Online Prediction Serving System", NSDI 2017.

    Clipper selects models by feedback on their answers, not by load: here it serves the best variant whose run alone
    keeps the median budget. Its objective is one latency for the whole application: here half the first quartile of the
    budgets, so that a batch may wait for another, or one run alone if that takes longer (the best goodput of the tenth,
    quarter and half quantiles, whole and halved). Without delayed batching: nothing would wake a policy that waits.
    Generous: earliest deadline first with `after_early_drop`, where Clipper is first come, first served; requests that
    would be late even alone are dropped, where Clipper answers with a default at the deadline.
    """

    def __init__(self, setting: Setting) -> None:
        self._profile = profile = Profile(setting)
        alone = {variant.name: profile.p95_s(variant, 1, setting.tokens) for variant in setting.variants}
        fitting = [variant for variant in setting.variants if alone[variant.name] <= profile.budget_s(0.5)]
        self._variant = max(fitting, key=lambda variant: variant.quality) if fitting else profile.fastest
        self._objective_s = max(profile.budget_s(0.25) / 2, alone[self._variant.name])
        self._size = 1.0

    def choose(self, queue: Sequence[RequestView], now_s: float) -> Chosen[Variant]:
        """A batch of the current size, or the whole queue if it is shorter."""
        ordered, lost = self._profile.earliest_first(queue, self._variant, now_s)
        if not ordered:
            return Chosen(drop=lost)
        size = int(self._size)
        served = self._profile.after_early_drop(self._variant, ordered, now_s, size)
        return Chosen(self._variant, self._profile.filled(self._variant, served, math.inf, size), lost)

    def ended(self, variant: Variant, members: Sequence[RequestView], seconds: float, now_s: float) -> None:
        """Grows the batch size after a full batch within the objective, shrinks it after a miss."""
        if seconds > self._objective_s:
            self._size = max(self._size * BACKOFF, 1.0)
        elif sum(request.texts for request in members) >= int(self._size):
            self._size = min(self._size + GROWTH, float(self._variant.max_batch))
