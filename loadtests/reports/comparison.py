"""Compares policies: means over seeds with 95 % confidence intervals, paired differences, roles and units.

There are few seeds, so intervals use Student's t. Policies get the same requests under one seed, so differences are
paired by seed before they are averaged: a seed's effect on both cancels out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from scipy.stats import t

from loadtests.reports.runs import RunResult

Figure = Literal["attainment", "effective_quality", "goodput_per_s", "coverage"]
LEAST = 3
"""The least number of seeds for an interval; with two, t is 12.7 and the interval says nothing."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over `n` seeds; `margin` is half its 95 % confidence interval, None for fewer than three."""

    mean: float
    margin: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The mean and margin of one or more values."""
        margin = None
        if len(values) >= LEAST:
            margin = student_t(len(values) - 1) * stdev(values) / math.sqrt(len(values))
        return cls(fmean(values), margin, len(values))

    @property
    def least(self) -> float:
        """The lower end of the interval; the mean if there is none."""
        return self.mean - (self.margin or 0.0)

    @property
    def most(self) -> float:
        """The upper end of the interval; the mean if there is none."""
        return self.mean + (self.margin or 0.0)

    @property
    def sure(self) -> bool:
        """True if zero lies outside the interval."""
        return self.margin is not None and not self.least <= 0 <= self.most


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A load and a coefficient of variation at which policies are compared."""

    cv: float
    load: float


@dataclass(frozen=True, slots=True)
class Cell:
    """One policy at one place, over the seeds with valid runs.

    If none is valid, over all seeds, and `valid` is False. `invalid` is the number of invalid runs.
    """

    policy: str
    place: Place
    attainment: Spread
    effective_quality: Spread
    goodput_per_s: Spread
    coverage: Spread | None
    valid: bool
    invalid: int
    runs: tuple[RunResult, ...]

    def spread(self, figure: Figure) -> Spread:
        """The figure of that name. Raises ValueError for coverage without forecasts."""
        spread: Spread | None = getattr(self, figure)
        if spread is None:
            raise ValueError(f"{self.policy} has no {figure}")
        return spread


def cells(runs: Sequence[RunResult]) -> tuple[Cell, ...]:
    """Every policy at every place of its runs, in order of first occurrence."""
    of: dict[tuple[str, Place], list[RunResult]] = defaultdict(list)
    for run in runs:
        of[run.policy, place_of(run)].append(run)
    first = {policy: at for at, policy in reversed(list(enumerate(run.policy for run in runs)))}
    ordered = sorted(of, key=lambda key: (first[key[0]], key[1]))
    return tuple(_cell(policy, place, of[policy, place]) for policy, place in ordered)


def place_of(run: RunResult) -> Place:
    """The place of a run."""
    return Place(run.cv, run.load)


def differences(runs: Sequence[RunResult], policy: str, other: str, figure: Figure) -> Mapping[Place, Spread]:
    """The policy's figure minus the other's, by place, paired over the seeds that both ran."""
    return _paired(runs, policy, other, figure, ratio=False)


def ratios(runs: Sequence[RunResult], policy: str, other: str, figure: Figure) -> Mapping[Place, Spread]:
    """The policy's figure / the other's, by place, paired by seed; seeds with a zero divisor are left out."""
    return _paired(runs, policy, other, figure, ratio=True)


def student_t(freedom: float, level: float = 0.975) -> float:
    """The quantile of Student's t with this many degrees of freedom; by default that of a 95 % interval."""
    return float(t.ppf(level, freedom))


def _cell(policy: str, place: Place, runs: Sequence[RunResult]) -> Cell:
    valid = [run for run in runs if run.valid]
    of = valid or runs
    coverage = [run.coverage for run in of if run.coverage is not None]
    return Cell(
        policy,
        place,
        attainment=Spread.of([run.attainment for run in of]),
        effective_quality=Spread.of([run.effective_quality for run in of]),
        goodput_per_s=Spread.of([run.goodput_per_s for run in of]),
        coverage=Spread.of(coverage) if coverage else None,
        valid=bool(valid),
        invalid=len(runs) - len(valid),
        runs=tuple(of),
    )


def _paired(runs: Sequence[RunResult], policy: str, other: str, figure: Figure, ratio: bool) -> Mapping[Place, Spread]:
    found: dict[str, dict[tuple[Place, int], float]] = {policy: {}, other: {}}
    for run in runs:
        if run.valid and run.policy in found:
            found[run.policy][place_of(run), run.seed] = getattr(run, figure)
    pairs: dict[Place, list[float]] = defaultdict(list)
    for (place, seed), ours in sorted(found[policy].items()):
        theirs = found[other].get((place, seed))
        if theirs is None or (ratio and theirs == 0):
            continue
        pairs[place].append(ours / theirs if ratio else ours - theirs)
    return {place: Spread.of(values) for place, values in pairs.items()}


OURS = "punctual"
BOUND = "oracle"
"""The name prefix of policies that know the future: they bound the others and do not compete."""


@dataclass(frozen=True, slots=True)
class Roles:
    """The roles of policies: ours, bounds and baselines, in order of occurrence."""

    ours: str
    bounds: tuple[str, ...]
    baselines: tuple[str, ...]

    @classmethod
    def of(cls, runs: Sequence[RunResult], ours: str = OURS) -> Roles:
        """Sorts the policies of the runs into roles by name."""
        names = tuple(dict.fromkeys(run.policy for run in runs))
        return cls(
            ours,
            bounds=tuple(name for name in names if name.startswith(BOUND)),
            baselines=tuple(name for name in names if name != ours and not name.startswith(BOUND)),
        )

    def rank(self, policy: str) -> int:
        """The sort key of a role: bounds first, then ours, then baselines."""
        return 0 if policy in self.bounds else 1 if policy == self.ours else 2


def best_baselines(found: Sequence[Cell], roles: Roles, figure: Figure = "effective_quality") -> Mapping[Place, Cell]:
    """The baseline with the highest mean at each place; the choice in hindsight favours baselines."""
    best: dict[Place, Cell] = {}
    for cell in found:
        if cell.policy not in roles.baselines or not cell.valid:
            continue
        rival = best.get(cell.place)
        if rival is None or cell.spread(figure).mean > rival.spread(figure).mean:
            best[cell.place] = cell
    return best


@dataclass(frozen=True, slots=True)
class Scale:
    """The display of a figure: `times` its value, with `digits` decimals."""

    title: str
    unit: str
    times: float
    digits: int

    def spread(self, spread: Spread, sign: bool = False) -> str:
        """The mean, with ± half the interval if there is one."""
        value = spread.mean * self.times
        mean = signed(value, self.digits) if sign else f"{value:.{self.digits}f}"
        return mean if spread.margin is None else f"{mean} ± {spread.margin * self.times:.{self.digits}f}"


def signed(value: float, digits: int) -> str:
    """A number with its sign, a typographic minus; zero has none."""
    said = f"{value:+.{digits}f}".replace("-", "\u2212")
    return said if said.strip("+\u22120.") else said[1:]


def scale_of(runs: Sequence[RunResult], figure: Figure) -> Scale:
    """The scale of a figure: quality is in points or, for mixed tasks, in percent of the best."""
    match figure:
        case "attainment":
            return Scale("SLA attainment", "% of requests offered", 100.0, 1)
        case "coverage":
            return Scale("Coverage", "% of answers", 100.0, 1)
        case "goodput_per_s":
            return Scale("Goodput", "answers in time a second", 1.0, 1)
        case "effective_quality":
            if any(run.quality_unit != "points" for run in runs):
                return Scale("Effective quality", "% of the task's best", 100.0, 1)
            most = max((run.effective_quality for run in runs), default=0.0)
            return Scale("Effective quality", "points", 1.0, 2 if most > 2 else 4)
