"""One run of a policy under a scenario: counts its requests into a result, and reads and writes results files.

Knows counts, shares and quantiles. Does not know whether a run was simulated or live.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal, Protocol

import msgspec
from msgspec import Struct, structs

from gateway.model.tier import Tier
from loadtests.offered_load import Quantiles
from loadtests.workload.arrivals import Fate, Offered
from loadtests.workload.scenario import RequestClass

SHOWN = 2000
"""The most samples kept of one run; a plot needs no more."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of a run. Runs that differ only in `policy` had the same requests."""

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
    """One request for plots and counts; `kind` is its class in the scenario, times are in seconds.

    `latency_s` exists for answers only and counts from the intended arrival, which counts from the start of the run.
    `predicted_s` and `quantile_s` are its forecast, or None.
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
        """True if the answer met its forecast quantile; None without an answer or a forecast."""
        if self.latency_s is None or self.quantile_s is None:
            return None
        return self.latency_s <= self.quantile_s


class Window(Struct, frozen=True):
    """Coverage of `WINDOW` successive answers, from the arrival of the first at `from_s` to the last at `to_s`."""

    from_s: float
    to_s: float
    coverage: float


class Tally(Struct, frozen=True, kw_only=True):
    """Counts of the outcomes of one or more requests: offered = served + late + refused + failed.

    `served` are answers in time, split in `by_variant` and `by_tier`. `effective_quality` is the mean over requests
    offered; one not answered in time counts 0.
    """

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

    @classmethod
    def of(cls, samples: Sequence[Sample], utility: Mapping[str, float]) -> Tally:
        """Counts samples. Raises KeyError for an answer by a variant without a utility."""
        fates = Counter(sample.fate for sample in samples)
        if fates[Fate.OPEN]:
            raise ValueError(f"{fates[Fate.OPEN]} requests have not ended")
        in_time = [sample for sample in samples if sample.fate is Fate.IN_TIME]
        by_variant = _counted(in_time)
        covered = [sample.covered for sample in samples if sample.covered is not None]
        return Tally(
            offered=len(samples),
            served=fates[Fate.IN_TIME],
            late=fates[Fate.LATE],
            refused=fates[Fate.REFUSED],
            failed=fates[Fate.FAILED],
            attainment=fates[Fate.IN_TIME] / len(samples),
            effective_quality=sum(utility[name] * count for name, count in by_variant.items()) / len(samples),
            by_variant=by_variant,
            by_tier={tier: count for tier in Tier if (count := sum(sample.tier is tier for sample in in_time))},
            latency=Quantiles.of([sample.latency_s for sample in samples if sample.latency_s is not None]),
            coverage=fmean(covered) if covered else None,
        )


class ClassResult(Tally, frozen=True, kw_only=True):
    """The counts of one class of the mixture."""

    kind: int
    about: str
    task: str
    nominal: float


class RunResult(Struct, frozen=True, kw_only=True):
    """The result of one run; fields are in the order of the file, and the counts are those of `Tally`.

    `effective_quality` is in `quality_unit`; `late_by_variant` splits the late answers. `coverage` is the share of
    answers at or under their forecast quantile, `nominal` its target, and `windows` its course over time. `lag` is how
    late a live run's generator sent. `valid` says whether the figures are the policy's, and `note` why not.
    `wasted_core_s` is the work on requests not answered in time.
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
    """A run with evenly thinned samples of its requests, for plots of single requests."""

    result: RunResult
    samples: tuple[Sample, ...]


def sample_of(
    request: Offered, tiers: Mapping[str, Tier], predicted_s: float | None = None, quantile_s: float | None = None
) -> Sample:
    """The sample of a simulated request that has ended; `tiers` are by variant."""
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
    """The run with at most `most` of its samples, evenly thinned in the order of arrival."""
    ordered = sorted(samples, key=lambda sample: sample.arrived_s)
    every = max(1, -(-len(ordered) // most))
    return Recorded(result, tuple(ordered[::every]))


WINDOW = 300
"""Answers in a window of coverage: at 95 % nominal, chance alone moves the share by ± 2.5 points."""


class Scored(Protocol):
    """The part of a variant that counting needs: its quality, in the points of its task."""

    @property
    def name(self) -> str:
        """The variant's name in answers."""

    @property
    def task(self) -> str:
        """The task that the variant serves."""

    @property
    def quality(self) -> float:
        """The variant's quality, in the catalog's points."""


def result_of(
    conditions: Conditions,
    samples: Sequence[Sample],
    variants: Sequence[Scored],
    classes: Sequence[RequestClass],
    *,
    wasted_core_s: float | None = None,
    lag: Quantiles | None = None,
    valid: bool = True,
    note: str = "",
) -> RunResult:
    """Counts a run; `samples` are all its requests. Raises ValueError if there are none, or one has not ended."""
    if not samples:
        raise ValueError("a run without requests has no result")
    mixed = len({one.task for one in classes}) > 1
    utility = _utility(variants, mixed)
    tally = Tally.of(samples, utility)
    answers = [sample for sample in sorted(samples, key=lambda one: one.arrived_s) if sample.covered is not None]
    return RunResult(
        **asdict(conditions),
        **structs.asdict(tally),
        goodput_per_s=tally.served / conditions.seconds,
        late_by_variant=_counted([sample for sample in samples if sample.fate is Fate.LATE]),
        quality_unit="share of the task's best" if mixed else "points",
        by_class=tuple(_by_class(samples, utility, classes)),
        nominal=fmean(classes[one.kind].percentile / 100 for one in answers) if answers else None,
        windows=tuple(_windows(answers)),
        wasted_core_s=wasted_core_s,
        lag=lag,
        valid=valid,
        note=note,
    )


def described(one: RequestClass) -> str:
    """A class in a few words: task, budget, length and every setting that is not the default."""
    parts = [one.task, f"{_span(one.budget_ms)} ms", f"{_span(one.words)} words"]
    if one.texts > 1:
        parts.append(f"{one.texts} texts")
    if one.domain:
        parts.append(f"domain {one.domain}")
    if one.mode == "strict":
        parts.append("strict")
    if one.percentile != 95:
        parts.append(f"at {one.percentile:g} %")
    return ", ".join(parts)


def _utility(variants: Sequence[Scored], mixed: bool) -> Mapping[str, float]:
    """The utility of an answer by each variant: its points or, for mixed tasks, its share of the task's best."""
    if not mixed:
        return {one.name: one.quality for one in variants}
    best: dict[str, float] = {}
    for one in variants:
        best[one.task] = max(one.quality, best.get(one.task, one.quality))
    return {one.name: one.quality / best[one.task] for one in variants}


def _by_class(
    samples: Sequence[Sample], utility: Mapping[str, float], classes: Sequence[RequestClass]
) -> Iterator[ClassResult]:
    """The result of each class that has requests."""
    for kind, one in enumerate(classes):
        if of := [sample for sample in samples if sample.kind == kind]:
            tally = structs.asdict(Tally.of(of, utility))
            yield ClassResult(**tally, kind=kind, about=described(one), task=one.task, nominal=one.percentile / 100)


def _windows(answers: Sequence[Sample]) -> Iterator[Window]:
    """The full windows; the last, partial one is dropped as mostly chance."""
    for start in range(0, len(answers) - WINDOW + 1, WINDOW):
        of = answers[start : start + WINDOW]
        yield Window(of[0].arrived_s, of[-1].arrived_s, fmean(bool(one.covered) for one in of))


def _counted(samples: Sequence[Sample]) -> Mapping[str, int]:
    """The count of each variant, in alphabetical order, so that equal runs give equal files."""
    return dict(sorted(Counter(sample.variant for sample in samples if sample.variant is not None).items()))


def _span(span: tuple[float, float]) -> str:
    least, most = span
    return f"{least:g}" if least == most else f"{least:g} to {most:g}"


LINES = ".jsonl"


def write_json(runs: Sequence[RunResult], path: Path) -> None:
    """Writes the runs in the order given; JSON Lines where the path ends in `.jsonl`."""
    lines = [msgspec.json.encode(run) for run in runs]
    if path.suffix == LINES:
        path.write_bytes(b"".join(line + b"\n" for line in lines))
    else:
        path.write_bytes(b"[\n" + b",\n".join(lines) + b"\n]\n" if lines else b"[]\n")


def read_json(path: Path) -> tuple[RunResult, ...]:
    """Reads a file of `write_json`. Raises msgspec.DecodeError if it is malformed."""
    if path.suffix == LINES:
        return tuple(msgspec.json.Decoder(RunResult).decode_lines(path.read_bytes()))
    return msgspec.json.decode(path.read_bytes(), type=tuple[RunResult, ...])
