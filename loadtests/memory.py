"""`punctual bench memory`: many summaries by every summarizer in turn, and the resident memory of each meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from urllib.request import urlopen

import msgspec
import uvloop
from msgspec import Struct
from rich.console import Console
from rich.progress import Progress

from deployments.engines.host import read_host
from gateway.catalogs.catalog import Catalog
from loadtests.bench.peers.servers import gateway
from loadtests.client import Client, http_client
from loadtests.memory_growth import Growth, Sample, growth_of
from loadtests.summary_answers import PATH, Unsummarised, summary_headers, summary_of
from loadtests.summary_errors import NoSummarizer
from loadtests.summary_texts import SHIPPED, TextFiles, mixed_texts, summarize_body

SAMPLES = 20
MOST_BETWEEN = 50
WITHIN_S = 60.0


@dataclass(frozen=True)
class MemorySettings:
    """How many summaries of mixed texts, and the range of seconds that their budgets are drawn from."""

    summaries: int = 1000
    least_s: float = 0.1
    most_s: float = 3.0
    seed: int = 23
    files: TextFiles = SHIPPED

    @property
    def every(self) -> int:
        """How many summaries lie between two samples: fifty, or fewer where there would not be twenty samples."""
        return max(1, min(MOST_BETWEEN, self.summaries // SAMPLES))


@dataclass(frozen=True)
class Job:
    """One summary to ask for: by whom, within how many seconds, and the request's body."""

    checkpoint: str
    budget_s: float
    body: bytes


@dataclass(frozen=True)
class MemoryReport:
    """Which summarizers were asked on what host, every sample, and why requests had no answer, with counts."""

    settings: MemorySettings
    host: str
    checkpoints: tuple[str, ...]
    samples: tuple[Sample, ...]
    failures: dict[str, int]
    lasted_s: float

    @property
    def growths(self) -> dict[str, Growth | None]:
        """The rule's verdict of each checkpoint; None where there is nothing to judge."""
        return {name: growth_of(self.samples, name) for name in self.checkpoints}

    @property
    def steady(self) -> bool:
        """Whether every summary was answered and every checkpoint was judged not to grow."""
        return not self.failures and all(one is not None and not one.grows for one in self.growths.values())


def memory(catalog: Catalog, variants: Mapping[str, Path], settings: MemorySettings, console: Console) -> MemoryReport:
    """Serves the catalog, asks and samples; many minutes. Raises LoadTestError."""
    names = tuple(entry.name for entry in catalog.of_task("summarize"))
    if not names:
        raise NoSummarizer(f"the catalog {catalog.name} has no summarizer")
    jobs = drawn(names, settings)
    started = perf_counter()
    with ExitStack() as while_up:
        with console.status("starting the gateway"):
            url = while_up.enter_context(gateway(catalog, variants)).url
        bar = while_up.enter_context(Progress(console=console))
        line = bar.add_task("summarising", total=len(jobs))

        async def run() -> tuple[list[Sample], dict[str, int]]:
            async with http_client(f"{url}{PATH}", WITHIN_S) as client:
                return await sampled(
                    client, jobs, settings.every, lambda: memory_of(url, names), lambda: bar.advance(line)
                )

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            samples, failures = runner.run(run())
    return MemoryReport(settings, read_host().kind, names, tuple(samples), failures, perf_counter() - started)


def drawn(checkpoints: Sequence[str], settings: MemorySettings) -> list[Job]:
    """The jobs in their order, checkpoints taking turns, budgets log-uniform. Equal seeds, equal jobs.

    Raises NoTexts.
    """
    texts = mixed_texts(settings.summaries, settings.seed, settings.files)
    chance = random.Random(settings.seed)
    least, most = math.log(settings.least_s), math.log(settings.most_s)
    return [
        Job(name, math.exp(chance.uniform(least, most)), summarize_body(text))
        for name, text in zip(itertools.cycle(checkpoints), texts, strict=False)
    ]


async def sampled(
    client: Client,
    jobs: Sequence[Job],
    every: int,
    look: Callable[[], dict[str, int | None]],
    advance: Callable[[], None],
) -> tuple[list[Sample], dict[str, int]]:
    """Does one job after the other and looks after each `every` of them; the samples, and failures with counts."""
    samples: list[Sample] = []
    failures: Counter[str] = Counter()
    for at, job in enumerate(jobs, start=1):
        outcome = await summary_of(client, job.body, summary_headers(job.budget_s, pinned=job.checkpoint))
        if isinstance(outcome, Unsummarised):
            failures[outcome.why] += 1
        elif outcome.checkpoint != job.checkpoint:
            failures["answered by another checkpoint"] += 1
        if at % every == 0:
            samples.append(Sample(at, await asyncio.to_thread(look)))
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
    """The same, from the document of `/checkpoints`."""
    found = {one.name: one.load.memory_bytes for one in msgspec.json.decode(document, type=_Checkpoints).checkpoints}
    return {name: found.get(name) for name in names}
