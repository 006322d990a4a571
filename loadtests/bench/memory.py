"""`punctual bench memory`: whether a summarizer's resident memory grows over many summaries.

Summarizers answer in turn; the gateway reports their memory. The median of the last fifth of the samples may exceed
that of the second fifth by 2 % plus 2 MB, the noise of one process. The first fifth is left out, because caches and
buffers fill then. Medians ignore short peaks.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated
from urllib.request import urlopen

import msgspec
import typer
import uvloop
from msgspec import Struct
from rich.console import Console
from rich.progress import Progress

from deployments.engines.host import read_host
from exporters.options import DEFAULT_CACHE, DEFAULT_CATALOG, CacheOption, CatalogOption
from gateway.catalogs.catalog import Catalog
from loadtests import options
from loadtests.bench.measuring.report import Report, Table, Verdict, present
from loadtests.bench.summaries import (
    PATH,
    Asked,
    Unsummarised,
    asked_in_turn,
    mixed_texts,
    requests_of,
    served,
    summarizers,
)
from loadtests.client import Client, http_client

SAMPLES = 20
MOST_BETWEEN = 50
WITHIN_S = 60.0
FIFTHS = 5
ALLOWED_SHARE = 0.02
ALLOWED_BYTES = 2e6
MB = 1e6


@dataclass(frozen=True)
class Settings:
    """The number of summaries of mixed texts, and the range of their budgets in seconds."""

    summaries: int = 1000
    budgets_s: tuple[float, float] = (0.1, 3.0)
    seed: int = 23

    @property
    def every(self) -> int:
        """The number of summaries per sample: at most 50, and few enough for 20 samples."""
        return max(1, min(MOST_BETWEEN, self.summaries // SAMPLES))


@dataclass(frozen=True)
class Sample:
    """The resident memory of each checkpoint after `summaries` summaries; None if it was not up."""

    summaries: int
    memory_bytes: dict[str, int | None]


@dataclass(frozen=True)
class Growth:
    """One checkpoint's median memory in the second and in the last fifth of the samples."""

    early_bytes: float
    late_bytes: float

    @property
    def allowed_bytes(self) -> float:
        """The upper bound of the last fifth's median."""
        return self.early_bytes * (1 + ALLOWED_SHARE) + ALLOWED_BYTES

    @property
    def grows(self) -> bool:
        """True if the last fifth's median exceeds the bound."""
        return self.late_bytes > self.allowed_bytes


@dataclass(frozen=True)
class Run:
    """The host, summarizers and samples of a run, and the number of failures by reason."""

    settings: Settings
    host: str
    checkpoints: tuple[str, ...]
    samples: tuple[Sample, ...]
    failures: dict[str, int]
    lasted_s: float


def command(
    catalog: CatalogOption = DEFAULT_CATALOG,
    cache: CacheOption = DEFAULT_CACHE,
    summaries: Annotated[int, typer.Option(min=SAMPLES, help="in total")] = Settings.summaries,
    seed: Annotated[int, typer.Option(help="of texts and budgets")] = Settings.seed,
    json: options.Json = None,
) -> None:
    """Measures whether a summarizer's memory grows over many summaries."""
    settings = Settings(summaries=summaries, seed=seed)
    report = measure(*options.prepared(catalog, cache), settings, options.console)
    raise typer.Exit(present(report, options.console, json=json))


def measure(catalog: Catalog, variants: Mapping[str, Path], settings: Settings, console: Console) -> Report:
    """Serves the catalog, sends the requests and samples memory; takes many minutes. Raises LoadTestError."""
    names = summarizers(catalog)
    texts = mixed_texts(settings.summaries, settings.seed)
    requests = requests_of(texts, settings.budgets_s, settings.seed, names)
    started = perf_counter()
    with served(catalog, variants, console) as url, Progress(console=console) as bar:
        line = bar.add_task("summarising", total=len(requests))

        async def run() -> tuple[list[Sample], dict[str, int]]:
            async with http_client(f"{url}{PATH}", WITHIN_S) as client:
                return await sampled(
                    client, requests, settings.every, lambda: memory_of(url, names), lambda: bar.advance(line)
                )

        samples, failures = uvloop.run(run())
    return report_of(Run(settings, read_host().kind, names, tuple(samples), failures, perf_counter() - started))


async def sampled(
    client: Client,
    requests: Sequence[Asked],
    every: int,
    look: Callable[[], dict[str, int | None]],
    advance: Callable[[], None],
) -> tuple[list[Sample], dict[str, int]]:
    """Sends one request after another and calls `look` after every `every`. Returns samples and failure counts."""
    samples: list[Sample] = []
    failures: Counter[str] = Counter()
    done = 0
    async for one in asked_in_turn(client, requests, perf_counter):
        if isinstance(one.outcome, Unsummarised):
            failures[one.outcome.why] += 1
        elif one.outcome.checkpoint != one.asked.checkpoint:
            failures["answered by another checkpoint"] += 1
        done += 1
        if done % every == 0:
            samples.append(Sample(done, await asyncio.to_thread(look)))
        advance()
    return samples, dict(failures)


class _Load(Struct):
    memory_bytes: int | None


class _Checkpoint(Struct):
    name: str
    load: _Load


class _Checkpoints(Struct):
    checkpoints: list[_Checkpoint]


def memory_of(url: str, names: Sequence[str]) -> dict[str, int | None]:
    """The checkpoints' resident bytes, as last reported to the gateway; None if a checkpoint is not up."""
    with urlopen(f"{url}/checkpoints", timeout=10) as answer:  # the scheme is ours
        return read_memory(answer.read(), names)


def read_memory(document: bytes, names: Sequence[str]) -> dict[str, int | None]:
    """Reads resident bytes by checkpoint from a `/checkpoints` document."""
    found = {one.name: one.load.memory_bytes for one in msgspec.json.decode(document, type=_Checkpoints).checkpoints}
    return {name: found.get(name) for name in names}


def growth_of(samples: Sequence[Sample], checkpoint: str) -> Growth | None:
    """One checkpoint's growth. None if it was not up at every sample, or with fewer than five samples."""
    sizes = [sample.memory_bytes.get(checkpoint) for sample in samples]
    known = [size for size in sizes if size]
    if len(known) < len(sizes) or len(known) < FIFTHS:
        return None
    return Growth(median(fifth(known, 2)), median(fifth(known, FIFTHS)))


def fifth(sizes: Sequence[int], number: int) -> Sequence[int]:
    """Fifth `number` (1 to 5) of at least five values."""
    return sizes[len(sizes) * (number - 1) // FIFTHS : len(sizes) * number // FIFTHS]


def report_of(run: Run) -> Report:
    """One row per sample, the failures, and a verdict per checkpoint."""
    growths = {name: growth_of(run.samples, name) for name in run.checkpoints}
    rows = []
    for sample in run.samples:
        sizes = (sample.memory_bytes.get(name) for name in run.checkpoints)
        rows.append([str(sample.summaries), *("-" if size is None else f"{size / MB:.1f}" for size in sizes)])
    return Report(
        tables=[Table(f"resident memory, MB, on {run.host}", ["summaries", *run.checkpoints], rows)],
        document={**vars(run), "growths": {name: growth and _judged(growth) for name, growth in growths.items()}},
        verdicts=[
            *(Verdict(f"{count} summaries failed: {why}", met=False) for why, count in run.failures.items()),
            *(verdict(name, growth) for name, growth in growths.items()),
        ],
        remarks=[
            f"the rule: the median of the last fifth of the samples is at most {ALLOWED_SHARE:.0%} plus "
            f"{ALLOWED_BYTES / MB:g} MB over that of the second fifth"
        ],
    )


def verdict(checkpoint: str, growth: Growth | None) -> Verdict:
    """The verdict on one checkpoint; missed if it could not be judged."""
    if growth is None:
        return Verdict(f"{checkpoint}: not judged: it was not up at every sample, or there were too few", met=False)
    early, late, allowed = (size / MB for size in (growth.early_bytes, growth.late_bytes, growth.allowed_bytes))
    word = "grows" if growth.grows else "no growth"
    figures = f"{early:.1f} MB to {late:.1f} MB ({late - early:+.1f}), allowed up to {allowed:.1f}"
    return Verdict(f"{checkpoint}: {word}: {figures}", met=not growth.grows)


def _judged(growth: Growth) -> dict[str, object]:
    return {**vars(growth), "allowed_bytes": growth.allowed_bytes, "grows": growth.grows}
