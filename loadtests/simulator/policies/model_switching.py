"""Model-Switching: one variant for all requests, chosen by offline trials at the observed load."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

from gateway.scheduling.ruled import Chosen, RequestView, Rule
from loadtests.simulator.gateway import Ruled
from loadtests.simulator.policies.observed_load import ArrivalRate, level_of, rate_at
from loadtests.simulator.policies.setting import Setting
from loadtests.simulator.policies.static import Static
from loadtests.simulator.world import World
from loadtests.workload.arrivals import Fate, Offered
from loadtests.workload.variants import Variant

WINDOW_S = 0.1
"""The window over which the load is observed, in seconds ..."""

SEEN = 10
"""... or over this many requests, if that takes longer."""

TRIAL_S = 20.0
"""The virtual seconds of a trial of one variant at one level of load ..."""

LEAST_TRIED = 400
"""... and its least number of requests. The first half is warm-up and does not count."""


class ModelSwitching(Rule[Variant]):
    """Switching by load.

    Source: Zhang et al., "Model-Switching: Dealing with Fluctuating Workloads in Machine-Learning-as-a-Service
    Systems", HotCloud 2020.

    Offline each variant is tried alone at each level of load. Online, before every run, the variant with the highest
    effective accuracy (quality × share of answers in time, the paper's measure) at the observed load is taken. Trials
    are Poisson arrivals with sampled budgets; a level is tried when first seen, in no virtual time. Generous: the load
    is observed over 0.1 s, the best window tried; switching is free; a variant serves as `Static` does, dropping
    included, where the paper drops nothing.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._rate = ArrivalRate(max(WINDOW_S, SEEN / max(setting.rate_per_s, 1.0)), setting.rate_per_s)
        self._statics = {variant.name: Static(setting, variant) for variant in setting.variants}
        self._best: dict[int, Variant] = {}

    def arrived(self, request: RequestView, now_s: float) -> None:
        """Adds the arrival to the observed load."""
        self._rate.add(request.texts, now_s)

    def choose(self, queue: Sequence[RequestView], now_s: float) -> Chosen[Variant]:
        """A batch of the best variant for the load, formed as `Static` does."""
        variant = self._best_at(level_of(self._rate.per_s(now_s)))
        return self._statics[variant.name].choose(queue, now_s)

    def _best_at(self, level: int) -> Variant:
        """The variant with the highest effective accuracy at a level; skips those that cannot beat the best so far."""
        if level not in self._best:
            best, reached = self._setting.variants[0], -1.0
            for variant in sorted(self._setting.variants, key=lambda one: one.quality, reverse=True):
                if variant.quality > reached:
                    effective = variant.quality * attained(self._setting, variant, rate_at(level))
                    if effective > reached:
                        best, reached = variant, effective
            self._best[level] = best
        return self._best[level]


@lru_cache(maxsize=1024)
def attained(setting: Setting, variant: Variant, rate_per_s: float) -> float:
    """The share of requests that the variant alone answers in time at this rate."""
    chance = random.Random(1)
    world = World(setting.cores, seed=1)
    offered = []
    now_s = 0.0
    for sequence in range(min(max(int(TRIAL_S * rate_per_s), LEAST_TRIED), setting.most_tried)):
        now_s += chance.expovariate(rate_per_s)
        offered.append(Offered(sequence, variant.task, now_s, chance.choice(setting.budgets_s), setting.tokens))
    rule = Static(setting, variant)
    world.play(offered, Ruled(world, setting.variants, {variant.task: rule}, setting.cores, setting.overhead_s))
    counted = offered[len(offered) // 2 :]
    return sum(request.fate is Fate.IN_TIME for request in counted) / len(counted)
