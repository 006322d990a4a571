"""Runs of made-up policies, similar to those of a simulator, for tests of tables, plots and pages."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.model.tier import Tier
from loadtests.reports.runs import Conditions, Recorded, RunResult, Sample, recorded, result_of
from loadtests.workload.arrivals import Fate
from loadtests.workload.scenario import CatalogSource, RequestClass, Scenario


@dataclass(frozen=True)
class Checkpoint:
    """What a run knows of a variant."""

    name: str
    task: str
    quality: float
    tier: Tier


CATALOG = (
    Checkpoint("small", "classify", 70.0, Tier.REALTIME),
    Checkpoint("middle", "classify", 80.0, Tier.BALANCED),
    Checkpoint("large", "classify", 90.0, Tier.QUALITY),
)
CLASSES = (
    RequestClass(share=3, budget_ms=(20, 60)),
    RequestClass(budget_ms=(60, 400), words=(20, 200), mode="strict", percentile=99),
)
POLICIES = {
    "oracle": 1.35,
    "oracle-feasible": 1.25,
    "punctual": 1.15,
    "slack-greedy": 1.05,
    "jellyfish": 1.0,
    "proteus": 0.95,
    "modelswitch": 0.9,
    "least-loaded": 0.8,
    "static-small": 0.7,
    "static-middle": 0.6,
    "static-large": 0.4,
}
"""The load that each policy can bear."""


def scenario(loads: Sequence[float] = (0.5, 1.0, 1.5, 2.0), cvs: Sequence[float] = (0.5, 1.0, 2.0)) -> Scenario:
    """Return the scenario of the runs."""
    return Scenario(
        name="sketched",
        about="Short budgets beside long ones <made up>, to see how a page looks.",
        seconds=20.0,
        loads=tuple(loads),
        cvs=tuple(cvs),
        catalog=CatalogSource(manifests="starter"),
        requests=CLASSES,
    )


def samples(conditions: Conditions, strength: float, count: int) -> list[Sample]:
    """Return requests over the run's seconds: the more load a policy bears, the better and earlier its answers."""
    chance = random.Random(f"{conditions.seed} {conditions.load} {conditions.cv}")
    strain = conditions.load * (0.7 + 0.3 * conditions.cv) / strength
    return [_sample(chance, strain, conditions.seconds * at / count) for at in range(count)]


def run(
    policy: str = "punctual", load: float = 1.0, cv: float = 1.0, seed: int = 1, count: int = 400, valid: bool = True
) -> Recorded:
    """Return one run with its samples."""
    conditions = Conditions(policy, "sketched", load, cv, seed, rate_per_s=count / 20, seconds=20.0)
    of = samples(conditions, POLICIES.get(policy, 1.0), count)
    note = "" if valid else "the generator sent late: p99 12.1 ms"
    return recorded(result_of(conditions, of, CATALOG, CLASSES, valid=valid, note=note), of)


def all_runs(of: Scenario, policies: Sequence[str] = tuple(POLICIES), count: int = 400) -> list[Recorded]:
    """Return every policy under all conditions and seeds."""
    return [
        run(policy, load, cv, seed, count)
        for policy in policies
        for cv in of.cvs
        for load in of.loads
        for seed in of.seeds
    ]


def results(of: Sequence[Recorded]) -> list[RunResult]:
    """Return the results without their samples."""
    return [one.result for one in of]


def _sample(chance: random.Random, strain: float, arrived_s: float) -> Sample:
    kind = int(chance.random() < 0.25)
    low, high = CLASSES[kind].budget_ms
    budget_s = chance.uniform(low, high) / 1000
    shift = 3 * (1.1 - strain) + chance.gauss(0, 1)
    one = CATALOG[2 if shift > 0 else 1 if shift > -1.2 else 0]
    latency_s = (0.004 + 0.006 * one.tier.rank) * math.exp(chance.gauss(0.2, 0.4)) * (1 + max(0.0, strain - 0.8) ** 2)
    quantile_s = latency_s * math.exp(chance.gauss(0.7, 0.42))
    if strain > 1 and chance.random() < 0.3 * (strain - 1):
        return Sample(kind, arrived_s, budget_s, Fate.REFUSED if kind else Fate.FAILED)
    fate = Fate.IN_TIME if latency_s <= budget_s else Fate.LATE
    return Sample(kind, arrived_s, budget_s, fate, latency_s, one.name, one.tier, latency_s * 0.9, quantile_s)
