"""`punctual bench scrape`: the throughput that scraping `/metrics` every second costs a gateway.

Turns with and without the scraper alternate in shuffled rounds at full load. Throughput is noisy on a shared machine,
so the processor time of scrapes on the idle gateway is measured too.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated
from urllib.request import urlopen

import psutil
import typer
from rich.console import Console

from deployments.engines.host import read_host
from exporters.options import DEFAULT_CACHE, DEFAULT_CATALOG, CacheOption, CatalogOption
from gateway.catalogs.catalog import Catalog
from gateway.model.deadline import Clock
from gateway.model.request import CHECKPOINT
from loadtests import options
from loadtests.bench.measuring.machine import at_rest, cpu_seconds, not_quiet
from loadtests.bench.measuring.report import Report, Table, Verdict, present
from loadtests.bench.measuring.rounds import Plan, Slot, Spread, Turns, shown, take_turns
from loadtests.bench.peers.servers import Server, gateway
from loadtests.bench.peers.wrk import Sample, Wrk, find_wrk
from loadtests.bench.speed import raced_entry
from loadtests.sentences import shuffled_texts

ALONE, SCRAPED, LOGGED = "alone", "scraped", "logged"
TITLES = {SCRAPED: "scraped each second", LOGGED: "with an access log"}
EVERY_S = 1.0
FIRST_S = 0.5
"""The first scrape's time within a turn."""

COST_CEILING = 0.02
"""The maximum share of throughput that scraping may cost."""

MOST_ERROR = COST_CEILING / 2
"""The largest standard error of the median at which the ceiling can be judged."""

ENOUGH = 0.8
"""The minimum scrapes per second that count as scraping every second."""

IDLE_S, IDLE_SCRAPES = 5.0, 40
SCRAPE_WITHIN_S = 10.0


@dataclass(frozen=True)
class ScrapeSettings:
    """Number of rounds, length of a turn in whole seconds, busy connections, and the pinned checkpoint.

    `access_log` adds turns of a second gateway that writes an access log to a file.
    """

    rounds: int = 6
    seconds: int = 8
    warm_up_seconds: int = 3
    connections: int = 16
    checkpoint: str | None = None
    access_log: bool = False
    seed: int = 31


@dataclass(frozen=True, slots=True)
class Scrape:
    """One answer of `/metrics`: request time since scraping began, duration, bytes and number of series."""

    at_s: float
    took_s: float
    size_bytes: int
    series: int


@dataclass
class Scrapes:
    """A scraper's results so far; `failures` are the reasons of failed scrapes."""

    made: list[Scrape] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class IdleCost:
    """Processor time of the idle gateway, as a share of one core, and of one scrape, in seconds.

    `others` is the share of the machine that other processes used meanwhile.
    """

    rest_share: float
    scrape_cpu_s: float
    others: float
    cores: int

    @property
    def share(self) -> float:
        """The share of the machine's processor time that scraping every second takes."""
        return self.scrape_cpu_s / EVERY_S / self.cores


@dataclass(frozen=True)
class Scraping:
    """The checkpoint, host, turns and scrapes of a run, warm-up included."""

    settings: ScrapeSettings
    host: str
    checkpoint: str
    turns: Turns[Sample]
    scrapes: tuple[Scrape, ...]
    failures: tuple[str, ...]
    idle: IdleCost
    lasted_s: float

    def rates(self, contestant: str) -> list[float]:
        """A contestant's throughput in each round that counts."""
        return list(self.turns.by_round(contestant, self.settings.connections, _throughput).values())

    def ratios(self, contestant: str) -> list[float]:
        """A contestant's throughput divided by that without scraper or log, in each round that counts."""
        return self.turns.ratios(contestant, ALONE, self.settings.connections, _throughput)

    def cost(self, contestant: str) -> Spread | None:
        """The share of throughput that a contestant loses; negative is a gain. None if no round counts."""
        return Spread.of([1 - ratio for ratio in self.ratios(contestant)])


def command(
    catalog: CatalogOption = DEFAULT_CATALOG,
    cache: CacheOption = DEFAULT_CACHE,
    rounds: options.Rounds = ScrapeSettings.rounds,
    seconds: options.Seconds = ScrapeSettings.seconds,
    connections: Annotated[int, typer.Option(min=1)] = ScrapeSettings.connections,
    checkpoint: options.Checkpoint = None,
    access_log: Annotated[
        bool,
        typer.Option("--access-log", help="also measure a second gateway that writes an access log"),
    ] = False,
    seed: Annotated[int, typer.Option(help="of the order")] = ScrapeSettings.seed,
    json: options.Json = None,
) -> None:
    """Measures the throughput that scraping /metrics every second costs."""
    settings = ScrapeSettings(
        rounds, seconds, connections=connections, checkpoint=checkpoint, access_log=access_log, seed=seed
    )
    report = measure(*options.prepared(catalog, cache), settings, options.console)
    raise typer.Exit(present(report, options.console, json=json))


def measure(catalog: Catalog, variants: Mapping[str, Path], settings: ScrapeSettings, console: Console) -> Report:
    """Serves the catalog and takes all turns; lasts minutes. Raises LoadTestError."""
    program, entry = find_wrk(), raced_entry(catalog, settings.checkpoint)
    texts = shuffled_texts()
    began_s = perf_counter()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loadtests-")))
        with console.status("starting the gateway"):
            server = stack.enter_context(gateway(catalog, variants))
            urls = {ALONE: server.url, SCRAPED: server.url}
            if settings.access_log:
                logged = gateway(catalog, variants, access_log=str(folder / "access.log"))
                urls[LOGGED] = stack.enter_context(logged).url
        pin = {CHECKPOINT: entry.name}
        asked = {name: Wrk.at(program, url, pin, folder, texts) for name, url in urls.items()}
        scrapes = Scrapes()
        turns = _turns(asked, lambda: scraper(server.url, scrapes), settings, console)
        with console.status("scraping the idle gateway"):
            idle = _idle_cost(server)
    found = Scraping(
        settings=settings,
        host=read_host().kind,
        checkpoint=entry.name,
        turns=turns,
        scrapes=tuple(scrapes.made),
        failures=tuple(scrapes.failures),
        idle=idle,
        lasted_s=perf_counter() - began_s,
    )
    return report_of(found)


def report_of(found: Scraping) -> Report:
    """Requests/s of each round, a scrape's size and duration, and whether its cost is below the ceiling."""
    costs = {name: found.cost(name) for name in TITLES}
    return Report(
        tables=[_table(found)],
        document={**vars(found), "costs": costs, "cost_below": COST_CEILING},
        verdicts=[_verdict(found)],
        remarks=_scrape_sentences(found),
        cautions=cautions(found),
    )


def _table(found: Scraping) -> Table:
    settings = found.settings
    others = (SCRAPED, LOGGED) if settings.access_log else (SCRAPED,)
    columns = [(found.rates(ALONE), ".0f")]
    for name in others:
        columns += [(found.rates(name), ".0f"), (found.ratios(name), ".3f")]
    counted = found.turns.rounds(settings.connections)
    rows = [(str(number), *(format(values[at], form) for values, form in columns)) for at, number in enumerate(counted)]
    if counted:
        rows.append(("median", *(shown(Spread.of(values), form) for values, form in columns)))
    return Table(
        f"{found.checkpoint}, {settings.connections} connections, on {found.host}",
        ("round", "requests/s alone", *(title for name in others for title in (TITLES[name], "ratio"))),
        rows,
        f"turns of {settings.seconds} s; the last row: medians (minimum to maximum), ratios within each round",
    )


def _scrape_sentences(found: Scraping) -> list[str]:
    """A scrape's duration under load, its size, and its processor time on the idle gateway."""
    sentences = []
    if found.scrapes:
        took_ms = [one.took_s * 1000 for one in found.scrapes]
        last = found.scrapes[-1]
        sentences.append(
            f"{len(took_ms)} scrapes under load: median {median(took_ms):.0f} ms, longest {max(took_ms):.0f} ms; "
            f"the last had {last.series} series in {last.size_bytes} bytes"
        )
    idle = found.idle
    sentences.append(
        f"on the idle gateway one scrape takes {idle.scrape_cpu_s * 1000:.1f} ms of processor time: each second, "
        f"{idle.share:.1%} of {idle.cores} cores"
    )
    log = found.cost(LOGGED)
    if log is not None:
        sentences.append(f"an access log costs {_words(log)} of requests/s")
    return sentences


def cautions(found: Scraping) -> list[str]:
    """Warnings: rounds that do not count, failed scrapes, too few rounds, other processes on the machine."""
    warnings = found.turns.cautions()
    if found.failures:
        warnings.append(f"{len(found.failures)} scrapes had no answer, the last: {found.failures[-1]}")
    lasted_s = sum(turn.sample.duration_s for turn in found.turns.taken if turn.slot.contestant == SCRAPED)
    if len(found.scrapes) < ENOUGH * lasted_s:
        warnings.append(f"only {len(found.scrapes)} scrapes in {lasted_s:.0f} s: some took longer than a second")
    cost = found.cost(SCRAPED)
    if cost is not None and (cost.error is None or cost.error > MOST_ERROR):
        warnings.append(
            f"the rounds are too few or too unlike to tell a cost of {COST_CEILING:.0%} from noise: run more rounds"
        )
    return warnings + not_quiet(found.idle.others)


def _verdict(found: Scraping) -> Verdict:
    """Met if scraping costs less than the ceiling in the median round, and every scrape was answered."""
    wanted = f"scraping each second costs less than {COST_CEILING:.0%} of requests/s"
    cost = found.cost(SCRAPED)
    if cost is None:
        return Verdict(f"{wanted}: not measured, no round counts", met=False)
    met = cost.median < COST_CEILING and bool(found.scrapes) and not found.failures
    return Verdict(f"{wanted}: {'met' if met else 'missed'}: {_words(cost)}", met)


def _words(cost: Spread) -> str:
    error = "" if cost.error is None else f" ± {cost.error:.1%}"
    return f"{cost.median:+.1%}{error} ({cost.low:+.1%} to {cost.high:+.1%} over the rounds)"


@contextmanager
def scraper(url: str, into: Scrapes, every_s: float = EVERY_S, clock: Clock = perf_counter) -> Iterator[None]:
    """Scrapes every `every_s` seconds, in a thread, while the context lasts.

    As in Prometheus, at most one scrape runs at a time; instants that pass meanwhile are skipped.
    """
    stop = threading.Event()

    def scrapes() -> None:
        start_s = clock()
        due_s = min(FIRST_S, every_s)
        while not stop.wait(max(0.0, start_s + due_s - clock())):
            try:
                into.made.append(scraped(url, start_s, clock))
            except (OSError, HTTPException) as error:
                into.failures.append(f"{type(error).__name__}: {error}")
            due_s = next_due(due_s, clock() - start_s, every_s)

    thread = threading.Thread(target=scrapes, name="scraper")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def next_due(due_s: float, now_s: float, every_s: float) -> float:
    """The next instant after `now_s` at a whole number of intervals from `due_s`."""
    passed = max(0, int((now_s - due_s) // every_s))
    return due_s + (passed + 1) * every_s


def scraped(url: str, start_s: float, clock: Clock) -> Scrape:
    """Scrapes once. Raises OSError or HTTPException if there is no answer."""
    began_s = clock()
    with urlopen(f"{url}/metrics", timeout=SCRAPE_WITHIN_S) as answer:  # the scheme is ours
        content: bytes = answer.read()
    return Scrape(began_s - start_s, clock() - began_s, len(content), series_in(content))


def series_in(exposition: bytes) -> int:
    """The number of series in a text exposition: its lines without comments and empty lines."""
    return sum(bool(line.strip()) and not line.startswith(b"#") for line in exposition.splitlines())


def _throughput(sample: Sample) -> float:
    return sample.throughput


def _turns(
    asked: Mapping[str, Wrk],
    scraped_meanwhile: Callable[[], AbstractContextManager[None]],
    settings: ScrapeSettings,
    console: Console,
) -> Turns[Sample]:
    loads = (settings.connections,)
    plan = Plan(list(asked), loads, settings.rounds, settings.seconds, settings.warm_up_seconds, settings.seed)

    def measure(slot: Slot, seconds: float) -> Sample:
        with ExitStack() as meanwhile:
            if slot.contestant == SCRAPED:
                meanwhile.enter_context(scraped_meanwhile())
            return asked[slot.contestant].run(slot.load, seconds)

    return take_turns(plan, measure, console)


def _idle_cost(server: Server) -> IdleCost:
    """Processor time of consecutive scrapes, minus that of the idle gateway."""
    family, cores = server.family(), psutil.cpu_count() or 1
    rest = at_rest({server.name: family}, IDLE_S)
    rest_share = rest.shares[server.name]
    before_s, began_s = cpu_seconds(family), perf_counter()
    for _ in range(IDLE_SCRAPES):
        scraped(server.url, began_s, perf_counter)
    used_s = cpu_seconds(family) - before_s - rest_share * (perf_counter() - began_s)
    return IdleCost(rest_share, max(0.0, used_s) / IDLE_SCRAPES, rest.others, cores)
