"""`punctual bench coexistence`: a classifier's latency alone, and beside a summarizer that is always busy.

One gateway serves both throughout. Turns alternate in shuffled rounds, with equal arrivals within a round. Latency
counts from the intended send time. Durations are in seconds.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Annotated

import msgspec
import typer
import uvloop
from msgspec import Struct
from rich.console import Console

from deployments.engines.host import read_host
from exporters.options import DEFAULT_CACHE, DEFAULT_CATALOG, CacheOption, CatalogOption
from gateway.catalogs.catalog import Catalog, CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.request import CHECKPOINT
from gateway.model.tier import Tier
from loadtests import options
from loadtests.bench.measuring.company import (
    ALONE,
    Ordinary,
    compared,
    delay_remarks,
    load_faults,
    not_valid,
    p50,
    p95,
    where,
)
from loadtests.bench.measuring.report import Report, Table, Verdict, present
from loadtests.bench.measuring.rounds import Plan, Slot, Target, Turns, take_turns
from loadtests.bench.speed import raced_entry
from loadtests.bench.summaries import (
    PATH,
    NoSummarizer,
    Summarised,
    longest_papers,
    served,
    summary_of,
)
from loadtests.client import Client, http_client
from loadtests.offered_load import LoadSettings, offered, summarised
from loadtests.sentences import classify_body, shuffled_texts

BESIDE = "beside"
P95_CEILING = 1.3
BUSY_FLOOR = 0.95
"""The minimum share of a turn during which the summarizer must have a request in progress."""
LONG_TEXTS = 40
LEAD_S = 1.0
"""How long the summarizer is busy before the turn starts."""
WARM_UP_S = 3.0
SETTLE_S = 0.5
SUMMARY_WITHIN_S = 120.0


@dataclass(frozen=True)
class Settings:
    """The classifier's load, the length of a turn, and the number of clients that keep the summarizer busy.

    None chooses a checkpoint: the first classifier of the realtime tier, the slowest summarizer of the quality tier.
    """

    rate: float = 20.0
    seconds: float = 20.0
    rounds: int = 5
    budget_ms: float = 50.0
    summarizers: int = 1
    seed: int = 17
    classifier: str | None = None
    summarizer: str | None = None


@dataclass(frozen=True)
class Finished:
    """One summary: its start and end on the turn's clock, and its service time."""

    began_s: float
    ended_s: float
    service_time_s: float
    failure: str | None = None


@dataclass(frozen=True)
class Neighbour:
    """The busy summarizer's work within one turn; a summary partly outside counts in part.

    `asked_share` is the share of the turn with a request in progress, `engine_share` the share with the engine at work
    on one, both averaged over clients.
    """

    summaries: float
    per_s: float
    asked_share: float
    engine_share: float
    failures: dict[str, int]


@dataclass(frozen=True)
class Sample(Ordinary):
    """The classifier's results in one turn, and the summarizer's work if it was busy."""

    neighbour: Neighbour | None = None


@dataclass(frozen=True)
class Run:
    """The two checkpoints, the host, and all turns, warm-up included."""

    settings: Settings
    host: str
    classifier: str
    summarizer: str
    turns: Turns[Sample]
    lasted_s: float


@dataclass(frozen=True)
class _Asking:
    """The gateway's URL, the two checkpoints, and the request bodies for each."""

    url: str
    classifier: str
    summarizer: str
    sentences: Sequence[bytes]
    texts: Sequence[bytes]


def command(
    catalog: CatalogOption = DEFAULT_CATALOG,
    cache: CacheOption = DEFAULT_CACHE,
    classifier: Annotated[
        str | None, typer.Option(help="the one to measure (default: the first of the realtime tier)")
    ] = None,
    summarizer: Annotated[
        str | None, typer.Option(help="the one kept busy (default: the slowest of the quality tier)")
    ] = None,
    summarizers: Annotated[int, typer.Option(min=1, help="clients of the summarizer")] = Settings.summarizers,
    rate: Annotated[float, typer.Option(parser=options.positive, help="classifications a second")] = Settings.rate,
    seconds: Annotated[float, typer.Option(parser=options.positive, help="of each turn")] = Settings.seconds,
    rounds: options.Rounds = Settings.rounds,
    budget_ms: Annotated[float, typer.Option(parser=options.positive, help="of a classification")] = Settings.budget_ms,
    seed: Annotated[int, typer.Option(help="of order and arrivals")] = Settings.seed,
    json: options.Json = None,
) -> None:
    """Measures a classifier's latency beside a busy summarizer."""
    settings = Settings(rate, seconds, rounds, budget_ms, summarizers, seed, classifier, summarizer)
    report = measure(*options.prepared(catalog, cache), settings, options.console)
    raise typer.Exit(present(report, options.console, json=json))


def measure(catalog: Catalog, variants: Mapping[str, Path], settings: Settings, console: Console) -> Report:
    """Serves the catalog and takes all turns; lasts minutes. Raises LoadTestError."""
    classifier = raced_entry(catalog, settings.classifier)
    summarizers = summarizers_asked(catalog, settings.summarizer)
    sentences = [classify_body(text) for text in shuffled_texts()]
    texts = [text.body for text in longest_papers(LONG_TEXTS)]
    plan = Plan(
        (ALONE, BESIDE), rounds=settings.rounds, seconds=settings.seconds, warm_up_seconds=WARM_UP_S, seed=settings.seed
    )
    started = perf_counter()
    with served(catalog, variants, console) as url:
        summarizer = uvloop.run(_slowest(url, summarizers))
        asking = _Asking(url, classifier.name, summarizer, sentences, texts)
        turns = take_turns(plan, partial(_turn, asking, settings), console)
    run = Run(settings, read_host().kind, classifier.name, summarizer, turns, perf_counter() - started)
    return report_of(run)


def summarizers_asked(catalog: Catalog, name: str | None) -> list[CatalogEntry]:
    """The named summarizer, else those of the quality tier, else all. Raises NoSummarizer if there is none."""
    entries = catalog.of_task("summarize")
    if name is None:
        found = [entry for entry in entries if entry.tier is Tier.QUALITY] or list(entries)
    else:
        found = [entry for entry in entries if entry.name == name]
    if not found:
        wanted = f"no summarizer {name!r}" if name else "no summarizer"
        has = ", ".join(entry.name for entry in entries) or "none"
        raise NoSummarizer(f"the catalog {catalog.name} has {wanted}; summarizers: {has}")
    return found


class _Forecast(Struct):
    service_time: float


class _Candidate(Struct):
    checkpoint: str
    forecast_ms: _Forecast | None


class _Route(Struct):
    candidates: list[_Candidate]


def slowest_of(route: bytes, names: Sequence[str]) -> str:
    """The checkpoint with the longest service time in a `/route` document. Raises NoSummarizer if none is up."""
    candidates = msgspec.json.decode(route, type=_Route).candidates
    times = {one.checkpoint: one.forecast_ms.service_time for one in candidates if one.forecast_ms}
    up = [name for name in names if name in times]
    if not up:
        raise NoSummarizer(f"none of these is up: {', '.join(names)}")
    return max(up, key=lambda name: times[name])


async def _slowest(url: str, entries: Sequence[CatalogEntry]) -> str:
    (text,) = longest_papers(1)
    body = msgspec.json.encode({"task": "summarize", "inputs": text.text})
    async with http_client(f"{url}/route", SUMMARY_WITHIN_S) as client:
        reply = await client.post(body, {})
    return slowest_of(reply.body, [entry.name for entry in entries])


def _turn(asking: _Asking, settings: Settings, slot: Slot, seconds: float) -> Sample:
    load = LoadSettings(
        rate=settings.rate,
        seconds=seconds,
        budget_ms=settings.budget_ms,
        seed=settings.seed + slot.round,
        headers={CHECKPOINT: asking.classifier},
    )
    clients = settings.summarizers if slot.contestant == BESIDE else 0
    return uvloop.run(_offered(asking, load, clients))


async def _offered(asking: _Asking, load: LoadSettings, clients: int) -> Sample:
    """Offers the classifier's load while `clients` clients keep the summarizer busy."""
    await asyncio.sleep(SETTLE_S)
    async with (
        http_client(f"{asking.url}/classify", load.hang_s) as client,
        _kept_busy(asking, clients) as finished,
    ):
        if clients:
            await asyncio.sleep(LEAD_S)
        began_s = perf_counter()
        shots = await offered(client, asking.sentences, load, perf_counter)
        ended_s = perf_counter()
    neighbour = neighbour_within(finished, began_s, ended_s, clients) if clients else None
    return Sample(summarised(shots, load), neighbour)


@asynccontextmanager
async def _kept_busy(asking: _Asking, clients: int) -> AsyncIterator[list[Finished]]:
    """Lets `clients` clients request summaries without a pause. Waits for the last ones at the end.

    So no summary reaches into the next turn.
    """
    finished: list[Finished] = []
    over = asyncio.Event()
    texts = itertools.cycle(asking.texts)
    async with http_client(f"{asking.url}{PATH}", SUMMARY_WITHIN_S) as client, asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(keep_busy(client, texts, asking.summarizer, over, finished.append))
        try:
            yield finished
        finally:
            over.set()


async def keep_busy(
    client: Client,
    texts: Iterator[bytes],
    checkpoint: str,
    over: asyncio.Event,
    done: Callable[[Finished], None],
    clock: Clock = perf_counter,
    rest_s: float = SETTLE_S,
) -> None:
    """One client: requests one summary after another until `over`, and passes each to `done`.

    It pauses after a failure, so that immediate failures do not become a load.
    """
    while not over.is_set():
        began_s = clock()
        outcome = await summary_of(client, next(texts), {CHECKPOINT: checkpoint})
        if isinstance(outcome, Summarised):
            done(Finished(began_s, clock(), outcome.service_time_s))
        else:
            done(Finished(began_s, clock(), 0.0, outcome.why))
            await asyncio.sleep(rest_s)


def neighbour_within(finished: Sequence[Finished], began_s: float, ended_s: float, clients: int) -> Neighbour:
    """The clients' work between two instants. A summary partly outside counts in part."""
    lasted_s = ended_s - began_s
    summaries = asked_s = engine_s = 0.0
    for one in finished:
        inside_s = max(0.0, min(one.ended_s, ended_s) - max(one.began_s, began_s))
        part = inside_s / (one.ended_s - one.began_s) if inside_s else 0.0
        asked_s += inside_s
        summaries += part if one.failure is None else 0.0
        engine_s += part * one.service_time_s
    return Neighbour(
        summaries=summaries,
        per_s=summaries / lasted_s,
        asked_share=asked_s / lasted_s / clients,
        engine_share=engine_s / lasted_s / clients,
        failures=dict(Counter(one.failure for one in finished if one.failure is not None)),
    )


def report_of(run: Run) -> Report:
    """One row per round, the generator's delay, faults that invalidate the run, and the verdict."""
    return Report(
        tables=[_table(run)],
        document={
            **vars(run),
            "p95_ratios": run.turns.ratios(BESIDE, ALONE, 1, p95),
            "p95_ratio": run.turns.ratio(BESIDE, ALONE, 1, p95),
        },
        verdicts=[*not_valid(faults(run.turns)), verdict(run.turns)],
        remarks=delay_remarks(run.turns),
    )


def verdict(turns: Turns[Sample]) -> Verdict:
    """Whether the median ratio is within the bound. A run with a fault misses it."""
    ratio = turns.ratio(BESIDE, ALONE, 1, p95)
    target = Target("p95 beside a busy summarizer", "the classifier alone", ratio, P95_CEILING)
    return compared(target, faults(turns))


def faults(turns: Turns[Sample]) -> list[str]:
    """Faults that invalidate the run: a late generator, an idle summarizer, failed requests."""
    found: list[str] = []
    for turn in turns.timed:
        found += load_faults(turn, "classifications")
        neighbour = turn.sample.neighbour
        if neighbour is not None:
            found += [
                f"{where(turn.slot)}: {count} summaries failed: {why}" for why, count in neighbour.failures.items()
            ]
            if neighbour.asked_share < BUSY_FLOOR:
                found.append(f"{where(turn.slot)}: the summarizer was kept busy for {neighbour.asked_share:.0%} only")
    return found


def _table(run: Run) -> Table:
    settings, by_slot = run.settings, {turn.slot: turn.sample for turn in run.turns.taken}
    pairs = [tuple(by_slot[Slot(number, 1, name)] for name in (ALONE, BESIDE)) for number in run.turns.rounds()]
    clients = f"{settings.summarizers} client{'' if settings.summarizers == 1 else 's'}"
    return Table(
        f"{run.classifier} alone, and beside {run.summarizer}, on {run.host}",
        ["round", "p50, ms", "p95, ms", "in time", "summaries/s", "engine"],
        [
            [
                str(number),
                _compared(p50(alone), p50(beside)),
                _compared(p95(alone), p95(beside)),
                f"{alone.load.attainment:.1%}, {beside.load.attainment:.1%}",
                f"{beside.neighbour.per_s:.2f}" if beside.neighbour else "-",
                f"{beside.neighbour.engine_share:.0%}" if beside.neighbour else "-",
            ]
            for number, (alone, beside) in zip(run.turns.rounds(), pairs, strict=True)
        ],
        f"{settings.rate:g} requests/s for {settings.seconds:g} s a turn, {clients} of the summarizer; alone, beside "
        f"(ratio); in time: within {settings.budget_ms:g} ms; engine: the summarizer's engine time, share of the turn",
    )


def _compared(alone_s: float, beside_s: float) -> str:
    return f"{alone_s * 1000:.2f}, {beside_s * 1000:.2f} ({beside_s / alone_s:.2f} ×)"
