"""What the seeds agree on: means with 95 % confidence intervals, and differences between policies taken seed by seed.

Seeds are a handful, so intervals are Student's t. Two policies meet the same requests under one seed, so their
difference is taken within a seed before it is averaged: what a seed does to both cancels out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import Literal

from loadtests.results.run import RunResult

Figure = Literal["attainment", "effective_quality", "goodput_per_s", "coverage"]
LEAST = 3
"""Seeds below which no interval is given: of two, it is twelve times the usual one and says nothing."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over `n` seeds; `margin` is half its 95 % confidence interval, None of fewer than three."""

    mean: float
    margin: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        margin = None
        if len(values) >= LEAST:
            margin = student_t(len(values) - 1) * stdev(values) / math.sqrt(len(values))
        return cls(fmean(values), margin, len(values))

    @property
    def least(self) -> float:
        """The lower end of the interval; the mean itself where there is none."""
        return self.mean - (self.margin or 0.0)

    @property
    def most(self) -> float:
        """The upper end, likewise."""
        return self.mean + (self.margin or 0.0)

    @property
    def sure(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.margin is not None and not self.least <= 0 <= self.most


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A load and a coefficient of variation: where policies are compared."""

    cv: float
    load: float


@dataclass(frozen=True, slots=True)
class Cell:
    """One policy at one place, over the seeds whose runs are valid.

    Where none is valid, over all of them, and `valid` is False. `invalid` is how many runs are not.
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
        """The figure of that name. Raises ValueError of coverage where nothing was forecast."""
        spread: Spread | None = getattr(self, figure)
        if spread is None:
            raise ValueError(f"{self.policy} has no {figure}")
        return spread


def cells(runs: Sequence[RunResult]) -> tuple[Cell, ...]:
    """Every policy at every place it was run at, in the order in which policies first occur."""
    of: dict[tuple[str, Place], list[RunResult]] = defaultdict(list)
    for run in runs:
        of[run.policy, place_of(run)].append(run)
    first = {policy: at for at, policy in reversed(list(enumerate(run.policy for run in runs)))}
    ordered = sorted(of, key=lambda key: (first[key[0]], key[1]))
    return tuple(_cell(policy, place, of[policy, place]) for policy, place in ordered)


def place_of(run: RunResult) -> Place:
    """Where the run was made."""
    return Place(run.cv, run.load)


def differences(runs: Sequence[RunResult], policy: str, other: str, figure: Figure) -> Mapping[Place, Spread]:
    """How much more the policy has of a figure than the other, seed by seed, by place; over seeds that both ran."""
    return _paired(runs, policy, other, figure, ratio=False)


def ratios(runs: Sequence[RunResult], policy: str, other: str, figure: Figure) -> Mapping[Place, Spread]:
    """The policy's figure over the other's, likewise; seeds at which the other has none of it are left out."""
    return _paired(runs, policy, other, figure, ratio=True)


@cache
def student_t(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, by bisection of its closed form (Abramowitz & Stegun 26.7.3 and 26.7.4)."""
    low, high = 0.0, 16.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, freedom) < 0.95 else (low, middle)
    return (low + high) / 2


def _inside(t: float, freedom: int) -> float:
    """The probability that Student's t of so many degrees of freedom lies between −t and t."""
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for step in range(1 + odd, freedom, 2):
        total += term
        term *= math.cos(angle) ** 2 * step / (step + 1)
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total


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
