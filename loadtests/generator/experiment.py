"""Makes all runs of a scenario against a live gateway, ordered so that drift affects all policies alike.

Tells a generator what to send and counts the results. Prints and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from loadtests.errors import LoadTestError
from loadtests.generator.calls import Call, Handling, Mode, Stock, calls_of
from loadtests.generator.capacity import Capacity, NothingOffered, Step, measured_capacity, step_of, step_scenario
from loadtests.generator.figures import LiveResult, live_result
from loadtests.generator.neighbour import beside
from loadtests.generator.open_loop import Fire, Order
from loadtests.generator.results import Result
from loadtests.reports.runs import Conditions
from loadtests.workload.arrivals import candidates, offered_of, quality_capacity, rate_of
from loadtests.workload.scenario import Scenario
from loadtests.workload.variants import Variant

STATIC = "static:"


class NoSuchPin(LoadTestError):
    """The gateway cannot serve a pin in this scenario; the message says what it serves."""


def own_handling(
    label: str | None, pins: Sequence[str], mode: Mode | None, scenario: Scenario, variants: Sequence[Variant]
) -> Handling:
    """A handling that pins the classes of each pin's task and leaves the others to the gateway. Raises NoSuchPin."""
    task_of = {one.name: one.task for one in variants}
    of_task: dict[str, str] = {}
    for name in pins:
        task = task_of.get(name)
        if task is None:
            raise NoSuchPin(f"{name}: the gateway serves {', '.join(sorted(task_of))}")
        if task not in scenario.tasks or task in of_task:
            raise NoSuchPin(f"{name}: {scenario.name} has no {task} request left to pin")
        of_task[task] = name
    by_class = {kind: of_task[one.task] for kind, one in enumerate(scenario.requests) if one.task in of_task}
    return Handling(label or (_static(pins) if pins else "gateway"), by_class, mode)


def best_pins(scenario: Scenario, variants: Sequence[Variant]) -> Mapping[int, str]:
    """The best eligible checkpoint of each class: the quality tier. Raises NoSuchPin."""
    return {kind: able[0].name for kind, able in enumerate(_able(scenario, variants))}


def static_handlings(scenario: Scenario, variants: Sequence[Variant], mode: Mode | None) -> tuple[Handling, ...]:
    """A handling for every combination of one checkpoint per task that may answer all the task's classes.

    With one task: each checkpoint; with two: each pair. A single-domain checkpoint counts only if all classes of its
    task name that domain. Raises NoSuchPin.
    """
    able = _able(scenario, variants)
    by_task: dict[str, list[str]] = {}
    for kind, one in enumerate(scenario.requests):
        names = [variant.name for variant in able[kind]]
        by_task[one.task] = [name for name in by_task.get(one.task, names) if name in names]
    found = []
    for together in product(*by_task.values()):
        of_task = dict(zip(by_task, together, strict=True))
        by_class = {kind: of_task[one.task] for kind, one in enumerate(scenario.requests)}
        found.append(Handling(_static(together), by_class, mode))
    return tuple(found)


def _able(scenario: Scenario, variants: Sequence[Variant]) -> list[tuple[Variant, ...]]:
    """The eligible variants of each class, best first."""
    able = [candidates(one, variants) for one in scenario.requests]
    for one, found in zip(scenario.requests, able, strict=True):
        if not found:
            raise NoSuchPin(f"{scenario.name}: the gateway serves no checkpoint for {one.task}")
    return able


def _static(names: Sequence[str]) -> str:
    return STATIC + "+".join(names)


@dataclass(frozen=True)
class Planned:
    """One planned run."""

    handling: Handling
    load: float
    cv: float
    seed: int

    def __str__(self) -> str:
        """The run's name in progress output."""
        return f"{self.handling.label}, load {self.load:g}, CV {self.cv:g}, seed {self.seed}"


@dataclass(frozen=True)
class Terms:
    """Settings of all runs.

    `patience_s`: how long to wait for an answer after its budget. `shadow_share`: the share of refused strict requests
    to send once more. `beside`: a command to start at second `at_s` of a run.
    """

    url: str
    patience_s: float = 10.0
    shadow_share: float = 0.1
    beside: tuple[str, ...] | None = None
    at_s: float = 0.0


@dataclass(frozen=True)
class Ran:
    """One run's figures, and the outcome of each counted request."""

    result: LiveResult
    results: tuple[Result, ...]


def planned(scenario: Scenario, handlings: Sequence[Handling]) -> tuple[Planned, ...]:
    """All runs: every handling at every load and coefficient of variation under every seed.

    Handlings rotate within a seed, and each seed starts with another: none always runs first or after the same one.
    """
    runs: list[Planned] = []
    places = [(load, cv) for load in scenario.loads for cv in scenario.cvs]
    for turn, seed in enumerate(scenario.seeds):
        for at, (load, cv) in enumerate(places):
            first = (turn + at) % len(handlings)
            runs += [Planned(one, load, cv, seed) for one in (*handlings[first:], *handlings[:first])]
    return tuple(runs)


class Experiment:
    """A scenario, the variants behind a gateway, and the generator that sends requests to it."""

    def __init__(self, scenario: Scenario, variants: Sequence[Variant], stock: Stock, terms: Terms, fire: Fire) -> None:
        self._scenario = scenario
        self._variants = variants
        self._stock = stock
        self._terms = terms
        self._fire = fire

    def reckoned_capacity(self) -> Capacity:
        """The quality tier's capacity, computed from the latency profiles."""
        return Capacity(quality_capacity(self._scenario, self._variants))

    def measured_capacity(self, tick: Callable[[Step | None, float], None]) -> Capacity:
        """Measures the quality tier's capacity; `tick` gets each finished step, and the age of the current one.

        Raises NothingOffered if the scenario's rate is fixed.
        """
        scenario = self._scenario
        if scenario.arrivals.rate_per_s is not None or scenario.as_recorded:
            raise NothingOffered(f"{scenario.name}: its rate is fixed, so its loads need no capacity")
        promised_per_s = self.reckoned_capacity().per_s
        pinned = Handling("capacity", best_pins(scenario, self._variants), "best-effort")

        def fire(load: float) -> Step:
            short = step_scenario(scenario, load * promised_per_s)
            calls = self._calls(short, pinned, load, 1.0, seed=round(1000 * load))
            results = self._fire(self._order(calls, pinned), lambda age_s: tick(None, age_s))
            step = step_of(load, results, short.warmup_s, short.seconds)
            tick(step, 0.0)
            return step

        return measured_capacity(fire)

    def run(self, one: Planned, capacity: Capacity, tick: Callable[[float], None]) -> Ran:
        """Makes one run and drops its warm-up. Raises GeneratorFailed, NothingOffered and NoNeighbour."""
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

            results = self._fire(self._order(calls, one.handling), age)
            note = neighbour.note if neighbour is not None else ""
        counted = tuple(result for result in results if result.due_s >= scenario.warmup_s)
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

    def _order(self, calls: Sequence[Call], handling: Handling) -> Order:
        longest_s = max((call.budget_s for call in calls), default=0.0)
        return Order(handling.url or self._terms.url, calls, longest_s + self._terms.patience_s)
