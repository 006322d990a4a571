"""Divides cores and load among variants, with a new plan each period from the observed load.

Follows plans; Proteus and Jellyfish make them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gateway.scheduling.ruled import Chosen, RequestView, Rule
from loadtests.simulator.policies.batching import Profile, VariantQueues
from loadtests.simulator.policies.observed_load import ArrivalRate, BudgetClasses, level_of, rate_at
from loadtests.simulator.policies.setting import Setting
from loadtests.workload.variants import Variant

CLASSES = 6
"""Budget classes in a plan."""

WINDOW_S = 5.0
"""The window over which the load of each class is observed, in seconds."""

PERIOD_S = 1.0
"""The time between plans, in seconds."""


@dataclass(frozen=True)
class Division:
    """A plan: the number of cores of each variant, by name.

    `shares` gives each budget class's share of requests per variant; a class without shares goes to the fastest.
    """

    cores: Mapping[str, int]
    shares: tuple[Mapping[str, float], ...]


Planner = Callable[[Sequence[float]], Division]
"""Divides at least one core by the inputs per second of each budget class."""


class Divided(Rule[Variant]):
    """A rule that binds each request to a variant by the shares of its class, and follows the division of cores.

    Cores are interchangeable: a variant runs on at most its number of cores at once. Requests bound to a variant that
    lost its cores are bound anew. Planning takes no virtual time.
    """

    def __init__(self, setting: Setting, classes: BudgetClasses, planner: Planner) -> None:
        self._variants = {variant.name: variant for variant in setting.variants}
        self._tokens = setting.tokens
        self._classes = classes
        self._planner = planner
        self._rates = [ArrivalRate(WINDOW_S, expected) for expected in classes.expected_per_s]
        self._queues = VariantQueues(Profile(setting))
        self._credits: list[dict[str, float]] = [{} for _ in classes.least_s]
        self._next_s = PERIOD_S
        self._division = planner([rate_at(level_of(per_s)) for per_s in classes.expected_per_s])

    def arrived(self, request: RequestView, now_s: float) -> None:
        """Counts the request, plans anew after a period, and binds it."""
        self._rates[self._classes.of(request)].add(request.texts, now_s)
        if now_s >= self._next_s:
            self._next_s = now_s + PERIOD_S
            self._division = self._planner([rate_at(level_of(rate.per_s(now_s))) for rate in self._rates])
            self._queues.rebind(lambda variant: self._division.cores.get(variant.name, 0) > 0, self._route)
        self._queues.bind(request, self._route(request))

    def choose(self, queue: Sequence[RequestView], now_s: float) -> Chosen[Variant]:
        """A batch of the most urgent variant with a free core of its own."""
        return self._queues.choose(queue, now_s, self._division.cores)

    def ended(self, variant: Variant, members: Sequence[RequestView], seconds: float, now_s: float) -> None:
        """Frees the run's core."""
        self._queues.ended(variant)

    def _route(self, request: RequestView) -> Variant:
        """The variant furthest below its share of the request's class."""
        place = self._classes.of(request)
        shares = {name: share for name, share in self._division.shares[place].items() if self._division.cores.get(name)}
        if not shares:
            placed = [self._variants[name] for name, cores in self._division.cores.items() if cores]
            return min(placed, key=lambda variant: variant.median_s(1, self._tokens))
        credit = self._credits[place]
        whole = sum(shares.values())
        for name, share in shares.items():
            credit[name] = credit.get(name, 0.0) + share / whole
        chosen = max(shares, key=lambda name: credit[name])
        credit[chosen] -= 1.0
        return self._variants[chosen]
