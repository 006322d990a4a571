"""A small world for the baselines: three variants on a core or two, and a rule that is checked while it runs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.model.tier import Tier
from gateway.scheduling.ruled import Chosen, RequestView, Rule
from loadtests.simulator.gateway import Ruled
from loadtests.simulator.policies.setting import MOST_TRIED, Setting
from loadtests.simulator.world import World
from loadtests.workload.arrivals import Fate, Offered
from loadtests.workload.variants import Variant

TASK = "classify"
OVERHEAD_S = 0.001


@dataclass(frozen=True)
class Affine:
    """A time for one input of 64 tokens, and `more` of that for each further one."""

    alone_s: float
    more: float
    sigma: float = 0.05

    def median_s(self, batch: int, tokens: int) -> float:
        return self.alone_s * (1 + self.more * (batch - 1)) * tokens / 64

    def noise(self, batch: int, chance: random.Random) -> float:
        return chance.lognormvariate(0.0, self.sigma) if self.sigma else 1.0


def three(more: float = 0.8, max_batch: int = 32, sigma: float = 0.05) -> tuple[Variant, ...]:
    """Return variants of 20, 8 and 4 ms; batching gains little with `more` near 1, as on a CPU, and much near 0."""
    kinds = (("grand", 90.0, 0.020), ("even", 86.0, 0.008), ("swift", 80.0, 0.004))
    return tuple(
        Variant(name, TASK, quality, Tier.BALANCED, Affine(alone_s, more, sigma), max_batch)
        for name, quality, alone_s in kinds
    )


def mixed_budgets(count: int, seed: int = 2) -> tuple[float, ...]:
    """Return budgets: six in ten from 50 to 100 ms, three from 200 to 500 ms, one from 1 to 5 s."""
    chance = random.Random(seed)
    ranges = [(0.05, 0.1)] * 6 + [(0.2, 0.5)] * 3 + [(1.0, 5.0)]
    return tuple(chance.uniform(*chance.choice(ranges)) for _ in range(count))


def setting_of(
    rate_per_s: float, variants: Sequence[Variant] | None = None, cores: int = 2, most_tried: int = MOST_TRIED
) -> Setting:
    """Return what a rule knows of such a load with mixed budgets."""
    return Setting(tuple(variants or three()), cores, rate_per_s, mixed_budgets(500), 64, OVERHEAD_S, most_tried)


def poisson(rate_per_s: float, count: int, seed: int = 3) -> list[Offered]:
    """Return Poisson arrivals of one text of 64 tokens with mixed budgets."""
    chance, now_s, offered = random.Random(seed), 0.0, []
    for sequence, budget_s in enumerate(mixed_budgets(count, seed)):
        now_s += chance.expovariate(rate_per_s)
        offered.append(Offered(sequence, TASK, now_s, budget_s, 64))
    return offered


def waiting(*available_times_s: float, tokens: int = 64) -> list[Offered]:
    """Return a queue at time 0 whose requests leave these many seconds for a batch."""
    return [
        Offered(place, TASK, 0.0, available_s + OVERHEAD_S, tokens)
        for place, available_s in enumerate(available_times_s)
    ]


def told(rule: Rule[Variant], queue: Sequence[Offered]) -> Chosen[Variant]:
    """Return what a rule chooses at time 0 from a queue that has just arrived."""
    for request in queue:
        rule.arrived(request, 0.0)
    return rule.choose(queue, 0.0)


@dataclass(eq=False)
class Watched:
    """A rule whose choices are checked at each call."""

    rule: Rule[Variant]
    under_way: int = 0
    held: set[RequestView] = field(default_factory=set)
    ran: list[tuple[str, int]] = field(default_factory=list)

    def arrived(self, request: RequestView, now_s: float) -> None:
        self.held.add(request)
        self.rule.arrived(request, now_s)

    def choose(self, queue: Sequence[RequestView], now_s: float) -> Chosen[Variant]:
        chosen = self.rule.choose(queue, now_s)
        gone = [*chosen.drop, *chosen.members]
        assert len(set(gone)) == len(gone), "one request twice"
        assert set(gone) <= set(queue) <= self.held, "one that does not wait"
        assert gone or self.under_way, "nothing runs and nothing was chosen"
        assert bool(chosen.members) == (chosen.variant is not None)
        self.held -= set(gone)
        if chosen.variant is not None:
            inputs = sum(request.texts for request in chosen.members)
            assert inputs <= chosen.variant.max_batch or len(chosen.members) == 1
            self.under_way += 1
            self.ran.append((chosen.variant.name, len(chosen.members)))
        return chosen

    def ended(self, variant: Variant, members: Sequence[RequestView], seconds: float, now_s: float) -> None:
        self.under_way -= 1
        self.rule.ended(variant, members, seconds, now_s)


def played(maker: Callable[[Setting], Rule[Variant]], setting: Setting, offered: Sequence[Offered]) -> Watched:
    """Play the requests by a watched rule."""
    watched = Watched(maker(setting))
    world = World(setting.cores, seed=4)
    world.play(offered, Ruled(world, setting.variants, {TASK: watched}, setting.cores, setting.overhead_s))
    return watched


def attainment(offered: Sequence[Offered]) -> float:
    """Return the share answered in time."""
    return sum(request.fate is Fate.IN_TIME for request in offered) / len(offered)


def quality(offered: Sequence[Offered], variants: Sequence[Variant]) -> float:
    """Return the mean quality over all offered requests, 0 for those not in time."""
    of = {variant.name: variant.quality for variant in variants}
    return sum(of[r.variant or ""] for r in offered if r.fate is Fate.IN_TIME) / len(offered)
