"""The race behind `punctual bench speed`: one variant, one host, real sentences; the engine bare, FastAPI, the gateway.

All servers are up from the first turn to the last and alternate in shuffled rounds, so that a slow minute of the
machine falls on everyone. `verdicts` says what the race was for; `race_report` shows it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import psutil
from rich.console import Console
from rich.progress import Progress

from deployments.engines.host import read_host
from exporters.starter.data import HELDOUT
from gateway.api.headers import BUDGET, CHECKPOINT
from gateway.catalogs.catalog import Catalog, CatalogEntry
from gateway.model.tier import Tier
from gateway.tasks import read_manifest
from loadtests.answers import check_same_answers, choosing_budget_ms, decided, elsewhere
from loadtests.contestants import Contestant, EngineContestant, server_contestant, write_sentences
from loadtests.errors import NoRace
from loadtests.processes import Server, cpu_seconds, fastapi, gateway, idle_shares
from loadtests.sentences import shuffled_texts
from loadtests.turns import WARM_UP, Slot, Turn, Turns, schedule
from loadtests.wrk import Wrk

ENGINE, PINNED, ROUTED = "in-process", "gateway", "gateway-routed"
BASELINES = {"fastapi-1": 1, "fastapi-2": 2}
IDLE_CEILING = 0.02


@dataclass(frozen=True)
class RaceSettings:
    """How long and how often: a turn lasts whole `seconds`; `connections` is the load beside that of one caller.

    After the race the FastAPI servers run `alone_rounds` more, once the gateway is gone: what its rest cost them.
    """

    rounds: int = 5
    seconds: int = 5
    warm_up_seconds: int = 2
    connections: int = 16
    engine_processes: int = 2
    alone_rounds: int = 3
    idle_seconds: float = 5.0
    seed: int = 20
    routed: bool = False
    checkpoint: str | None = None
    heldout: Path = HELDOUT


@dataclass(frozen=True)
class RaceReport:
    """What was raced, on what, and every turn of it.

    `idle` are shares of one core, by server; `others` is what else the machine was busy with, as a share of all of
    it. `routed_elsewhere` counts the requests that the gateway, free to choose, gave to another checkpoint. `alone`
    are the turns of FastAPI after the gateway was stopped.
    """

    checkpoint: str
    variant: str
    host: str
    sentences: int
    settings: RaceSettings
    idle: dict[str, float]
    others: float
    routed_budget_ms: float | None
    routed_elsewhere: float
    turns: Turns
    alone: Turns
    lasted_s: float


def race(catalog: Catalog, variants: Mapping[str, Path], settings: RaceSettings, console: Console) -> RaceReport:
    """Runs the whole race; minutes. Raises LoadTestError."""
    wrk = Wrk.find()
    entry = raced_entry(catalog, settings.checkpoint)
    folder = variants[entry.name]
    texts = shuffled_texts(settings.heldout)
    started = perf_counter()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loadtests-")))
        engine = EngineContestant(ENGINE, folder, write_sentences(scratch, texts), settings.engine_processes)
        servers = [stack.enter_context(fastapi(folder, threads)) for threads in BASELINES.values()]
        peers = [server_contestant(server.name, server.url, {}, wrk, scratch, texts) for server in servers]
        with ExitStack() as while_up:
            with console.status("starting the gateway"):
                ours = while_up.enter_context(gateway(catalog, variants))
            gates = [server_contestant(PINNED, ours.url, {CHECKPOINT: entry.name}, wrk, scratch, texts)]
            budget_ms = choosing_budget_ms(ours.url, entry, texts[0]) if settings.routed else None
            if budget_ms is not None:
                headers = {BUDGET: f"{budget_ms:.3f}"}
                gates.append(server_contestant(ROUTED, ours.url, headers, wrk, scratch, texts))
            check_same_answers([*peers, *gates], folder, texts)
            with console.status("watching the idle servers"):
                idle, others = _idle([ours, *servers], settings.idle_seconds)
            before = decided(ours.url)
            turns = _run([engine, *peers, *gates], settings.rounds, settings, console)
            strayed = elsewhere(before, decided(ours.url), entry.name)
        alone = _run(peers, settings.alone_rounds, settings, console)
    return RaceReport(
        checkpoint=entry.name,
        variant=read_manifest(folder).variant,
        host=read_host().kind,
        sentences=len(texts),
        settings=settings,
        idle=idle,
        others=others,
        routed_budget_ms=budget_ms,
        routed_elsewhere=strayed,
        turns=turns,
        alone=alone,
        lasted_s=perf_counter() - started,
    )


def raced_entry(catalog: Catalog, checkpoint: str | None) -> CatalogEntry:
    """The named classifier, or the catalog's first of the realtime tier. Raises NoRace."""
    entries = catalog.of_task("classify")
    if checkpoint is None:
        found = next((entry for entry in entries if entry.tier is Tier.REALTIME), None)
    else:
        found = next((entry for entry in entries if entry.name == checkpoint), None)
    if found is None:
        wanted = f"no classifier {checkpoint!r}" if checkpoint else "no classifier of the realtime tier"
        raise NoRace(f"the catalog {catalog.name} has {wanted}; it has {', '.join(entry.name for entry in entries)}")
    return found


def _idle(servers: Sequence[Server], seconds: float) -> tuple[dict[str, float], float]:
    """What each server uses of a core at rest, and how busy the machine is with anything else, from 0 to 1."""
    mine = psutil.Process()
    psutil.cpu_percent()
    own_before = cpu_seconds([mine])
    idle = idle_shares(servers, seconds)
    busy_cores = psutil.cpu_percent() / 100 * (psutil.cpu_count() or 1)
    own = (cpu_seconds([mine]) - own_before) / seconds
    return idle, max(0.0, busy_cores - own - sum(idle.values())) / (psutil.cpu_count() or 1)


def _run(contestants: Sequence[Contestant], rounds: int, settings: RaceSettings, console: Console) -> Turns:
    by_name = {contestant.name: contestant for contestant in contestants}
    slots = list(schedule(list(by_name), (1, settings.connections), rounds, settings.seed))
    taken = []
    with Progress(console=console) as bar:
        line = bar.add_task("warming up", total=sum(_seconds(slot, settings) for slot in slots))
        for slot in slots:
            stage = "warming up" if slot.round == WARM_UP else f"round {slot.round} of {rounds}"
            bar.update(line, description=f"{stage}: {slot.contestant}, {slot.connections} at once")
            seconds = _seconds(slot, settings)
            taken.append(Turn(slot, by_name[slot.contestant].run(slot.connections, seconds)))
            bar.advance(line, seconds)
    return Turns(tuple(taken))


def _seconds(slot: Slot, settings: RaceSettings) -> int:
    return settings.warm_up_seconds if slot.round == WARM_UP else settings.seconds
