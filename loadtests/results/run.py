"""One run of a policy under a scenario: what became of its requests, as the results file has it.

Knows counts, shares and quantiles; not who ran it: a simulated run and one against a live gateway end alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from gateway.model.tier import Tier
from loadtests.offered_load import Quantiles
from loadtests.simulator.requests import Fate, Offered

SHOWN = 2000
"""Samples kept of one run, at most: a plot of more says no more."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under what a run was made. Runs of two policies alike in all but `policy` met the same requests."""

    policy: str
    scenario: str
    load: float
    cv: float
    seed: int
    rate_per_s: float
    seconds: float
    mode: Literal["simulated", "live"] = "simulated"


@dataclass(frozen=True, slots=True)
class Sample:
    """One request as plots and counts need it; `kind` is its class in the scenario, times are in seconds.

    `latency_s` is of answers only and counts from the intended arrival, which is itself counted from the run's start.
    `predicted_s` and `quantile_s` are the forecast it was decided on, None where there was none.
    """

    kind: int
    arrived_s: float
    budget_s: float
    fate: Fate
    latency_s: float | None = None
    variant: str | None = None
    tier: Tier | None = None
    predicted_s: float | None = None
    quantile_s: float | None = None

    @property
    def covered(self) -> bool | None:
        """Whether the answer came at or under its forecast quantile; None without an answer or a forecast."""
        if self.latency_s is None or self.quantile_s is None:
            return None
        return self.latency_s <= self.quantile_s


class Window(Struct, frozen=True):
    """Coverage of a few hundred successive answers, the first of which had arrived at `from_s`, the last at `to_s`."""

    from_s: float
    to_s: float
    coverage: float


class ClassResult(Struct, frozen=True, kw_only=True):
    """One class of the mixture; its members mean what `RunResult`'s do."""

    kind: int
    about: str
    task: str
    offered: int
    served: int
    late: int
    refused: int
    failed: int
    attainment: float
    effective_quality: float
    by_variant: Mapping[str, int]
    by_tier: Mapping[Tier, int]
    latency: Quantiles | None
    coverage: float | None
    nominal: float


class RunResult(Struct, frozen=True, kw_only=True):
    """One run, its members in the order of the file: offered = served + late + refused + failed, always.

    `served` are answers in time; `by_variant` and `by_tier` share them out, `late_by_variant` the late ones.
    `effective_quality` is the mean over requests offered, one not answered in time counting 0, in `quality_unit`.
    `coverage` is the share of answers at or under their forecast quantile, `nominal` what it should be, and
    `windows` the same over time. `lag` is how late a live run's generator sent; `valid` says whether the figures
    are the policy's, and `note` why they are not. `wasted_core_s` went into work that nobody got in time.
    """

    policy: str
    scenario: str
    load: float
    cv: float
    seed: int
    offered: int
    served: int
    late: int
    refused: int
    failed: int
    attainment: float
    goodput_per_s: float
    effective_quality: float
    by_variant: Mapping[str, int]
    late_by_variant: Mapping[str, int]
    by_tier: Mapping[Tier, int]
    quality_unit: Literal["points", "share of the task's best"]
    by_class: tuple[ClassResult, ...]
    rate_per_s: float
    seconds: float
    latency: Quantiles | None
    coverage: float | None
    nominal: float | None
    windows: tuple[Window, ...] = ()
    wasted_core_s: float | None = None
    mode: Literal["simulated", "live"] = "simulated"
    lag: Quantiles | None = None
    valid: bool = True
    note: str = ""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A run with samples of its requests, evenly thinned: what a plot of single requests is drawn from."""

    result: RunResult
    samples: tuple[Sample, ...]


def sample_of(
    request: Offered, tiers: Mapping[str, Tier], predicted_s: float | None = None, quantile_s: float | None = None
) -> Sample:
    """A simulated request that has ended; `tiers` are by variant."""
    answered = request.fate in (Fate.IN_TIME, Fate.LATE)
    return Sample(
        kind=request.kind,
        arrived_s=request.arrived_s,
        budget_s=request.budget_s,
        fate=request.fate,
        latency_s=request.finished_s - request.arrived_s if answered else None,
        variant=request.variant if answered else None,
        tier=tiers.get(request.variant) if answered and request.variant else None,
        predicted_s=predicted_s,
        quantile_s=quantile_s,
    )


def recorded(result: RunResult, samples: Sequence[Sample], most: int = SHOWN) -> Recorded:
    """The run with at most so many of its samples, every so-manyth in the order of arrival."""
    ordered = sorted(samples, key=lambda sample: sample.arrived_s)
    every = max(1, -(-len(ordered) // most))
    return Recorded(result, tuple(ordered[::every]))
