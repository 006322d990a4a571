"""One simulated run: a scenario's requests at one load, one policy before the node, and what became of them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean

import msgspec

from loadtests.errors import LoadTestError
from loadtests.reports.runs import Conditions, Recorded, recorded, result_of, sample_of
from loadtests.simulator.gateway import Punctual, Setup
from loadtests.simulator.oracle.bound import oracle_bound
from loadtests.simulator.policies.central import Central, RuleMaker, Setting
from loadtests.simulator.policies.registry import BASELINES, statics
from loadtests.simulator.world import Policy, World
from loadtests.workload.arrivals import Fate, Offered, offered_of, rate_of
from loadtests.workload.scenario import Scenario, tokens_of
from loadtests.workload.variants import Variant

OURS = "punctual"
BOUND, FEASIBLE = "oracle", "oracle-feasible"
STATIC = "static:"

_BUDGETS = 512
"""How many budgets a published policy has seen of a task beforehand."""


class UnknownPolicy(LoadTestError):
    """Asked to play a policy that there is not for this scenario. Its arguments: the name, and those that there are.

    Only arguments make it, since it crosses processes.
    """

    def __str__(self) -> str:
        """A sentence with the names to choose from."""
        policy, *known = self.args
        return f"policy {policy}: there is none of that name for this scenario; there are {', '.join(known)}"


class NothingCounted(LoadTestError):
    """No request arrives in the counted part of a run; the message says which run."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a scenario's grid a run stands."""

    load: float
    cv: float
    seed: int

    def __str__(self) -> str:
        """As messages name it."""
        return f"load {self.load:g}, CV {self.cv:g}, seed {self.seed}"


@dataclass(frozen=True)
class Simulation:
    """A scenario and the variants that serve it. Equal simulations play equal runs, in whatever process."""

    scenario: Scenario
    variants: tuple[Variant, ...]

    @property
    def policies(self) -> tuple[str, ...]:
        """The names of all policies: ours, the published, the static choices, and the bound.

        A static choice has one variant for each task, `static:NAME+NAME` where there are two.
        """
        choices = product(*([one.name for one in of] for of in self._by_task().values()))
        return (OURS, *BASELINES, *(STATIC + "+".join(names) for names in choices), BOUND)

    def offered(self, place: Place) -> list[Offered]:
        """The requests that every policy meets at a place, by their sequence; not yet played."""
        return offered_of(self.scenario, self.variants, place.load, place.cv, place.seed)

    def counted(self, request: Offered) -> bool:
        """Whether it arrives after the warm-up."""
        return request.arrived_s >= self.scenario.warmup_s

    def played(self, policy: str, place: Place, offered: Sequence[Offered] | None = None) -> list[Recorded]:
        """The run's result; the bound has a second one, of a schedule that comes near it.

        Hand in the requests of `offered`, not yet played, to see what became of each. Raises UnknownPolicy,
        NothingCounted and ScenarioError.
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
        """What becomes of one request of our run where it is admitted, whatever is forecast for it.

        All before it is as in the run itself; the run ends with it.
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
        rules = {task: makers[task](self._setting(task, of, place)) for task, of in of_task.items()}
        return Central(world, rules, node.cores, node.overhead_ms / 1000)

    def _by_task(self) -> dict[str, tuple[Variant, ...]]:
        """The variants of each task for any request; published policies know of no domains."""
        general = [one for one in self.variants if one.domain is None]
        return {task: tuple(one for one in general if one.task == task) for task in sorted(self.scenario.tasks)}

    def _setting(self, task: str, variants: tuple[Variant, ...], place: Place) -> Setting:
        """What a published policy may know of one task beforehand."""
        scenario = self.scenario
        classes = [one for one in scenario.requests if one.task == task]
        shares = [one.share for one in classes]
        chance = random.Random(f"{scenario.name} {task}")
        drawn = chance.choices(classes, shares, k=_BUDGETS)
        rate_per_s = rate_of(scenario, self.variants, place.load)
        return Setting(
            variants=variants,
            cores=scenario.node.cores,
            rate_per_s=rate_per_s * sum(shares) / sum(one.share for one in scenario.requests),
            budgets_s=tuple(chance.uniform(*one.budget_ms) / 1000 for one in drawn),
            tokens=round(fmean(tokens_of(sum(one.words) / 2) for one in drawn)),
            overhead_s=scenario.node.overhead_ms / 1000,
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
        """The oracle's two ends: what no policy can pass, and a schedule that could be run with all known."""
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
    """The published policy of that name for each task, or the static choice of one variant for each."""
    if policy in BASELINES:
        return dict.fromkeys(of_task, BASELINES[policy])
    chosen = {name: maker for of in of_task.values() for name, maker in statics(of).items()}
    names = [f"{STATIC}{name}" for name in policy.removeprefix(STATIC).split("+")]
    if not policy.startswith(STATIC) or len(names) != len(of_task) or any(name not in chosen for name in names):
        return None
    return {task: chosen[name] for task, name in zip(of_task, names, strict=True)}
