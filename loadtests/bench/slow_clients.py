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
from loadtests.bench.measuring.report import Report, Table, Verdict, present
from loadtests.bench.measuring.rounds import WARM_UP, Plan, Slot, Target, Turn, Turns, shown, take_turns
from loadtests.bench.peers.crowd import Crowd, Kind, crowd
from loadtests.bench.peers.servers import gateway
from loadtests.bench.speed import raced_entry
from loadtests.offered_load import Ending, LoadReport, LoadSettings, Quantiles, offer, summarised
from loadtests.sentences import classify_body, shuffled_texts

ALONE = "alone"
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
class Sample:
    """The ordinary client's results in one turn, and what became of the crowd if there was one."""

    load: LoadReport
    crowd: Crowd | None = None

    @property
    def latency(self) -> Quantiles:
        """The latency of the answers, in a turn whose round counts."""
        assert self.load.latency is not None, "a round that counts has answers in every turn"
        return self.load.latency

    @property
    def invalid(self) -> str:
        """The reason, if nothing was answered; else empty. Other faults invalidate the whole run, not one round."""
        return "" if self.load.latency else "nothing was answered"


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
    found = faults(run.turns)
    counted = [turn.sample for turn in _not_warming(run.turns)]
    lags = [one.load.lag.p99_s for one in counted if one.load.lag]
    delay = f"the generator's own delay, p99: {max(lags, default=0) * 1000:.1f} ms in the worst turn"
    return Report(
        tables=[_table(run)],
        document={
            **vars(run),
            "p95_ratios": {kind: run.turns.ratios(kind, ALONE, 1, _p95) for kind in Kind},
        },
        verdicts=[*(Verdict(f"NOT VALID: {fault}", met=False) for fault in found), *verdicts(run.turns)],
        remarks=[f"{delay}; it may be {LoadSettings.lag_bound_s * 1000:g} ms"],
    )


def verdicts(turns: Turns[Sample]) -> list[Verdict]:
    """Whether the median ratio beside each crowd is within the bound. A run with a fault misses all."""
    valid, found = not faults(turns), []
    for kind in Kind:
        target = Target(f"p95 beside {kind}", "the client alone", turns.ratio(kind, ALONE, 1, _p95), P95_CEILING)
        said = target.verdict()
        found.append(said if valid else Verdict(f"not valid: {said.sentence}", met=False))
    return found


def faults(turns: Turns[Sample]) -> list[str]:
    """Faults that invalidate the run: a late generator, requests that failed, a crowd that was not there."""
    found = []
    for turn in _not_warming(turns):
        where, load = f"round {turn.slot.round}, {turn.slot.contestant}", turn.sample.load
        if not load.valid and load.lag is not None:
            found.append(f"{where}: the generator sent late, p99 {load.lag.p99_s * 1000:.1f} ms")
        if not load.offered:
            found.append(f"{where}: nothing was offered")
        lost = {ending: load.endings[ending] for ending in (Ending.REFUSED, Ending.FAILED, Ending.HUNG)}
        found += [f"{where}: {count} requests {ending}" for ending, count in lost.items() if count]
        beside = turn.sample.crowd
        if beside is not None and beside.open < OPEN_FLOOR * beside.clients:
            found.append(f"{where}: of {beside.clients} slow clients {beside.open:.0f} were connected")
    return found


def _not_warming(turns: Turns[Sample]) -> list[Turn[Sample]]:
    return [turn for turn in turns.taken if turn.slot.round != WARM_UP]


def _table(run: Run) -> Table:
    settings, turns = run.settings, run.turns
    rows = []
    for name in (ALONE, *Kind):
        p50, p95 = (shown(turns.spread(name, 1, figure), scale=1000) for figure in (_p50, _p95))
        ratio = "-" if name == ALONE else shown(turns.ratio(name, ALONE, 1, _p95))
        crowds = [one.sample.crowd for one in _not_warming(turns) if one.slot.contestant == name and one.sample.crowd]
        connected = f"{sum(one.open for one in crowds) / len(crowds):.0f}" if crowds else "-"
        rows.append((name, p50, p95, ratio, connected, str(sum(one.ended for one in crowds)) if crowds else "-"))
    return Table(
        f"{run.checkpoint} beside {settings.clients} slow clients, on {run.host}",
        ("company", "p50, ms", "p95, ms", "p95, × alone", "connected", "ended"),
        rows,
        f"{settings.rate:g} requests/s for {settings.seconds:g} s a turn, {len(turns.rounds())} rounds; "
        "median (range); connected: slow clients, on average; ended: connections that the gateway ended, in all",
    )


def _p50(sample: Sample) -> float:
    return sample.latency.p50_s


def _p95(sample: Sample) -> float:
    return sample.latency.p95_s
