"""One run of a policy under a scenario: its requests counted into a result, and the results file.

Knows counts, shares and quantiles; not who ran it: a simulated run and one against a live gateway end alike.
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
"""Samples kept of one run, at most: a plot of more says no more."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of a run. Runs that differ in `policy` alone met the same requests."""

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


class Tally(Struct, frozen=True, kw_only=True):
    """What became of some requests, at least one: offered = served + late + refused + failed, always.

    `served` are answers in time; `by_variant` and `by_tier` share them out. `effective_quality` is the mean over
    requests offered, one not answered in time counting 0.
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
        """Counts them; an answer by a variant without a utility is a KeyError, not a 0."""
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
    """One class of the mixture."""

    kind: int
    about: str
    task: str
    nominal: float


class RunResult(Struct, frozen=True, kw_only=True):
    """One run, its members in the order of the file; the counts mean what `Tally`'s do.

    `effective_quality` is in `quality_unit`; `late_by_variant` shares out the late answers. `coverage` is the share of
    answers at or under their forecast quantile, `nominal` what it should be, and `windows` the same over time. `lag`
    is how late a live run's generator sent; `valid` says whether the figures are the policy's, and `note` why they are
    not. `wasted_core_s` went into work that nobody got in time.
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
    """The run with at most `most` of its samples, evenly thinned in the order of arrival."""
    ordered = sorted(samples, key=lambda sample: sample.arrived_s)
    every = max(1, -(-len(ordered) // most))
    return Recorded(result, tuple(ordered[::every]))


WINDOW = 300
"""Answers in a window of coverage: at 95 % nominal, chance alone moves such a share by 2.5 points either way."""


class Scored(Protocol):
    """A variant as counting needs it: its quality, in the points of its task."""

    @property
    def name(self) -> str:
        """The name that answers have for it."""

    @property
    def task(self) -> str:
        """The task that it serves."""

    @property
    def quality(self) -> float:
        """Its quality in the catalog's own points."""


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
    """Counts a run; `samples` are all its requests, not thinned. Raises ValueError of none, or of one still open."""
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
    """A class in a few words: task, budget and, where they are not the usual, length, mode and certainty."""
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
    """The utility of an answer by each variant: its points, or its share of the task's best where tasks are mixed."""
    if not mixed:
        return {one.name: one.quality for one in variants}
    best: dict[str, float] = {}
    for one in variants:
        best[one.task] = max(one.quality, best.get(one.task, one.quality))
    return {one.name: one.quality / best[one.task] for one in variants}


def _by_class(
    samples: Sequence[Sample], utility: Mapping[str, float], classes: Sequence[RequestClass]
) -> Iterator[ClassResult]:
    """Each class that any request was of."""
    for kind, one in enumerate(classes):
        if of := [sample for sample in samples if sample.kind == kind]:
            tally = structs.asdict(Tally.of(of, utility))
            yield ClassResult(**tally, kind=kind, about=described(one), task=one.task, nominal=one.percentile / 100)


def _windows(answers: Sequence[Sample]) -> Iterator[Window]:
    """Whole windows only: the coverage of the few answers left over is mostly chance."""
    for start in range(0, len(answers) - WINDOW + 1, WINDOW):
        of = answers[start : start + WINDOW]
        yield Window(of[0].arrived_s, of[-1].arrived_s, fmean(bool(one.covered) for one in of))


def _counted(samples: Sequence[Sample]) -> Mapping[str, int]:
    """How many are of each variant, in alphabetical order: a file of the same run is the same file."""
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
    """What `write_json` wrote. Raises msgspec.DecodeError where the file is something else."""
    if path.suffix == LINES:
        return tuple(msgspec.json.Decoder(RunResult).decode_lines(path.read_bytes()))
    return msgspec.json.decode(path.read_bytes(), type=tuple[RunResult, ...])
