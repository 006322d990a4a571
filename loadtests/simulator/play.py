"""One simulated run: a scenario's requests at one load, one policy before the node, and what became of them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean

import msgspec

from loadtests.results.counting import result_of
from loadtests.results.run import Conditions, Recorded, Sample, recorded, sample_of
from loadtests.scenarios.arrivals import offered_of
from loadtests.scenarios.capacity import rate_of
from loadtests.scenarios.model import Scenario, tokens_of
from loadtests.simulator.baselines.registry import BASELINES, statics
from loadtests.simulator.central import Central, RuleMaker, Setting
from loadtests.simulator.clairvoyant import clairvoyant
from loadtests.simulator.errors import NothingCounted, UnknownPolicy
from loadtests.simulator.ours import Punctual, Setup
from loadtests.simulator.requests import Fate, Offered
from loadtests.simulator.variants import Variant
from loadtests.simulator.world import Policy, World

OURS = "punctual"
BOUND, FEASIBLE = "clairvoyant", "clairvoyant-feasible"
STATIC = "static:"

_BUDGETS = 512


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a scenario's grid a run stands."""

    load: float
    cv: float
    seed: int


def policies_of(scenario: Scenario, variants: Sequence[Variant]) -> tuple[str, ...]:
    """The names of all policies for a scenario: ours, the published, the bound, and the static choices.

    A static choice has one variant for each task, `static:NAME+NAME` where there are two.
    """
    general = _general(variants)
    choices = product(*([one.name for one in general if one.task == task] for task in sorted(scenario.tasks)))
    return (OURS, *BASELINES, *(STATIC + "+".join(names) for names in choices), BOUND)


def played(
    scenario: Scenario, variants: Sequence[Variant], policy: str, place: Place, offered: Sequence[Offered] | None = None
) -> list[Recorded]:
    """The run's result; the bound's has a second one beside it, of a schedule that reaches the lower end.

    Equal arguments, equal results. `offered` is for who wants to see what became of each request: those of
    `offered_at`, not yet played. Raises UnknownPolicy, NothingCounted and ScenarioError.
    """
    offered = offered_at(scenario, variants, place) if offered is None else offered
    if not any(_counted(scenario, request) for request in offered):
        where = f"load {place.load:g}, CV {place.cv:g}, seed {place.seed}"
        raise NothingCounted(f"{scenario.name}: no request is counted at {where}; the run needs more seconds or load")
    if policy == BOUND:
        return _bounded(scenario, variants, offered, place)
    rate_per_s = rate_of(scenario, variants, place.load)
    world = _world(scenario, place)
    world.play(offered, _made(policy, world, scenario, variants, rate_per_s))
    return [_recorded(scenario, variants, offered, policy, place, rate_per_s)]


def insisted(scenario: Scenario, variants: Sequence[Variant], place: Place, sequence: int) -> Fate:
    """What becomes of one request of our run where it is admitted, whatever is forecast for it.

    All before it is as in the run itself; the run ends with it.
    """
    offered = offered_at(scenario, variants, place)
    world = _world(scenario, place)
    policy = Punctual(world, variants, scenario.node.cores, _setup(scenario), insist=frozenset((sequence,)))
    world.play(offered, policy, until=offered[sequence])
    return offered[sequence].fate


def offered_at(scenario: Scenario, variants: Sequence[Variant], place: Place) -> list[Offered]:
    """The requests that every policy meets at a place, by their sequence; not yet played."""
    return offered_of(scenario, variants, place.load, place.cv, place.seed)


def _world(scenario: Scenario, place: Place) -> World:
    node = scenario.node
    world = World(node.cores, place.seed, node.overhead_core_ms / 1000, node.served_core_ms / 1000)
    world.node.steal(node.others_cores)
    return world


def _setup(scenario: Scenario) -> Setup:
    ingress = scenario.ingress
    return Setup(ingress.count, ingress.report_delay_ms / 1000, scenario.node.overhead_ms / 1000)


def _made(policy: str, world: World, scenario: Scenario, variants: Sequence[Variant], rate_per_s: float) -> Policy:
    cores = scenario.node.cores
    if policy == OURS:
        return Punctual(world, variants, cores, _setup(scenario))
    general = _general(variants)
    of_task = {task: tuple(one for one in general if one.task == task) for task in sorted(scenario.tasks)}
    makers = _makers(policy, of_task)
    if makers is None:
        raise UnknownPolicy(policy, *policies_of(scenario, variants))
    rules = {task: makers[task](_setting(scenario, task, of, rate_per_s)) for task, of in of_task.items()}
    return Central(world, rules, cores, scenario.node.overhead_ms / 1000)


def _makers(policy: str, of_task: Mapping[str, tuple[Variant, ...]]) -> Mapping[str, RuleMaker] | None:
    """The published policy of that name for each task, or the static choice of one variant for each."""
    if policy in BASELINES:
        return dict.fromkeys(of_task, BASELINES[policy])
    chosen = {name: maker for of in of_task.values() for name, maker in statics(of).items()}
    names = [f"{STATIC}{name}" for name in policy.removeprefix(STATIC).split("+")]
    if not policy.startswith(STATIC) or len(names) != len(of_task) or any(name not in chosen for name in names):
        return None
    return {task: chosen[name] for task, name in zip(of_task, names, strict=True)}


def _setting(scenario: Scenario, task: str, variants: tuple[Variant, ...], rate_per_s: float) -> Setting:
    """What a published policy may know of one task beforehand."""
    classes = [one for one in scenario.requests if one.task == task]
    shares = [one.share for one in classes]
    chance = random.Random(f"{scenario.name} {task}")
    drawn = chance.choices(classes, shares, k=_BUDGETS)
    return Setting(
        variants=variants,
        cores=scenario.node.cores,
        rate_per_s=rate_per_s * sum(shares) / sum(one.share for one in scenario.requests),
        budgets_s=tuple(chance.uniform(*one.budget_ms) / 1000 for one in drawn),
        tokens=round(fmean(tokens_of(sum(one.words) / 2) for one in drawn)),
        overhead_s=scenario.node.overhead_ms / 1000,
    )


def _general(variants: Sequence[Variant]) -> tuple[Variant, ...]:
    """Those for any request; published policies know of no domains."""
    return tuple(one for one in variants if one.domain is None)


def _counted(scenario: Scenario, request: Offered) -> bool:
    return request.arrived_s >= scenario.warmup_s


def _recorded(
    scenario: Scenario,
    variants: Sequence[Variant],
    offered: Sequence[Offered],
    policy: str,
    place: Place,
    rate_per_s: float,
) -> Recorded:
    tiers = {one.name: one.tier for one in variants}
    counted = [request for request in offered if _counted(scenario, request)]
    samples: list[Sample] = [sample_of(one, tiers, one.predicted_s, one.quantile_s) for one in counted]
    conditions = Conditions(
        policy, scenario.name, place.load, place.cv, place.seed, rate_per_s, scenario.seconds, "simulated"
    )
    wasted_s = sum(request.engine_s for request in counted if request.fate is not Fate.IN_TIME)
    return recorded(result_of(conditions, samples, variants, scenario.requests, wasted_core_s=wasted_s), samples)


def _bounded(
    scenario: Scenario, variants: Sequence[Variant], offered: Sequence[Offered], place: Place
) -> list[Recorded]:
    """The bound's two ends: what nobody can pass, and a schedule that could be run by who knew everything."""
    best = {task: max(one.quality for one in variants if one.task == task) for task in scenario.tasks}
    mixed = len(best) > 1

    def utility(variant: Variant) -> float:
        return variant.quality / best[variant.task] if mixed else variant.quality

    overhead_s = scenario.node.overhead_ms / 1000
    bound = clairvoyant(
        offered, variants, scenario.node.cores, overhead_s, lambda one: _counted(scenario, one), utility
    )
    for run in bound.schedule:
        for request in run.members:
            request.fate, request.variant, request.finished_s = Fate.IN_TIME, run.variant.name, run.ends_s + overhead_s
            request.engine_s = (run.ends_s - run.begins_s) / len(run.members)
    for request in offered:
        if request.fate is Fate.OPEN:
            request.fate = Fate.REFUSED
    feasible = _recorded(scenario, variants, offered, FEASIBLE, place, rate_of(scenario, variants, place.load))
    most = msgspec.structs.replace(
        feasible.result,
        policy=BOUND,
        effective_quality=min(bound.upper / feasible.result.offered, max(map(utility, variants))),
        by_variant={},
        by_tier={},
        note="an upper bound on effective quality; its other figures are those of the schedule that comes near it",
    )
    return [replace(feasible, result=most, samples=()), feasible]
