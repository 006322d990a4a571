"""From the samples of a run to its result: endings counted apart, shares of what was offered, and coverage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

from gateway.model.tier import Tier
from loadtests.offered_load import Quantiles
from loadtests.results.run import ClassResult, Conditions, RunResult, Sample, Window
from loadtests.scenarios.model import RequestClass
from loadtests.simulator.requests import Fate

WINDOW = 300
"""Answers in a window of coverage: at 95 % nominal, chance alone moves such a share by 2.5 points either way."""


class Scored(Protocol):
    """What is needed of a variant: its quality, in the points of its task."""

    @property
    def name(self) -> str:
        """As answers name it."""

    @property
    def task(self) -> str:
        """What it serves."""

    @property
    def quality(self) -> float:
        """In the catalog's own points."""


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
    worth = _worth(variants, mixed)
    whole = _Count.of(samples, worth)
    answers = [sample for sample in sorted(samples, key=lambda one: one.arrived_s) if sample.covered is not None]
    return RunResult(
        policy=conditions.policy,
        scenario=conditions.scenario,
        load=conditions.load,
        cv=conditions.cv,
        seed=conditions.seed,
        offered=whole.offered,
        served=whole.fates[Fate.IN_TIME],
        late=whole.fates[Fate.LATE],
        refused=whole.fates[Fate.REFUSED],
        failed=whole.fates[Fate.FAILED],
        attainment=whole.attainment,
        goodput_per_s=whole.fates[Fate.IN_TIME] / conditions.seconds,
        effective_quality=whole.effective_quality,
        by_variant=whole.by_variant,
        late_by_variant=_counted(sample.variant for sample in samples if sample.fate is Fate.LATE),
        by_tier=whole.by_tier,
        quality_unit="share of the task's best" if mixed else "points",
        by_class=tuple(_by_class(samples, worth, classes)),
        rate_per_s=conditions.rate_per_s,
        seconds=conditions.seconds,
        latency=whole.latency,
        coverage=whole.coverage,
        nominal=fmean(classes[one.kind].percentile / 100 for one in answers) if answers else None,
        windows=tuple(_windows(answers)),
        wasted_core_s=wasted_core_s,
        mode=conditions.mode,
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


@dataclass(frozen=True, slots=True)
class _Count:
    """What became of some requests, at least one."""

    offered: int
    fates: Mapping[Fate, int]
    effective_quality: float
    by_variant: Mapping[str, int]
    by_tier: Mapping[Tier, int]
    latency: Quantiles | None
    coverage: float | None

    @property
    def attainment(self) -> float:
        """Answers in time over requests offered."""
        return self.fates[Fate.IN_TIME] / self.offered

    @classmethod
    def of(cls, samples: Sequence[Sample], worth: Mapping[str, float]) -> _Count:
        """Counts them; an answer by a variant without a worth is a KeyError, not a 0."""
        fates = Counter(sample.fate for sample in samples)
        if fates[Fate.OPEN]:
            raise ValueError(f"{fates[Fate.OPEN]} requests have not ended")
        in_time = [sample for sample in samples if sample.fate is Fate.IN_TIME]
        by_variant = _counted(sample.variant for sample in in_time)
        covered = [sample.covered for sample in samples if sample.covered is not None]
        return cls(
            offered=len(samples),
            fates=fates,
            effective_quality=sum(worth[name] * count for name, count in by_variant.items()) / len(samples),
            by_variant=by_variant,
            by_tier={tier: count for tier in Tier if (count := sum(sample.tier is tier for sample in in_time))},
            latency=Quantiles.of([sample.latency_s for sample in samples if sample.latency_s is not None]),
            coverage=fmean(covered) if covered else None,
        )


def _worth(variants: Sequence[Scored], mixed: bool) -> Mapping[str, float]:
    """What an answer of each variant counts: its points, or where tasks are mixed its share of the task's best."""
    if not mixed:
        return {one.name: one.quality for one in variants}
    best: dict[str, float] = {}
    for one in variants:
        best[one.task] = max(one.quality, best.get(one.task, one.quality))
    return {one.name: one.quality / best[one.task] for one in variants}


def _by_class(
    samples: Sequence[Sample], worth: Mapping[str, float], classes: Sequence[RequestClass]
) -> Iterator[ClassResult]:
    """Each class that any request was of."""
    for kind, one in enumerate(classes):
        of = [sample for sample in samples if sample.kind == kind]
        if not of:
            continue
        count = _Count.of(of, worth)
        yield ClassResult(
            kind=kind,
            about=described(one),
            task=one.task,
            offered=count.offered,
            served=count.fates[Fate.IN_TIME],
            late=count.fates[Fate.LATE],
            refused=count.fates[Fate.REFUSED],
            failed=count.fates[Fate.FAILED],
            attainment=count.attainment,
            effective_quality=count.effective_quality,
            by_variant=count.by_variant,
            by_tier=count.by_tier,
            latency=count.latency,
            coverage=count.coverage,
            nominal=one.percentile / 100,
        )


def _windows(answers: Sequence[Sample]) -> Iterator[Window]:
    """Whole windows only: the coverage of the few answers left over is mostly chance."""
    for start in range(0, len(answers) - WINDOW + 1, WINDOW):
        of = answers[start : start + WINDOW]
        yield Window(of[0].arrived_s, of[-1].arrived_s, fmean(bool(one.covered) for one in of))


def _counted(names: Iterator[str | None]) -> Mapping[str, int]:
    """How often each name was said, in alphabetical order: a file of the same run is the same file."""
    return dict(sorted(Counter(name for name in names if name is not None).items()))


def _span(span: tuple[float, float]) -> str:
    least, most = span
    return f"{least:g}" if least == most else f"{least:g} to {most:g}"
