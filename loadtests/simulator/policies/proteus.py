"""Proteus: a mixed-integer program assigns variants to devices and demand to variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from scipy.linalg import block_diag
from scipy.optimize import Bounds, LinearConstraint, milp

from loadtests.simulator.policies.batching import Profile
from loadtests.simulator.policies.division import CLASSES, Divided, Division
from loadtests.simulator.policies.observed_load import BudgetClasses
from loadtests.simulator.policies.setting import Setting
from loadtests.workload.variants import Variant

HEADROOM = 1.05
"""The multiple of the demand that is planned for: the paper's β."""

SPARE = 1e-4
"""The objective's small weight of an unused core's quality, so that it gets the best variant."""


@dataclass(frozen=True)
class Placement:
    """The program's data: the quality of each variant, the demand of each class in inputs/s, and throughputs.

    `per_s[v][k]`: inputs of class k that a core with variant v serves per second; 0 if they would be late.
    """

    qualities: tuple[float, ...]
    per_s: tuple[tuple[float, ...], ...]
    demand_per_s: tuple[float, ...]
    cores: int


@dataclass(frozen=True)
class Placed:
    """The solution: the cores of each variant, and `served_per_s[v][k]`, the inputs/s of class k on variant v."""

    cores: tuple[int, ...]
    served_per_s: tuple[tuple[float, ...], ...]


def proteus(setting: Setting) -> Divided:
    """Accuracy scaling by optimisation.

    Source: Ahmad et al., "Proteus: A High-Throughput Inference-Serving System with Accuracy Scaling", ASPLOS 2024.

    Each period the program chooses the variant of each device, here a core, and its share of the demand, for the
    highest effective accuracy that meets the demand. If the demand cannot be met, it serves as much as it can (the
    paper lowers its β in steps until the program is feasible). A device's throughput is that of the largest batch that
    takes at most half the objective. The paper's query types, each with its own objective, are budget classes here. A
    batch is as large as keeps its first request in time (the paper's proactive batching). Nothing waits for companions
    while a core is free, as it does in the paper, since nothing would wake it here. The program is solved every second,
    as in its authors' simulator, but in no time, on the demand of the last `WINDOW_S`; changing a variant is free. A
    busy queue drops early, as theirs does (`after_early_drop`).
    """
    profile, classes = Profile(setting), BudgetClasses(setting, CLASSES)
    per_s = tuple(tuple(map(partial(_throughput, profile, variant), classes.least_s)) for variant in setting.variants)
    qualities = tuple(variant.quality for variant in setting.variants)

    def plan(demand_per_s: Sequence[float]) -> Division:
        placed = solved(Placement(qualities, per_s, tuple(demand_per_s), setting.cores))
        names = [variant.name for variant in setting.variants]
        cores = dict(zip(names, placed.cores, strict=True))
        shares = tuple(
            {
                name: served[place]
                for name, served in zip(names, placed.served_per_s, strict=True)
                if served[place] > 1e-9
            }
            for place in range(len(classes.least_s))
        )
        return Division(cores, shares)

    return Divided(setting, classes, plan)


def _throughput(profile: Profile, variant: Variant, least_s: float) -> float:
    """Inputs/s of the largest batch that takes at most half of `least_s`, or of one input alone; 0 if that is late."""
    fitting = [0.0]
    for batch in range(1, variant.max_batch + 1):
        seconds = profile.p95_s(variant, batch, profile.setting.tokens)
        if seconds <= least_s / (2 if batch > 1 else 1):
            fitting.append(batch / seconds)
    return max(fitting)


@lru_cache(maxsize=4096)
def solved(placement: Placement) -> Placed:
    """The placement of the highest effective accuracy among those that serve the most demand."""
    most_per_s = sum(map(sum, _solve(placement, None).served_per_s))
    return _solve(placement, most_per_s * (1 - 1e-6))


def _solve(placement: Placement, least_per_s: float | None) -> Placed:
    """Maximises the demand served or, given `least_per_s` of it, the accuracy.

    Columns: the cores of each variant, then the inputs/s of each class on each variant, variant by variant.
    """
    per_s = np.array(placement.per_s)
    qualities = np.array(placement.qualities)
    arriving = HEADROOM * np.array(placement.demand_per_s)
    variants, classes = per_s.shape
    able = per_s > 0
    core_s = np.where(able, 1 / np.where(able, per_s, 1.0), 0.0)
    every_core = np.repeat([1.0, 0.0], [variants, variants * classes])
    work = np.hstack([-np.eye(variants), block_diag(*core_s)])
    by_class = np.hstack([np.zeros((classes, variants)), np.tile(np.eye(classes), variants)])
    constraints = [
        LinearConstraint(every_core, placement.cores, placement.cores),
        LinearConstraint(work, -np.inf, 0),
        LinearConstraint(by_class, -np.inf, arriving),
    ]
    utility = everything = 1.0 - every_core
    if least_per_s is not None:
        constraints.append(LinearConstraint(everything, least_per_s, np.inf))
        utility = np.concatenate([SPARE * qualities, np.repeat(qualities, classes)])
    most = np.concatenate([np.full(variants, placement.cores), np.where(able, arriving, 0.0).ravel()])
    found = milp(-utility, integrality=every_core, bounds=Bounds(0, most), constraints=constraints).x
    served_per_s = np.maximum(found[variants:], 0.0).reshape(variants, classes)
    return Placed(tuple(map(round, found[:variants])), tuple(map(tuple, served_per_s.tolist())))
