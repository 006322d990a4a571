"""Variants for load tests: quality and service times, from manifests or from a CSV of samples.

The gateway's own service-time models compute the time of a run. Makes no variants: prepare the checkpoints of
`catalog_of` before a scenario is run.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from statistics import median, quantiles
from typing import Protocol

from gateway.catalogs.catalog import Catalog, CatalogEntry, load_catalog
from gateway.model.manifest import VariantManifest
from gateway.model.profile import LoneRuns, spread_of
from gateway.model.tier import Tier
from gateway.router import lone_runs
from gateway.tasks import read_manifest, service_time_model
from gateway.tasks.service_time import LARGEST_RUN, BatchedModel, ServiceTimeModel, StepSharing
from gateway.tasks.summarize import SummarizeParameters
from loadtests.workload.files import Row, ScenarioError, read_table
from loadtests.workload.scenario import Scenario

_FURTHEST = 3.0
"""The largest deviation of a run from its median, in standard deviations of the logarithm."""


class Times(Protocol):
    """Service times of one variant, in seconds; `sigma` is the spread of their logarithm."""

    @property
    def sigma(self) -> float:
        """The standard deviation of the logarithm of a run's time."""

    def median_s(self, batch: int, tokens: int) -> float:
        """The median of one run of `batch` inputs padded to `tokens` tokens."""

    def noise(self, batch: int, chance: random.Random) -> float:
        """A random factor of one run's time over the median."""


@dataclass(frozen=True)
class Variant:
    """One variant of the catalog. `quality` is in the catalog's points; `max_batch` 1 means no batching.

    `joins` says how texts share steps, where a request may join those under way, and `lone` how much faster a run is
    that has the node for itself.
    """

    name: str
    task: str
    quality: float
    tier: Tier
    times: Times
    max_batch: int
    domain: str | None = None
    joins: StepSharing | None = None
    lone: LoneRuns | None = None
    _known: dict[tuple[int, int], float] = field(default_factory=dict, repr=False, compare=False)

    def median_s(self, batch: int, tokens: int) -> float:
        """The median seconds of one run of `batch` inputs padded to `tokens` tokens; cached."""
        try:
            return self._known[batch, tokens]
        except KeyError:
            return self._known.setdefault((batch, tokens), self.times.median_s(batch, tokens))

    def batch_s(self, inputs: int, tokens: int) -> float:
        """The median seconds of any number of inputs of these tokens, in full batches."""
        if inputs <= self.max_batch:
            return self.median_s(inputs, tokens)
        whole, rest = divmod(inputs, self.max_batch)
        return (whole * self.median_s(self.max_batch, tokens) if whole else 0.0) + (
            self.median_s(rest, tokens) if rest else 0.0
        )

    def cheapest_s(self, tokens: int) -> float:
        """The least engine seconds per input over all batch sizes."""
        return min(self.median_s(batch, tokens) / batch for batch in range(1, self.max_batch + 1))


@dataclass(frozen=True)
class SampledTimes:
    """Service times from measured samples, in seconds by batch size; at least one sample. Tokens are ignored.

    The median is interpolated between batch sizes, constant below the smallest (a smaller batch can be padded), and
    extrapolated from the last two above the largest, as in the gateway's profiles.
    """

    samples: Mapping[int, Sequence[float]] = field(hash=False)

    @cached_property
    def _medians(self) -> tuple[tuple[int, float], ...]:
        return tuple((batch, median(self.samples[batch])) for batch in sorted(self.samples))

    @cached_property
    def sigma(self) -> float:
        """The median over batch sizes of the spread that fits their 95th percentiles."""
        return spread_of([self.p95_s(batch) / median_s for batch, median_s in self._medians])

    @cached_property
    def _residuals(self) -> Mapping[int, tuple[float, ...]]:
        return {batch: tuple(s / median(of) for s in of) for batch, of in self.samples.items()}

    def median_s(self, batch: int, tokens: int) -> float:
        """The median for any `tokens`; in proportion past a single batch size, never falling past the largest."""
        places = self._medians
        if batch <= places[0][0]:
            return places[0][1]
        if len(places) == 1:
            return places[0][1] * batch / places[0][0]
        at = min(bisect_left(places, batch, key=lambda place: place[0]), len(places) - 1)
        (left, below), (right, above) = places[at - 1], places[at]
        median_s = above - (above - below) * (right - batch) / (right - left)
        return max(median_s, above) if batch > right else median_s

    def noise(self, batch: int, chance: random.Random) -> float:
        """A random sample of the nearest batch size, over their median."""
        nearest = min(self._residuals, key=lambda measured: abs(measured - batch))
        return chance.choice(self._residuals[nearest])

    def p95_s(self, batch: int) -> float:
        """The 95th percentile of the samples of one batch size; the largest if there are few."""
        of = sorted(self.samples[batch])
        return quantiles(of, n=20)[-1] if len(of) >= 20 else of[-1]


@dataclass(frozen=True)
class ProfiledTimes:
    """Service times from a manifest's latency profile: log-normal around its medians."""

    medians: Medians
    sigma: float

    def median_s(self, batch: int, tokens: int) -> float:
        """The profile's median."""
        return self.medians.median_s(batch, tokens)

    def noise(self, batch: int, chance: random.Random) -> float:
        """Log-normal with the profile's spread, cut at three standard deviations."""
        deviations = min(max(chance.gauss(0.0, 1.0), -_FURTHEST), _FURTHEST)
        return math.exp(self.sigma * deviations)


@dataclass(frozen=True, slots=True)
class SampledSteps:
    """What texts that share steps take, from samples of so many that are written together from beginning to end."""

    times: SampledTimes
    reading: float
    """Seconds for which a text is read before its first step."""

    def reading_s(self, tokens: int) -> float:
        """The seconds for which a text holds up the others when it joins."""
        return self.reading

    def pace(self, texts: int) -> float:
        """How many times as long a step of so many texts takes as one of one."""
        return self._steps_s(texts) / self._steps_s(1)

    def _steps_s(self, texts: int) -> float:
        return self.times.median_s(texts, 0) - texts * self.reading


COLUMNS = ("variant", "quality", "batch", "latency_ms")
READING = "reading_ms"
"""The column of a profile whose variants share steps."""

LARGEST_BATCH = 4096
LEAST_QUALITY, MOST_QUALITY = 1e-3, 1e6
SHORTEST_MS, LONGEST_MS = 1e-4, 3_600_000.0


@dataclass
class _Measured:
    """One variant read so far: its quality and task, the line of these, and its samples by batch size."""

    quality: float
    task: str
    line: int
    reading_s: float | None
    samples: dict[int, list[float]] = field(default_factory=dict)

    @property
    def joins(self) -> StepSharing | None:
        """How its texts share steps, if they do."""
        if self.reading_s is None:
            return None
        steps = SampledSteps(SampledTimes(self.samples), self.reading_s)
        return StepSharing(steps.reading_s, steps.pace)


def read_profile(path: Path, *tasks: str) -> tuple[Variant, ...]:
    """The variants of a CSV by task, best quality first; a row is one timed run of `batch` inputs.

    With a column `reading_ms` a run is of texts that are written together step by step, after each has been read.
    Of several tasks the column `task` names each variant's. A variant batches up to its largest measured batch size.
    Variants off the Pareto front are kept; policies must avoid them. Raises ScenarioError.
    """
    measured: dict[str, _Measured] = {}
    for row in read_table(path, COLUMNS if len(tasks) == 1 else (*COLUMNS, "task")):
        _take(row, measured, tasks)
    if not measured:
        raise ScenarioError(f"{path}: has no rows under its header")
    variants: list[Variant] = []
    for task in tasks:
        of_task = {name: one for name, one in measured.items() if one.task == task}
        qualities = [one.quality for one in of_task.values()]
        for name, one in sorted(of_task.items(), key=lambda pair: -pair[1].quality):
            tier, times = tier_of(one.quality, qualities), SampledTimes(one.samples)
            variants.append(Variant(name, task, one.quality, tier, times, max(one.samples), joins=one.joins))
    return tuple(variants)


def tier_of(quality: float, among: Collection[float]) -> Tier:
    """The tier of a quality: `quality` for the highest, `realtime` for the lowest, else `balanced`."""
    if quality == max(among):
        return Tier.QUALITY
    return Tier.REALTIME if quality == min(among) else Tier.BALANCED


def _take(row: Row, measured: dict[str, _Measured], tasks: Sequence[str]) -> None:
    name, quality = row.name("variant"), row.number("quality", LEAST_QUALITY, MOST_QUALITY)
    task = row.cells["task"] if len(tasks) > 1 else tasks[0]
    if task not in tasks:
        raise row.fault("task", f"must be {' or '.join(tasks)}, as the scenario's catalog.tasks")
    batch, seconds = row.count("batch", LARGEST_BATCH), row.number("latency_ms", SHORTEST_MS, LONGEST_MS) / 1000
    reading_s = row.number(READING, SHORTEST_MS, LONGEST_MS) / 1000 if row.cells.get(READING) else None
    if reading_s is not None and batch * reading_s >= seconds:
        raise row.fault(READING, f"must be less than latency_ms / {batch}, since each text is read in that time")
    one = measured.setdefault(name, _Measured(quality, task, row.line, reading_s))
    if quality != one.quality:
        raise row.fault("quality", f"must be {one.quality:g}, as line {one.line} says of {name}")
    if task != one.task:
        raise row.fault("task", f"must be {one.task}, as line {one.line} says of {name}")
    if reading_s != one.reading_s:
        raise row.fault(READING, f"must be as in line {one.line} for {name}")
    one.samples.setdefault(batch, []).append(seconds)


class Medians(Protocol):
    """The part of a latency profile that is needed here."""

    def median_s(self, batch: int, tokens: int) -> float:
        """The median seconds of one run."""


@dataclass(frozen=True, slots=True)
class BatchedMedians:
    """The medians of a checkpoint that takes up to `max_batch` inputs a run, cut at its window or taken in windows.

    Of one whose texts share steps, a run is as many texts from beginning to end.
    """

    cost: ServiceTimeModel
    max_batch: int = LARGEST_RUN

    def median_s(self, batch: int, tokens: int) -> float:
        """The median seconds of one engine run, or of those of all windows."""
        return self.cost.run_s(batch, tokens)


@dataclass(frozen=True, slots=True)
class SummarizerMedians:
    """A summarizer's medians: texts one by one, each encoded and, if abstractive, decoded greedily."""

    cost: ServiceTimeModel
    max_batch: int = 1

    def median_s(self, batch: int, tokens: int) -> float:
        """The gateway's service time for texts of this many tokens, before it has learnt from answers."""
        return self.cost.service_times_s((tokens,) * batch, SummarizeParameters(), available_s=0.0)[1]


def medians_of(cost: ServiceTimeModel) -> BatchedMedians | SummarizerMedians:
    """The medians of the checkpoint with these service times."""
    if isinstance(cost, BatchedModel):
        return BatchedMedians(cost)
    return SummarizerMedians(cost) if cost.joins is None else BatchedMedians(cost, cost.max_batch)


def catalog_of(scenario: Scenario) -> Catalog | None:
    """The checkpoints to prepare for the scenario: those of its catalog for the requested tasks.

    None if its variants come from a CSV. Raises CatalogError, and ScenarioError if the catalog lacks a task.
    """
    if scenario.catalog.manifests is None:
        return None
    whole = load_catalog(scenario.catalog.manifests)
    for at, asked in enumerate(scenario.requests):
        if not whole.of_task(asked.task):
            raise ScenarioError(f"{scenario.name}: requests.{at}.task: the catalog {whole.name} has no {asked.task}")
    asked_for = tuple(entry for entry in whole.checkpoints if scenario.tasks & {*entry.tasks})
    return whole.model_copy(update={"checkpoints": asked_for})


def variants_of(scenario: Scenario, prepared: Mapping[str, Path] | None = None) -> tuple[Variant, ...]:
    """The variants of a scenario, the best of each task first.

    `prepared` holds the folders of the checkpoints of `catalog_of` by name; one without is left out. A CSV needs none.
    Raises ScenarioError and CatalogError.
    """
    if scenario.catalog.profile is not None:
        return read_profile(Path(scenario.catalog.profile), *scenario.catalog.served)
    catalog = catalog_of(scenario)
    if catalog is None or prepared is None:
        raise ScenarioError(f"{scenario.name}: catalog.manifests: its variants must be prepared first")
    return manifest_variants(catalog.only(prepared), prepared, scenario.tasks)


def manifest_variants(
    catalog: Catalog, variants: Mapping[str, Path], tasks: Collection[str] | None = None
) -> tuple[Variant, ...]:
    """The variants that the requests of these tasks (None: all) may get, by task, best first.

    They are read from their folders, given by name. Raises ScenarioError if a checkpoint has no folder or no readable
    manifest.
    """
    served = [task for task in catalog.tasks if tasks is None or task in tasks]
    return ranked(
        [
            (entry.quality.standing, _variant(entry, task, _manifest(entry.name, variants)))
            for task in served
            for entry in catalog.routed(task)
        ]
    )


def ranked(variants: Sequence[tuple[float, Variant]]) -> tuple[Variant, ...]:
    """Sorts variants by task, best first; each is given with its standing in its task.

    If ranks order a task with incomparable qualities, a variant counts no less than those it ranks above:
    bart-software's 40.4 ROUGE-L rank over 43.7 ROUGE-1 and count as 43.7.
    """
    made: list[Variant] = []
    for task in dict.fromkeys(one.task for _, one in variants):
        of_task = sorted(((standing, one) for standing, one in variants if one.task == task), key=itemgetter(0))
        qualities = accumulate((one.quality for _, one in of_task), max)
        made += reversed([replace(one, quality=least) for (_, one), least in zip(of_task, qualities, strict=True)])
    return tuple(made)


def _variant(entry: CatalogEntry, task: str, manifest: VariantManifest) -> Variant:
    try:
        cost = service_time_model(manifest, task)
    except ValueError as error:
        raise ScenarioError(f"{entry.name}: {error}") from None
    medians = medians_of(cost)
    times = ProfiledTimes(medians, cost.sigma)
    quality = entry.quality.value
    lone = lone_runs(entry, manifest)
    return Variant(entry.name, task, quality, entry.tier, times, medians.max_batch, entry.domain, cost.joins, lone)


def _manifest(name: str, variants: Mapping[str, Path]) -> VariantManifest:
    if name not in variants:
        raise ScenarioError(f"{name}: is in the catalog, but has no variant prepared")
    try:
        return read_manifest(variants[name])
    except (OSError, ValueError) as error:
        raise ScenarioError(f"{name}: the manifest in {variants[name]} cannot be read: {error}") from None
