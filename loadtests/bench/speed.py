"""`punctual bench speed`: one variant behind the gateway, behind FastAPI, and without a server, with real sentences.

All servers run throughout and take turns under load. The gateway's targets are latency at one connection, and
throughput and p99 at many, as ratios to the fastest FastAPI server.
"""

from __future__ import annotations

import tempfile
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec
import typer
from rich.console import Console

from deployments.engines.host import read_host
from deployments.replica.classify import open_classifier
from exporters.options import DEFAULT_CACHE, DEFAULT_CATALOG, CacheOption, CatalogOption
from exporters.sources.texts import HELDOUT
from gateway.catalogs.catalog import Catalog, CatalogEntry
from gateway.model.request import CHECKPOINT
from gateway.model.tier import Tier
from gateway.tasks import read_manifest
from gateway.tasks.classify import LabelScore
from loadtests import options
from loadtests.bench.measuring.machine import at_rest, not_quiet
from loadtests.bench.measuring.report import Report, Table, present
from loadtests.bench.measuring.rounds import Plan, Spread, Target, Turns, draw_medians, shown, take_turns
from loadtests.bench.peers.engine import BareEngine, answer
from loadtests.bench.peers.servers import PEERS, fastapi, gateway, peer
from loadtests.bench.peers.wrk import Sample, Wrk, find_wrk
from loadtests.errors import NoRace, OtherAnswers
from loadtests.sentences import classify_body, grouped, shuffled_texts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENGINE, GATEWAY = "in-process", "gateway"
BASELINES = {"fastapi-1": 1, "fastapi-2": 2, "fastapi-spins": 0}
"""The thread count of each FastAPI server, by its name; the last has ONNX Runtime's own settings."""

LATENCY_CEILING, THROUGHPUT_FLOOR, TAIL_CEILING = 1.05, 1.2, 1.0
LISTS_FLOOR = 1.3
"""The targets: median latency at one connection, requests/s at many and its p99; requests/s of lists of texts."""

IDLE_CEILING = 0.02
"""The maximum share of a core that an idle server may use."""

COMPARED = 40
"""The number of sentences that every server must answer as the variant does."""

SLACK = 1e-3
"""The largest allowed difference between a served score and the variant's own."""


@dataclass(frozen=True)
class SpeedSettings:
    """Number of rounds, length of a turn in whole seconds, the load of many `connections`, and the texts of a request.

    `peers` races other servers too. At the end the baselines run `alone_rounds` more without the gateway, which shows
    what its idle load cost.
    """

    rounds: int = 5
    seconds: int = 5
    warm_up_seconds: int = 2
    connections: int = 16
    engine_processes: int = 2
    alone_rounds: int = 3
    idle_seconds: float = 5.0
    seed: int = 20
    checkpoint: str | None = None
    peers: bool = False
    texts: int = 1
    heldout: Path = HELDOUT

    def plan(self, contestants: Sequence[str], rounds: int) -> Plan:
        """The plan of `rounds` rounds, at one connection and at many."""
        loads = (1, self.connections)
        return Plan(contestants, loads, rounds, self.seconds, self.warm_up_seconds, self.seed)


@dataclass(frozen=True)
class Race:
    """The conditions and all turns of a comparison.

    `idle` are shares of one core, by server; `others` is the share of the machine that other processes used. `alone`
    are FastAPI's turns after the gateway was stopped.
    """

    checkpoint: str
    variant: str
    host: str
    sentences: int
    settings: SpeedSettings
    idle: dict[str, float]
    others: float
    turns: Turns[Sample]
    alone: Turns[Sample]
    lasted_s: float


@dataclass(frozen=True)
class Contest:
    """One compared figure, its number of connections, and the bound on the gateway's ratio."""

    what: str
    connections: int
    measure: Callable[[Sample], float]
    less_is_better: bool
    bound: float
    form: str
    scale: float = 1.0

    def faster(self, turns: Turns[Sample]) -> str | None:
        """The baseline with the better median, chosen per figure; None if no round counts."""
        spreads = {name: turns.spread(name, self.connections, self.measure) for name in BASELINES}
        medians = {name: spread.median for name, spread in spreads.items() if spread}
        best = min if self.less_is_better else max
        return best(medians, key=lambda name: medians[name]) if medians else None

    def spread(self, turns: Turns[Sample], contestant: str) -> Spread | None:
        """A contestant's figure over the rounds that count."""
        return turns.spread(contestant, self.connections, self.measure)

    def ratio(self, turns: Turns[Sample], contestant: str) -> Spread | None:
        """A contestant's figure divided by the faster baseline's, within each round."""
        baseline = self.faster(turns)
        return turns.ratio(contestant, baseline, self.connections, self.measure) if baseline else None

    def target(self, turns: Turns[Sample]) -> Target:
        """The gateway's target for this figure."""
        baseline, ratio = self.faster(turns) or "FastAPI", self.ratio(turns, GATEWAY)
        return Target(self.what, baseline, ratio, self.bound, at_most=self.less_is_better)


def contests(connections: int, texts: int = 1) -> tuple[Contest, ...]:
    """Latency at one connection, and throughput and p99 at `connections`, of requests with `texts` texts."""
    return (
        Contest("median latency at 1 connection", 1, lambda one: one.p50_s, True, LATENCY_CEILING, ".2f", 1000),
        Contest(
            f"requests/s at {connections} connections",
            connections,
            lambda one: one.throughput,
            False,
            THROUGHPUT_FLOOR if texts == 1 else LISTS_FLOOR,
            ".0f",
        ),
        Contest(
            f"p99 at {connections} connections", connections, lambda one: one.p99_s, True, TAIL_CEILING, ".1f", 1000
        ),
    )


def command(
    catalog: CatalogOption = DEFAULT_CATALOG,
    cache: CacheOption = DEFAULT_CACHE,
    checkpoint: options.Checkpoint = None,
    rounds: options.Rounds = SpeedSettings.rounds,
    seconds: options.Seconds = SpeedSettings.seconds,
    connections: Annotated[int, typer.Option(min=2, help="in the throughput turns")] = SpeedSettings.connections,
    texts: Annotated[int, typer.Option(min=1, help="of each request: a list if more than one")] = SpeedSettings.texts,
    peers: Annotated[bool, typer.Option("--peers", help=f"also race {', '.join(PEERS)}")] = False,
    seed: Annotated[int, typer.Option(help="of the order")] = SpeedSettings.seed,
    json: options.Json = None,
    svg: Annotated[Path | None, typer.Option(help="write a plot of the medians there")] = None,
) -> None:
    """Compares the gateway's speed with FastAPI and the bare engine."""
    settings = SpeedSettings(
        rounds, seconds, connections=connections, seed=seed, checkpoint=checkpoint, peers=peers, texts=texts
    )
    report = measure(*options.prepared(catalog, cache), settings, options.console)
    raise typer.Exit(present(report, options.console, json=json, plot=svg))


def measure(catalog: Catalog, variants: Mapping[str, Path], settings: SpeedSettings, console: Console) -> Report:
    """Starts all servers, checks that their answers agree, and takes all turns. Raises LoadTestError."""
    program, entry = find_wrk(), raced_entry(catalog, settings.checkpoint)
    folder, texts = variants[entry.name], shuffled_texts(settings.heldout)
    asked = grouped(texts, settings.texts)
    began_s = perf_counter()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loadtests-")))
        servers = [stack.enter_context(fastapi(folder, threads)) for threads in BASELINES.values()]
        servers += [stack.enter_context(peer(name, folder)) for name in (PEERS if settings.peers else ())]
        peers = {server.name: Wrk.at(program, server.url, {}, scratch, asked) for server in servers}
        with ExitStack() as while_up:
            with console.status("starting the gateway"):
                ours = while_up.enter_context(gateway(catalog, variants))
            pinned = Wrk.at(program, ours.url, {CHECKPOINT: entry.name}, scratch, asked)
            check_same_answers({**peers, GATEWAY: pinned}, folder, texts)
            with console.status("measuring the idle servers"):
                idle = at_rest({one.name: one.family() for one in (ours, *servers)}, settings.idle_seconds)
            engine = BareEngine(folder, asked, settings.engine_processes)
            turns = _raced({ENGINE: engine, **peers, GATEWAY: pinned}, settings.rounds, settings, console)
        alone = _raced(peers, settings.alone_rounds, settings, console)
    found = Race(
        checkpoint=entry.name,
        variant=read_manifest(folder).variant,
        host=read_host().kind,
        sentences=len(texts),
        settings=settings,
        idle=idle.shares,
        others=idle.others,
        turns=turns,
        alone=alone,
        lasted_s=perf_counter() - began_s,
    )
    return report_of(found)


def raced_entry(catalog: Catalog, checkpoint: str | None) -> CatalogEntry:
    """The named classifier, or the catalog's first of the realtime tier. Raises NoRace if there is none."""
    entries = catalog.of_task("classify")
    wanted = (one for one in entries if (one.name == checkpoint if checkpoint else one.tier is Tier.REALTIME))
    found = next(wanted, None)
    if found is None:
        lacking = f"no classifier {checkpoint!r}" if checkpoint else "no classifier of the realtime tier"
        raise NoRace(f"the catalog {catalog.name} has {lacking}; it has {', '.join(entry.name for entry in entries)}")
    return found


def report_of(race: Race) -> Report:
    """Every contestant's figures, the targets, and the conditions."""
    turns, settings = race.turns, race.settings
    both = contests(settings.connections, settings.texts)
    ran = {turn.slot.contestant for turn in turns.taken}
    names = [name for name in (ENGINE, *BASELINES, *PEERS, GATEWAY) if name in ran]
    standings = {
        name: {one.what: {"reached": one.spread(turns, name), "ratio": one.ratio(turns, name)} for one in both}
        for name in names
    }
    rows = [
        (name, *(cell for one in both for cell in (_reached(one, turns, name), shown(one.ratio(turns, name)))))
        for name in names
    ]
    table = Table(
        f"{race.checkpoint} {race.variant} on {race.host}",
        ("contestant", *(heading for one in both for heading in (one.what, "× FastAPI"))),
        rows,
        f"median of {settings.rounds} rounds of {settings.seconds} s (minimum to maximum), latencies in ms; "
        f"ratios within each round; {settings.texts} texts a request",
    )
    idle = ", ".join(f"{name} {share:.1%}" for name, share in race.idle.items())
    return Report(
        tables=[table],
        document={**vars(race), "standings": standings, "targets": [one.target(turns) for one in both]},
        verdicts=[one.target(turns).verdict() for one in both],
        remarks=[
            f"idle, share of one core: {idle}; other processes: {race.others:.0%} of the machine",
            *beside(race),
        ],
        cautions=cautions(race),
        figure=lambda: _plot(race, names),
    )


def cautions(race: Race) -> list[str]:
    """Warnings: rounds that do not count, servers busy while idle, other processes on the machine."""
    found = race.turns.cautions("at once")
    found += [
        f"{name} used {share:.1%} of a core while idle, over {IDLE_CEILING:.0%}: the others ran with that much less"
        for name, share in race.idle.items()
        if share > IDLE_CEILING
    ]
    return found + not_quiet(race.others)


def beside(race: Race) -> list[str]:
    """Each FastAPI server's figures beside the idle gateway, as a ratio to those without it."""
    found = []
    for name in BASELINES:
        for one in contests(race.settings.connections)[:2]:
            with_it, without = one.spread(race.turns, name), one.spread(race.alone, name)
            if with_it and without and without.median:
                found.append(f"{name}: {with_it.median / without.median:.2f} × its {one.what} without the gateway")
    return found


def _plot(race: Race, names: Sequence[str]) -> Figure:
    """One panel per figure: bars of the medians, with whiskers from minimum to maximum."""
    from matplotlib.figure import Figure

    from loadtests.reports.drawing import Colour

    colours = {ENGINE: Colour.MUTED, GATEWAY: Colour.OURS}
    both = contests(race.settings.connections)
    figure = Figure(figsize=(7.6, 2.2 + 1.0 * len(names)), layout="constrained")
    for axes, one in zip(figure.subplots(len(both)), both, strict=True):
        found = {name: spread for name in names if (spread := one.spread(race.turns, name))}
        fill = [colours.get(name, Colour.RIVAL) for name in found]
        bars = draw_medians(axes, found, fill, Colour.INK, one.scale)
        axes.bar_label(bars, [format(spread.median * one.scale, one.form) for spread in found.values()], padding=4)
        axes.margins(x=0.12)
        unit, better = ("ms, ", "less") if one.less_is_better else ("", "more")
        axes.set_title(f"{one.what}: {unit}{better} is better", loc="left", fontsize="medium")
    return figure


def _reached(contest: Contest, turns: Turns[Sample], name: str) -> str:
    return shown(contest.spread(turns, name), contest.form, contest.scale)


Contestants: TypeAlias = Mapping[str, BareEngine | Wrk]


def _raced(contestants: Contestants, rounds: int, settings: SpeedSettings, console: Console) -> Turns[Sample]:
    plan = settings.plan(list(contestants), rounds)
    return take_turns(
        plan, lambda slot, seconds: contestants[slot.contestant].run(slot.load, seconds), console, "at once"
    )


def check_same_answers(servers: Mapping[str, Wrk], variant: Path, texts: Sequence[str]) -> None:
    """Checks that every server answers the first sentences as the variant does. Raises OtherAnswers.

    Sends one sentence at a time, since batching can change a score.
    """
    opened = open_classifier(variant, threads=1)
    for text in texts[:COMPARED]:
        expected = {score.label: score.score for score in answer(opened, text)}
        for name, server in servers.items():
            content = _post(f"{server.url}/classify", server.headers, classify_body(text))
            (scores,) = msgspec.json.decode(content, type=list[list[LabelScore]])
            got = {score.label: score.score for score in scores}
            if got.keys() != expected.keys() or any(abs(got[label] - expected[label]) > SLACK for label in expected):
                raise OtherAnswers(f"{name} answers {got} to {text!r}, but the variant itself {expected}")


def _post(url: str, headers: Mapping[str, str], body: bytes) -> bytes:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=30) as response:  # the scheme is ours
        content: bytes = response.read()
        return content
