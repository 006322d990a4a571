"""`punctual bench slow-clients`: an ordinary client's p95 alone, and beside a crowd of slow clients.

Crowds are slow with their heads, their bodies, or reading. One gateway serves throughout; turns alternate in shuffled
rounds, with equal arrivals within a round. Latency counts from the intended send time. Durations are in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import Annotated

import typer
from rich.console import Console

from deployments.engines.host import read_host
from exporters.options import DEFAULT_CACHE, DEFAULT_CATALOG, CacheOption, CatalogOption
from gateway.catalogs.catalog import Catalog
from gateway.model.request import CHECKPOINT
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
from loadtests.bench.measuring.rounds import Plan, Slot, Target, Turns, shown, take_turns
from loadtests.bench.peers.crowd import Crowd, Kind, crowd
from loadtests.bench.peers.servers import gateway
from loadtests.bench.speed import raced_entry
from loadtests.offered_load import LoadReport, LoadSettings, offer, summarised
from loadtests.sentences import classify_body, shuffled_texts

P95_CEILING = 1.2
OPEN_FLOOR = 0.9
"""The least share of the crowd that must be connected, on average over a turn."""

SETTLE_S = 0.5
"""How long the gateway has after a crowd has left, or has come."""

WARM_UP_S = 2.0


@dataclass(frozen=True)
class Settings:
    """The ordinary client's load, the length of a turn, and the number of slow clients."""

    clients: int = 1000
    rate: float = 50.0
    seconds: float = 10.0
    rounds: int = 5
    seed: int = 17
    checkpoint: str | None = None


@dataclass(frozen=True)
class Sample(Ordinary):
    """The ordinary client's results in one turn, and what became of the crowd if there was one."""

    crowd: Crowd | None = None


@dataclass(frozen=True)
class Run:
    """The checkpoint, the host, and all turns, warm-up included."""

    settings: Settings
    host: str
    checkpoint: str
    turns: Turns[Sample]
    lasted_s: float


def command(
    catalog: CatalogOption = DEFAULT_CATALOG,
    cache: CacheOption = DEFAULT_CACHE,
    checkpoint: options.Checkpoint = None,
    clients: Annotated[int, typer.Option(min=1, max=25_000, help="slow clients in a crowd")] = Settings.clients,
    rate: Annotated[float, typer.Option(parser=options.positive, help="ordinary requests a second")] = Settings.rate,
    seconds: Annotated[float, typer.Option(parser=options.positive, help="of each turn")] = Settings.seconds,
    rounds: options.Rounds = Settings.rounds,
    seed: Annotated[int, typer.Option(help="of order and arrivals")] = Settings.seed,
    json: options.Json = None,
) -> None:
    """Measures an ordinary client's latency beside a crowd of slow ones."""
    settings = Settings(clients, rate, seconds, rounds, seed, checkpoint)
    report = measure(*options.prepared(catalog, cache), settings, options.console)
    raise typer.Exit(present(report, options.console, json=json))


def measure(catalog: Catalog, variants: Mapping[str, Path], settings: Settings, console: Console) -> Report:
    """Serves one classifier and takes all turns; lasts minutes. Raises LoadTestError."""
    name = raced_entry(catalog, settings.checkpoint).name
    plan = Plan(
        (ALONE, *Kind),
        rounds=settings.rounds,
        seconds=settings.seconds,
        warm_up_seconds=WARM_UP_S,
        seed=settings.seed,
    )
    started = perf_counter()
    with gateway(catalog.only([name]), {name: variants[name]}) as server:
        turns = take_turns(plan, partial(_turn, server.url, name, settings), console)
    return report_of(Run(settings, read_host().kind, name, turns, perf_counter() - started))


def _turn(url: str, checkpoint: str, settings: Settings, slot: Slot, seconds: float) -> Sample:
    """Offers the ordinary load, beside a crowd unless the turn is for the client alone."""
    load = LoadSettings(settings.rate, seconds, seed=settings.seed + slot.round, headers={CHECKPOINT: checkpoint})
    bodies = [classify_body(text) for text in shuffled_texts()]

    def offered() -> LoadReport:
        Event().wait(SETTLE_S)
        return summarised(offer(f"{url}/classify", bodies, load), load)

    if slot.contestant == ALONE:
        return Sample(offered())
    with crowd(url, Kind(slot.contestant), settings.clients) as end:
        return Sample(offered(), end())


def report_of(run: Run) -> Report:
    """One row a crowd, the crowd's own account, faults that invalidate the run, and a verdict for each crowd."""
    return Report(
        tables=[_table(run)],
        document={
            **vars(run),
            "p95_ratios": {kind: run.turns.ratios(kind, ALONE, 1, p95) for kind in Kind},
        },
        verdicts=[*not_valid(faults(run.turns)), *verdicts(run.turns)],
        remarks=delay_remarks(run.turns),
    )


def verdicts(turns: Turns[Sample]) -> list[Verdict]:
    """Whether the median ratio beside each crowd is within the bound. A run with a fault misses all."""
    ratios = {kind: turns.ratio(kind, ALONE, 1, p95) for kind in Kind}
    targets = (Target(f"p95 beside {kind}", "the client alone", ratio, P95_CEILING) for kind, ratio in ratios.items())
    found = faults(turns)
    return [compared(target, found) for target in targets]


def faults(turns: Turns[Sample]) -> list[str]:
    """Faults that invalidate the run: a late generator, requests that failed, a crowd that was not there."""
    found: list[str] = []
    for turn in turns.timed:
        found += load_faults(turn)
        beside = turn.sample.crowd
        if beside is not None and beside.open < OPEN_FLOOR * beside.clients:
            found.append(f"{where(turn.slot)}: of {beside.clients} slow clients {beside.open:.0f} were connected")
    return found


def _table(run: Run) -> Table:
    settings, turns = run.settings, run.turns
    rows = []
    for name in (ALONE, *Kind):
        figures = [shown(turns.spread(name, 1, figure), scale=1000) for figure in (p50, p95)]
        ratio = "-" if name == ALONE else shown(turns.ratio(name, ALONE, 1, p95))
        crowds = [one.sample.crowd for one in turns.timed if one.slot.contestant == name and one.sample.crowd]
        connected = f"{sum(one.open for one in crowds) / len(crowds):.0f}" if crowds else "-"
        rows.append((name, *figures, ratio, connected, str(sum(one.ended for one in crowds)) if crowds else "-"))
    return Table(
        f"{run.checkpoint} beside {settings.clients} slow clients, on {run.host}",
        ("company", "p50, ms", "p95, ms", "p95, × alone", "connected", "ended"),
        rows,
        f"{settings.rate:g} requests/s for {settings.seconds:g} s a turn, {len(turns.rounds())} rounds; "
        "median (range); connected: slow clients, on average; ended: connections that the gateway ended, in all",
    )
