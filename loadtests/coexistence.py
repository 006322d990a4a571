"""`punctual bench coexistence`: the fast classifier's latency alone, and beside a summarizer that is never idle.

One gateway serves both all the time. Turns alternate in shuffled rounds, with equal arrivals within a round; latency
counts from the intended send time.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import msgspec
import uvloop
from msgspec import Struct
from rich.console import Console
from rich.progress import Progress

from deployments.engines.host import read_host
from exporters.starter.data import HELDOUT
from gateway.api.headers import CHECKPOINT
from gateway.catalogs.catalog import Catalog, CatalogEntry
from gateway.model.tier import Tier
from loadtests.bench.peers.servers import gateway
from loadtests.bench.speed import raced_entry
from loadtests.client import Client, http_client
from loadtests.coexistence_turns import Company, Finished, Place, Turn, neighbour_within, order
from loadtests.offered_load import Clock, LoadSettings, offered, summarised
from loadtests.sentences import classify_body, shuffled_texts
from loadtests.summary_answers import PATH, Summarised, summary_headers, summary_of
from loadtests.summary_errors import NoSummarizer
from loadtests.summary_texts import SHIPPED, TextFiles, longest_papers, summarize_body
from loadtests.turns import WARM_UP

LONG_TEXTS = 40
LEAD_S = 1.0
"""How long the neighbour is busy before its turn begins."""

SETTLE_S = 0.5
SUMMARY_WITHIN_S = 120.0


@dataclass(frozen=True)
class CoexistenceSettings:
    """The classifier's load, turns of so many seconds, and how many clients keep the summarizer busy.

    A checkpoint that is None is chosen: the first classifier of the realtime tier, the slowest summarizer of the
    quality tier.
    """

    rate: float = 20.0
    seconds: float = 20.0
    rounds: int = 5
    warm_up_seconds: float = 3.0
    budget_ms: float = 50.0
    summarizers: int = 1
    seed: int = 17
    classifier: str | None = None
    summarizer: str | None = None
    heldout: Path = HELDOUT
    files: TextFiles = SHIPPED


@dataclass(frozen=True)
class CoexistenceReport:
    """Who was measured beside whom, on what host, and every turn, the warm-up's too."""

    settings: CoexistenceSettings
    host: str
    classifier: str
    summarizer: str
    turns: tuple[Turn, ...]
    lasted_s: float


@dataclass(frozen=True)
class _Asking:
    """The two checkpoints that are asked, where, and for what."""

    url: str
    classifier: str
    summarizer: str
    sentences: Sequence[bytes]
    texts: Sequence[bytes]


def coexistence(
    catalog: Catalog, variants: Mapping[str, Path], settings: CoexistenceSettings, console: Console
) -> CoexistenceReport:
    """Serves the catalog and takes all turns; minutes. Raises LoadTestError."""
    classifier = raced_entry(catalog, settings.classifier)
    summarizers = summarizers_asked(catalog, settings.summarizer)
    sentences = [classify_body(text) for text in shuffled_texts(settings.heldout)]
    texts = [summarize_body(text) for text in longest_papers(LONG_TEXTS, settings.files)]
    started = perf_counter()
    with ExitStack() as while_up:
        with console.status("starting the gateway"):
            url = while_up.enter_context(gateway(catalog, variants)).url
        runner = while_up.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        summarizer = runner.run(_slowest(url, summarizers, settings.files))
        asking = _Asking(url, classifier.name, summarizer, sentences, texts)
        turns = []
        with Progress(console=console) as bar:
            places = list(order(settings.rounds, settings.seed))
            line = bar.add_task("warming up", total=sum(_seconds(place, settings) for place in places))
            for place in places:
                stage = "warming up" if place.round == WARM_UP else f"round {place.round} of {settings.rounds}"
                bar.update(line, description=f"{stage}: {classifier.name} {place.company}")
                turns.append(runner.run(_turn(asking, place, settings)))
                bar.advance(line, _seconds(place, settings))
    return CoexistenceReport(
        settings, read_host().kind, classifier.name, summarizer, tuple(turns), perf_counter() - started
    )


def summarizers_asked(catalog: Catalog, name: str | None) -> list[CatalogEntry]:
    """The named summarizer, or those of the quality tier, or all where that has none. Raises NoSummarizer."""
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
    """The one of these checkpoints that takes most by the document of `/route`. Raises NoSummarizer if none is up."""
    candidates = msgspec.json.decode(route, type=_Route).candidates
    times = {one.checkpoint: one.forecast_ms.service_time for one in candidates if one.forecast_ms}
    up = [name for name in names if name in times]
    if not up:
        raise NoSummarizer(f"none of these is up: {', '.join(names)}")
    return max(up, key=lambda name: times[name])


async def _slowest(url: str, entries: Sequence[CatalogEntry], files: TextFiles) -> str:
    (text,) = longest_papers(1, files)
    body = msgspec.json.encode({"task": "summarize", "inputs": text.text})
    async with http_client(f"{url}/route", SUMMARY_WITHIN_S) as client:
        reply = await client.post(body, {})
    return slowest_of(reply.body, [entry.name for entry in entries])


async def _turn(asking: _Asking, place: Place, settings: CoexistenceSettings) -> Turn:
    load = LoadSettings(
        rate=settings.rate,
        seconds=_seconds(place, settings),
        budget_ms=settings.budget_ms,
        seed=settings.seed + place.round,
        headers={CHECKPOINT: asking.classifier},
    )
    await asyncio.sleep(SETTLE_S)
    async with http_client(f"{asking.url}/classify", load.hang_s) as client:
        if place.company is Company.ALONE:
            return Turn(place, summarised(await offered(client, asking.sentences, load, perf_counter), load))
        async with _kept_busy(asking, settings.summarizers) as finished:
            await asyncio.sleep(LEAD_S)
            began_s = perf_counter()
            shots = await offered(client, asking.sentences, load, perf_counter)
            ended_s = perf_counter()
    neighbour = neighbour_within(finished, began_s, ended_s, settings.summarizers)
    return Turn(place, summarised(shots, load), neighbour)


@asynccontextmanager
async def _kept_busy(asking: _Asking, clients: int) -> AsyncIterator[list[Finished]]:
    """Summaries asked for without a pause by so many clients; at the end the last ones are waited for.

    So nothing of them reaches into the next turn, and all have finished once the context has ended.
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
) -> None:
    """One client's summaries, one after the other until it is over, each told when it has finished."""
    headers = summary_headers(pinned=checkpoint)
    while not over.is_set():
        began_s = clock()
        outcome = await summary_of(client, next(texts), headers)
        if isinstance(outcome, Summarised):
            done(Finished(began_s, clock(), outcome.service_time_s))
        else:
            done(Finished(began_s, clock(), 0.0, outcome.why))
            await asyncio.sleep(SETTLE_S)  # one that fails at once must not become a load of its own


def _seconds(place: Place, settings: CoexistenceSettings) -> float:
    return min(settings.warm_up_seconds, settings.seconds) if place.round == WARM_UP else settings.seconds
