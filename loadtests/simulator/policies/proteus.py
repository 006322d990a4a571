"""Proteus: a mixed-integer program places variants on devices and divides the demand among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from scipy.linalg import block_diag
from scipy.optimize import Bounds, LinearConstraint, milp

from loadtests.simulator.policies.batching import Profile
from loadtests.simulator.policies.central import Setting
from loadtests.simulator.policies.division import CLASSES, Divided, Division
from loadtests.simulator.policies.observed_load import BudgetClasses
from loadtests.workload.variants import Variant

HEADROOM = 1.05
"""What of the demand is planned for: the paper's β, a little more than all."""

SPARE = 1e-4
"""What a core counts beside what it serves, so that one that is not needed gets the best variant."""


@dataclass(frozen=True)
class Placement:
    """The program's data: quality of each variant, inputs per second of each class, and what a core does of them.

    `per_s[v][k]`: inputs of class k that a core with variant v serves in a second; 0 where they would be late.
    """

    qualities: tuple[float, ...]
    per_s: tuple[tuple[float, ...], ...]
    demand_per_s: tuple[float, ...]
    cores: int


@dataclass(frozen=True)
class Placed:
    """The solution: cores of each variant, and `served_per_s[v][k]` of each class."""

    cores: tuple[int, ...]
    served_per_s: tuple[tuple[float, ...], ...]


def proteus(setting: Setting) -> Divided:
    """Accuracy scaling by optimisation (Ahmad et al., "Proteus: A High-Throughput Inference-Serving System with
    Accuracy Scaling", ASPLOS 2024).

    Each period the program chooses what runs on each device, here a core, and which share of the demand goes to it, for
    the highest effective accuracy that meets the demand; where the demand cannot be met, for as much of it as can be
    (the paper lowers its β in steps until the program is feasible). A device's throughput is that of the largest batch
    that takes half the objective at most. The paper's query types, each with its own objective, are here classes of
    budgets. A batch is as large as leaves its first in time (the paper's proactive batching); nothing waits for
    companions while a core is free, as it does there, since nothing would wake it here. The program is solved
    every second, as in its authors' simulator, but in no time, on the demand of the last `WINDOW_S`, and changing a
    variant costs nothing. A busy queue drops early, as theirs does (`after_early_drop`).
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
    """Inputs per second of the largest batch that takes half a budget at most, or of one alone; 0 where it is late."""
    fitting = [0.0]
    for batch in range(1, variant.max_batch + 1):
        seconds = profile.p95_s(variant, batch, profile.setting.tokens)
        if seconds <= least_s / (2 if batch > 1 else 1):
            fitting.append(batch / seconds)
    return max(fitting)


@lru_cache(maxsize=4096)
def solved(placement: Placement) -> Placed:
    """The placement of the highest effective accuracy among those that serve as much of the demand as can be."""
    most_per_s = sum(map(sum, _solve(placement, None).served_per_s))
    return _solve(placement, most_per_s * (1 - 1e-6))


def _solve(placement: Placement, least_per_s: float | None) -> Placed:
    """Serves as much of the demand as possible or, given a least amount, serves it as well as possible.

    Columns: the cores of each variant, then what each variant serves of each class, variant by variant.
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
