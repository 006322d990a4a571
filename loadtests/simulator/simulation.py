"""One simulated run: a scenario's requests at one load, under one policy, and their outcomes."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean

import msgspec

from loadtests.errors import LoadTestError
from loadtests.reports.runs import Conditions, Recorded, recorded, result_of, sample_of
from loadtests.simulator.gateway import Punctual, Ruled, Setup
from loadtests.simulator.oracle.bound import oracle_bound
from loadtests.simulator.policies.registry import BASELINES, statics
from loadtests.simulator.policies.setting import MOST_TRIED, RuleMaker, Setting
from loadtests.simulator.world import Policy, World
from loadtests.workload.arrivals import Fate, Offered, offered_of, rate_of
from loadtests.workload.scenario import Scenario, tokens_of
from loadtests.workload.variants import Variant

OURS = "punctual"
BOUND, FEASIBLE = "oracle", "oracle-feasible"
STATIC = "static:"

_BUDGETS = 512
"""The size of the budget sample that a published policy knows of a task in advance."""


class UnknownPolicy(LoadTestError):
    """The scenario has no policy of that name. Arguments: the name, and the known names.

    Takes positional arguments only, so that it can be pickled.
    """

    def __str__(self) -> str:
        """A sentence with the names to choose from."""
        policy, *known = self.args
        return f"policy {policy}: unknown for this scenario; known: {', '.join(known)}"


class NothingCounted(LoadTestError):
    """No request arrives after the warm-up of a run; the message names the run."""


@dataclass(frozen=True, slots=True)
class Place:
    """One point of a scenario's grid."""

    load: float
    cv: float
    seed: int

    def __str__(self) -> str:
        """The place as messages name it."""
        return f"load {self.load:g}, CV {self.cv:g}, seed {self.seed}"


@dataclass(frozen=True)
class Simulation:
    """A scenario and its variants. Equal simulations give equal runs, in any process.

    Published policies that try variants offline try each with `most_tried` requests at most.
    """

    scenario: Scenario
    variants: tuple[Variant, ...]
    most_tried: int = MOST_TRIED

    @property
    def policies(self) -> tuple[str, ...]:
        """The names of all policies: ours, the published ones, the static choices and the bound.

        A static choice has one variant per task: `static:NAME+NAME` for two tasks.
        """
        choices = product(*([one.name for one in of] for of in self._by_task().values()))
        return (OURS, *BASELINES, *(STATIC + "+".join(names) for names in choices), BOUND)

    def offered(self, place: Place) -> list[Offered]:
        """The requests at a place, the same for every policy, by sequence; not yet simulated."""
        return offered_of(self.scenario, self.variants, place.load, place.cv, place.seed)

    def counted(self, request: Offered) -> bool:
        """True if the request arrives after the warm-up."""
        return request.arrived_s >= self.scenario.warmup_s

    def played(self, policy: str, place: Place, offered: Sequence[Offered] | None = None) -> list[Recorded]:
        """Simulates a run and returns its result; the bound also returns that of its schedule.

        Pass fresh requests from `offered` to inspect the outcome of each. Raises UnknownPolicy, NothingCounted and
        ScenarioError.
        """
        requests = self.offered(place) if offered is None else offered
        if not any(map(self.counted, requests)):
            name = self.scenario.name
            raise NothingCounted(f"{name}: no request is counted at {place}; the run needs more seconds or load")
        if policy == BOUND:
            return self._bounded(requests, place)
        world = self._world(place)
        world.play(requests, self._made(policy, world, place))
        return [self._recorded(requests, policy, place)]

    def insisted(self, place: Place, sequence: int) -> Fate:
        """The outcome of one request of our run if it is admitted, whatever its forecast.

        The run is unchanged before that request and ends with it.
        """
        offered, world = self.offered(place), self._world(place)
        world.play(offered, self._ours(world, frozenset((sequence,))), until=offered[sequence])
        return offered[sequence].fate

    def _world(self, place: Place) -> World:
        node = self.scenario.node
        world = World(node.cores, place.seed, node.overhead_core_ms / 1000, node.served_core_ms / 1000)
        world.node.steal(node.others_cores)
        return world

    def _ours(self, world: World, insist: frozenset[int] = frozenset()) -> Policy:
        ingress, node = self.scenario.ingress, self.scenario.node
        setup = Setup(ingress.count, ingress.report_delay_ms / 1000, node.overhead_ms / 1000)
        return Punctual(world, self.variants, node.cores, setup, insist)

    def _made(self, policy: str, world: World, place: Place) -> Policy:
        if policy == OURS:
            return self._ours(world)
        of_task, node = self._by_task(), self.scenario.node
        makers = _makers(policy, of_task)
        if makers is None:
            raise UnknownPolicy(policy, *self.policies)
        settings = self.settings(place, node.cores)
        rules = {task: makers[task](settings[task]) for task in of_task}
        general = [one for of in of_task.values() for one in of]
        return Ruled(world, general, rules, node.cores, node.overhead_ms / 1000)

    def _by_task(self) -> dict[str, tuple[Variant, ...]]:
        """The variants of each task that serve all domains; published policies know no domains."""
        general = [one for one in self.variants if one.domain is None]
        return {task: tuple(one for one in general if one.task == task) for task in sorted(self.scenario.tasks)}

    def settings(self, place: Place, cores: int) -> Mapping[str, Setting]:
        """What a published policy knows in advance of each task of the scenario."""
        return {task: self._setting(task, of, place, cores) for task, of in self._by_task().items() if of}

    def _setting(self, task: str, variants: tuple[Variant, ...], place: Place, cores: int) -> Setting:
        scenario = self.scenario
        classes = [one for one in scenario.requests if one.task == task]
        shares = [one.share for one in classes]
        chance = random.Random(f"{scenario.name} {task}")
        drawn = chance.choices(classes, shares, k=_BUDGETS)
        rate_per_s = rate_of(scenario, self.variants, place.load)
        return Setting(
            variants=variants,
            cores=cores,
            rate_per_s=rate_per_s * sum(shares) / sum(one.share for one in scenario.requests),
            budgets_s=tuple(chance.uniform(*one.budget_ms) / 1000 for one in drawn),
            tokens=round(fmean(tokens_of(sum(one.words) / 2) for one in drawn)),
            overhead_s=scenario.node.overhead_ms / 1000,
            most_tried=self.most_tried,
        )

    def _recorded(self, offered: Sequence[Offered], policy: str, place: Place) -> Recorded:
        scenario = self.scenario
        tiers = {one.name: one.tier for one in self.variants}
        counted = [request for request in offered if self.counted(request)]
        samples = [sample_of(one, tiers, one.predicted_s, one.quantile_s) for one in counted]
        rate_per_s = rate_of(scenario, self.variants, place.load)
        conditions = Conditions(policy, scenario.name, place.load, place.cv, place.seed, rate_per_s, scenario.seconds)
        wasted_s = sum(request.engine_s for request in counted if request.fate is not Fate.IN_TIME)
        result = result_of(conditions, samples, self.variants, scenario.requests, wasted_core_s=wasted_s)
        return recorded(result, samples)

    def _bounded(self, offered: Sequence[Offered], place: Place) -> list[Recorded]:
        """The two ends of the oracle's bound: the upper bound, and a feasible schedule with all requests known."""
        best = {task: max(one.quality for one in self.variants if one.task == task) for task in self.scenario.tasks}

        def utility(variant: Variant) -> float:
            return variant.quality / best[variant.task] if len(best) > 1 else variant.quality

        cores, overhead_s = self.scenario.node.cores, self.scenario.node.overhead_ms / 1000
        bound = oracle_bound(offered, self.variants, cores, overhead_s, self.counted, utility)
        for run in bound.schedule:
            for request in run.members:
                request.fate, request.variant = Fate.IN_TIME, run.variant.name
                request.finished_s = run.ends_s + overhead_s
                request.engine_s = (run.ends_s - run.begins_s) / len(run.members)
        for request in offered:
            if request.fate is Fate.OPEN:
                request.fate = Fate.REFUSED
        feasible = self._recorded(offered, FEASIBLE, place)
        most = msgspec.structs.replace(
            feasible.result,
            policy=BOUND,
            effective_quality=min(bound.upper / feasible.result.offered, max(map(utility, self.variants))),
            by_variant={},
            by_tier={},
            note="an upper bound on effective quality; its other figures are those of the schedule that comes near it",
        )
        return [replace(feasible, result=most, samples=()), feasible]


def _makers(policy: str, of_task: Mapping[str, tuple[Variant, ...]]) -> Mapping[str, RuleMaker] | None:
    """The published policy of that name, or the static choice, for each task; None if unknown."""
    if policy in BASELINES:
        return dict.fromkeys(of_task, BASELINES[policy])
    chosen = {name: maker for of in of_task.values() for name, maker in statics(of).items()}
    names = [f"{STATIC}{name}" for name in policy.removeprefix(STATIC).split("+")]
    if not policy.startswith(STATIC) or len(names) != len(of_task) or any(name not in chosen for name in names):
        return None
    return {task: chosen[name] for task, name in zip(of_task, names, strict=True)}
