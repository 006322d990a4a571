"""Every run of a scenario against a live gateway, in an order in which what drifts is shared by all that is compared.

It tells a generator what to send and counts what came of it. Showing and writing is for others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtests.offering.calls import Call, Handling, calls_of
from loadtests.offering.capacity import Capacity, Step, measured_capacity, step_of, step_scenario
from loadtests.offering.errors import NothingOffered
from loadtests.offering.figures import LiveResult, live_result
from loadtests.offering.handlings import best_pins
from loadtests.offering.landings import Landing
from loadtests.offering.neighbour import beside
from loadtests.offering.process import Fire, Order
from loadtests.offering.stock import Stock
from loadtests.results.run import Conditions
from loadtests.scenarios.arrivals import offered_of
from loadtests.scenarios.capacity import quality_capacity, rate_of
from loadtests.scenarios.model import Scenario
from loadtests.simulator.variants import Variant


@dataclass(frozen=True)
class Planned:
    """One run to come."""

    handling: Handling
    load: float
    cv: float
    seed: int

    def __str__(self) -> str:
        """As progress names it."""
        return f"{self.handling.label}, load {self.load:g}, CV {self.cv:g}, seed {self.seed}"


@dataclass(frozen=True)
class Terms:
    """How runs are made. `patience_s` is how long after its budget an answer is still waited for; the share of refused
    strict requests `shadow_share` is sent once more; `beside` is a command that runs from a run's second `at_s` on.
    """

    url: str
    patience_s: float = 10.0
    shadow_share: float = 0.1
    beside: tuple[str, ...] | None = None
    at_s: float = 0.0


@dataclass(frozen=True)
class Ran:
    """One run and all its counted requests."""

    result: LiveResult
    landings: tuple[Landing, ...]


def planned(scenario: Scenario, handlings: Sequence[Handling]) -> tuple[Planned, ...]:
    """Every handling at every load and coefficient of variation under every seed.

    Handlings take turns within a seed, and another one begins with each: none always runs first, or after the same.
    """
    runs: list[Planned] = []
    places = [(load, cv) for load in scenario.loads for cv in scenario.cvs]
    for turn, seed in enumerate(scenario.seeds):
        for at, (load, cv) in enumerate(places):
            first = (turn + at) % len(handlings)
            runs += [Planned(one, load, cv, seed) for one in (*handlings[first:], *handlings[:first])]
    return tuple(runs)


class Experiment:
    """A scenario, the variants behind a gateway, and the generator that offers the one to the other."""

    def __init__(self, scenario: Scenario, variants: Sequence[Variant], stock: Stock, terms: Terms, fire: Fire) -> None:
        self._scenario = scenario
        self._variants = variants
        self._stock = stock
        self._terms = terms
        self._fire = fire

    def reckoned_capacity(self) -> Capacity:
        """What the latency profiles promise of the quality tier."""
        return Capacity(quality_capacity(self._scenario, self._variants))

    def measured_capacity(self, tick: Callable[[Step | None, float], None]) -> Capacity:
        """What the quality tier really serves; `tick` is told the age of the step under way, and of each that is over.

        Raises NothingOffered where the scenario's rate does not hang on a load.
        """
        scenario = self._scenario
        if scenario.arrivals.rate_per_s is not None or scenario.as_recorded:
            raise NothingOffered(f"{scenario.name}: its rate is given, so no load is relative to a capacity")
        promised_per_s = self.reckoned_capacity().per_s
        pinned = Handling("capacity", best_pins(scenario, self._variants), "best-effort")

        def fire(load: float) -> Step:
            short = step_scenario(scenario, load * promised_per_s)
            calls = self._calls(short, pinned, load, 1.0, seed=round(1000 * load))
            landings = self._fire(self._order(calls), lambda age_s: tick(None, age_s))
            step = step_of(load, landings, short.warmup_s, short.seconds)
            tick(step, 0.0)
            return step

        return measured_capacity(fire)

    def run(self, one: Planned, capacity: Capacity, tick: Callable[[float], None]) -> Ran:
        """Makes one run, its warm-up uncounted. Raises GeneratorFailed, NothingOffered and NoNeighbour."""
        scenario, terms = self._scenario, self._terms
        load = one.load * capacity.per_s / self.reckoned_capacity().per_s
        calls = self._calls(scenario, one.handling, load, one.cv, one.seed)
        if not any(call.due_s >= scenario.warmup_s for call in calls):
            raise NothingOffered(f"{one}: no request is due after the warm-up")
        with beside(terms.beside, terms.at_s) as neighbour:

            def age(age_s: float) -> None:
                if neighbour is not None and age_s < scenario.warmup_s + scenario.seconds:
                    neighbour.tick(age_s)
                tick(age_s)

            landings = self._fire(self._order(calls), age)
            note = neighbour.note if neighbour is not None else ""
        counted = tuple(landing for landing in landings if landing.due_s >= scenario.warmup_s)
        conditions = Conditions(
            policy=one.handling.label,
            scenario=scenario.name,
            load=one.load,
            cv=one.cv,
            seed=one.seed,
            rate_per_s=rate_of(scenario, self._variants, load),
            seconds=scenario.seconds,
            mode="live",
        )
        result = live_result(conditions, counted, self._variants, scenario.requests, capacity, note)
        return Ran(result, counted)

    def _calls(self, scenario: Scenario, handling: Handling, load: float, cv: float, seed: int) -> list[Call]:
        offered = offered_of(scenario, self._variants, load, cv, seed)
        return calls_of(offered, handling, self._stock, self._terms.shadow_share, seed)

    def _order(self, calls: Sequence[Call]) -> Order:
        longest_s = max((call.budget_s for call in calls), default=0.0)
        return Order(self._terms.url, calls, longest_s + self._terms.patience_s)
