"""`punctual bench memory`: whether a summarizer's process grows while it writes many summaries.

Summarizers write in turn, and the gateway says how much resident memory each has. The median of the last fifth of the
samples may be 2 % and 2 MB over the median of the second fifth: the first fifth is for caches and buffers that fill
once, medians ignore a moment's peak, and the allowance is what one process's figure wanders by.
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
from loadtests.bench.report import Report, Table, Verdict, present
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
    """How many summaries of mixed texts, and the range of seconds that their budgets are drawn from."""

    summaries: int = 1000
    budgets_s: tuple[float, float] = (0.1, 3.0)
    seed: int = 23

    @property
    def every(self) -> int:
        """How many summaries lie between two samples: fifty, or fewer if there would not be twenty samples."""
        return max(1, min(MOST_BETWEEN, self.summaries // SAMPLES))


@dataclass(frozen=True)
class Sample:
    """The resident memory of each checkpoint after this many summaries; None of one that was not up."""

    summaries: int
    memory_bytes: dict[str, int | None]


@dataclass(frozen=True)
class Growth:
    """One checkpoint's median memory in the second fifth of the samples and in the last."""

    early_bytes: float
    late_bytes: float

    @property
    def allowed_bytes(self) -> float:
        """The most that the last fifth's median may be."""
        return self.early_bytes * (1 + ALLOWED_SHARE) + ALLOWED_BYTES

    @property
    def grows(self) -> bool:
        """Whether it is more than that."""
        return self.late_bytes > self.allowed_bytes


@dataclass(frozen=True)
class Run:
    """Which summarizers were asked on what host, every sample, and why requests had no answer, with counts."""

    settings: Settings
    host: str
    checkpoints: tuple[str, ...]
    samples: tuple[Sample, ...]
    failures: dict[str, int]
    lasted_s: float


def command(
    catalog: CatalogOption = DEFAULT_CATALOG,
    cache: CacheOption = DEFAULT_CACHE,
    summaries: Annotated[int, typer.Option(min=SAMPLES, help="in all")] = Settings.summaries,
    seed: Annotated[int, typer.Option(help="of texts and budgets")] = Settings.seed,
    json: options.Json = None,
) -> None:
    """Measures whether a replica's memory grows over many summaries."""
    settings = Settings(summaries=summaries, seed=seed)
    report = measure(*options.prepared(catalog, cache), settings, options.console)
    raise typer.Exit(present(report, options.console, json=json))


def measure(catalog: Catalog, variants: Mapping[str, Path], settings: Settings, console: Console) -> Report:
    """Serves the catalog, asks and samples; many minutes. Raises LoadTestError."""
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
    """Sends one request after the other and looks after each `every` of them; the samples, and failures with counts."""
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
    """The resident memory of these checkpoints as the gateway last heard, in bytes; None of one that is not up."""
    with urlopen(f"{url}/checkpoints", timeout=10) as answer:  # the scheme is ours
        return read_memory(answer.read(), names)


def read_memory(document: bytes, names: Sequence[str]) -> dict[str, int | None]:
    """Reads that from the document of `/checkpoints`."""
    found = {one.name: one.load.memory_bytes for one in msgspec.json.decode(document, type=_Checkpoints).checkpoints}
    return {name: found.get(name) for name in names}


def growth_of(samples: Sequence[Sample], checkpoint: str) -> Growth | None:
    """Judges one checkpoint. None if it was not up at some sample, or the samples are fewer than five."""
    sizes = [sample.memory_bytes.get(checkpoint) for sample in samples]
    known = [size for size in sizes if size]
    if len(known) < len(sizes) or len(known) < FIFTHS:
        return None
    return Growth(median(fifth(known, 2)), median(fifth(known, FIFTHS)))


def fifth(sizes: Sequence[int], number: int) -> Sequence[int]:
    """The first (1) to the last (5) fifth of at least five values."""
    return sizes[len(sizes) * (number - 1) // FIFTHS : len(sizes) * number // FIFTHS]


def report_of(run: Run) -> Report:
    """One row a sample, failures, and what the rule says of each checkpoint."""
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
            f"the rule: the median of the last fifth of the samples is at most {ALLOWED_SHARE:.0%} and "
            f"{ALLOWED_BYTES / MB:g} MB over that of the second fifth"
        ],
    )


def verdict(checkpoint: str, growth: Growth | None) -> Verdict:
    """What the rule says of one checkpoint, with the figures. One that could not be judged is not steady."""
    if growth is None:
        said = f"{checkpoint}: not judged: it was not up at every sample, or there were too few"
        return Verdict(said, met=False)
    early, late, allowed = (size / MB for size in (growth.early_bytes, growth.late_bytes, growth.allowed_bytes))
    word = "grows" if growth.grows else "no growth"
    said = f"{checkpoint}: {word}: {early:.1f} MB to {late:.1f} MB ({late - early:+.1f}), allowed up to {allowed:.1f}"
    return Verdict(said, met=not growth.grows)


def _judged(growth: Growth) -> dict[str, object]:
    return {**vars(growth), "allowed_bytes": growth.allowed_bytes, "grows": growth.grows}
