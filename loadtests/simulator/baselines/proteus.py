"""Proteus: a mixed-integer program places variants on devices and divides the demand among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import highspy

from loadtests.simulator.baselines.division import CLASSES, Divided, Division
from loadtests.simulator.baselines.known import BudgetClasses, Profile
from loadtests.simulator.central import Setting

HEADROOM = 1.05
"""What of the demand is planned for: the paper's β, a little more than all."""


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
    variant costs nothing. A busy queue drops early, as theirs does (`past_the_tight`).
    """
    profile, classes = Profile(setting), BudgetClasses(setting, CLASSES)
    per_s = tuple(
        tuple(
            max(
                (
                    batch / seconds
                    for batch in range(1, variant.max_batch + 1)
                    if (seconds := profile.p95_s(variant, batch, setting.tokens)) <= least_s / (2 if batch > 1 else 1)
                ),
                default=0.0,
            )
            for least_s in classes.least_s
        )
        for variant in setting.variants
    )
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


@lru_cache(maxsize=4096)
def solved(placement: Placement) -> Placed:
    """The placement of the highest effective accuracy among those that serve as much of the demand as can be."""
    most_per_s = sum(sum(row) for row in _solve(placement, None).served_per_s)
    return _solve(placement, most_per_s * (1 - 1e-6))


def _solve(placement: Placement, least_per_s: float | None) -> Placed:
    """Serves as much as can be, or, told how much to serve at least, as well as can be."""
    kinds = range(len(placement.demand_per_s))
    variants = range(len(placement.qualities))
    solver = highspy.Highs()  # type: ignore[no-untyped-call]  # its constructor alone is
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    integer = highspy.HighsVarType.kInteger
    cores = [solver.addVariable(0, placement.cores, type=integer) for _ in variants]
    served = [
        [solver.addVariable(0, HEADROOM * placement.demand_per_s[k] if placement.per_s[v][k] else 0) for k in kinds]
        for v in variants
    ]
    everything = solver.qsum(served[v][k] for v in variants for k in kinds)
    solver.addConstr(solver.qsum(cores) == placement.cores)
    for v in variants:
        work = [served[v][k] * (1 / placement.per_s[v][k]) for k in kinds if placement.per_s[v][k]]
        solver.addConstr(solver.qsum(work) - cores[v] <= 0)
    for k in kinds:
        arriving = HEADROOM * placement.demand_per_s[k]
        solver.addConstr(solver.qsum(served[v][k] for v in variants) <= arriving)
    if least_per_s is not None:
        solver.addConstr(everything >= least_per_s)
        good = solver.qsum(placement.qualities[v] * served[v][k] for v in variants for k in kinds)
        spare = solver.qsum(placement.qualities[v] * cores[v] for v in variants)
        solver.maximize(good + 1e-4 * spare)  # a core that is not needed gets the best
    else:
        solver.maximize(everything)
    return Placed(
        tuple(round(solver.val(one)) for one in cores),
        tuple(tuple(max(solver.val(one), 0.0) for one in row) for row in served),
    )
