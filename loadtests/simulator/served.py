"""A published policy as the scheduler of a live gateway, with what it knows in advance from a scenario.

A gateway picks it up by value in every ingress process; it opens nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.catalogs.catalog import Catalog
from gateway.model.faults import Note
from gateway.scheduling.ruled import RuledScheduler
from gateway.scheduling.scheduler import Decider, Scheduler
from loadtests.simulator.policies.registry import BASELINES, statics
from loadtests.simulator.policies.setting import RuleMaker, Setting
from loadtests.simulator.simulation import OURS, STATIC, Place, Simulation, UnknownPolicy
from loadtests.workload.scenario import read_scenario
from loadtests.workload.variants import Variant, manifest_variants

KNOWN = "live-classify"
"""The scenario whose budgets and rates a policy expects, unless another is named."""

_OTHER_RATE_PER_S, _OTHER_TOKENS = 1.0, 64
"""What a policy expects of a task that its scenario does not have: requests a second, and tokens."""


@dataclass(frozen=True)
class PublishedPolicy:
    """Makes the scheduler of one published policy, by its name in `punctual simulate`."""

    makers: Mapping[str, RuleMaker]
    settings: Mapping[str, Setting]

    def __call__(self, deciders: Mapping[str, Decider], note: Note) -> Scheduler:
        """Makes a scheduler with a rule of its own for each task."""
        rules = {task: self.makers[task](self.settings[task]) for task in deciders}
        return RuledScheduler(deciders, note, rules=rules)


def published(
    policy: str, catalog: Catalog, variants: Mapping[str, Path], scenario: str, cores: int
) -> PublishedPolicy:
    """Finds a policy for a catalog's variants, by their folders.

    `static:NAME` keeps one checkpoint for its task; other tasks keep their best. Raises UnknownPolicy and
    ScenarioError.
    """
    of_task: dict[str, tuple[Variant, ...]] = {}
    for one in manifest_variants(catalog, variants):
        if one.domain is None:
            of_task[one.task] = (*of_task.get(one.task, ()), one)
    simulation = Simulation(read_scenario(scenario), tuple(one for of in of_task.values() for one in of))
    known = simulation.settings(Place(1.0, 1.0, 1), cores)
    settings = {
        task: known.get(task) or Setting(of, cores, _OTHER_RATE_PER_S, (catalog.budget_s(task),), _OTHER_TOKENS, 0.0)
        for task, of in of_task.items()
    }
    return PublishedPolicy({task: _maker(policy, of, of_task) for task, of in of_task.items()}, settings)


def _maker(policy: str, variants: tuple[Variant, ...], of_task: Mapping[str, tuple[Variant, ...]]) -> RuleMaker:
    if policy in BASELINES:
        return BASELINES[policy]
    choices = {name: maker for of in of_task.values() for name, maker in statics(of).items()}
    if policy not in choices:
        raise UnknownPolicy(policy, OURS, *BASELINES, *choices)
    own = statics(variants)
    return own.get(policy) or own[STATIC + variants[0].name]
