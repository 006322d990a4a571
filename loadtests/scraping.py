"""`punctual bench scrape`: what a scrape of `/metrics` each second costs the request path of one gateway.

Turns with and without the scraper alternate in shuffled rounds, under a load that keeps the gateway full. Throughput
on a shared machine is noisy; so the processor time of scrapes on the idle gateway is measured, too, which is not.
`scraping_report` shows both.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from math import pi, sqrt
from pathlib import Path
from statistics import median, stdev
from time import perf_counter
from urllib.request import urlopen

import psutil
from rich.console import Console
from rich.progress import Progress

from deployments.engines.host import read_host
from gateway.api.headers import CHECKPOINT
from gateway.catalogs.catalog import Catalog
from loadtests.contestants import Contestant, server_contestant
from loadtests.open_loop import Clock
from loadtests.processes import Server, cpu_seconds, gateway
from loadtests.race import raced_entry
from loadtests.sentences import shuffled_texts
from loadtests.turns import WARM_UP, Slot, Turn, Turns, schedule
from loadtests.wrk import Wrk

ALONE, SCRAPED, LOGGED = "alone", "scraped", "logged"
EVERY_S = 1.0
FIRST_S = 0.5
"""When in its turn the first scrape is due."""

COST_CEILING = 0.02
"""The share of throughput that the scrapes may cost."""

IDLE_S, IDLE_SCRAPES = 5.0, 40
SCRAPE_WITHIN_S = 10.0


@dataclass(frozen=True)
class ScrapingSettings:
    """A turn lasts whole `seconds`, `connections` busy all the time with one sentence each, all for one checkpoint.

    With `access_log` a second gateway is up all the time and takes turns, which writes its access log into a file.
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
    """One answer of `/metrics`: when it was asked for, seconds since scraping began, how long it took, its size."""

    at_s: float
    took_s: float
    size_bytes: int
    series: int


@dataclass
class Scrapes:
    """What a scraper has so far; `failures` say why scrapes had no answer."""

    made: list[Scrape] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class IdleCost:
    """Processor time of the gateway's processes: at rest, as a share of one core, and for each scrape.

    `others` is what else the machine was busy with meanwhile, as a share of all of it.
    """

    rest_share: float
    scrape_cpu_s: float
    others: float
    cores: int

    @property
    def share(self) -> float:
        """What scraping each second takes of the machine's processor time."""
        return self.scrape_cpu_s / EVERY_S / self.cores


@dataclass(frozen=True, slots=True)
class Cost:
    """The share of throughput that something takes: by the median round, by the cheapest and the dearest.

    `error` is the standard error of the median, as if rounds were drawn from a normal distribution; None of one round.
    """

    share: float
    least: float
    most: float
    error: float | None

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Cost | None:
        """From the ratios of rounds; of none, None."""
        if not ratios:
            return None
        error = sqrt(pi / 2) * stdev(ratios) / sqrt(len(ratios)) if len(ratios) > 1 else None
        return cls(1 - median(ratios), 1 - max(ratios), 1 - min(ratios), error)


@dataclass(frozen=True)
class ScrapingReport:
    """Who answered on what host, every turn, and every scrape of the turns with a scraper, the warm-up's too."""

    settings: ScrapingSettings
    host: str
    checkpoint: str
    turns: Turns
    scrapes: tuple[Scrape, ...]
    failures: tuple[str, ...]
    idle: IdleCost
    lasted_s: float

    def ratios(self, contestant: str) -> list[float]:
        """A contestant's throughput over that alone, in each round that counts."""
        counted = self.turns.rounds(self.settings.connections)
        rates = {(turn.slot.round, turn.slot.contestant): turn.sample.throughput for turn in self.turns.taken}
        return [rates[number, contestant] / rates[number, ALONE] for number in counted if (number, contestant) in rates]

    @property
    def met(self) -> bool:
        """Whether scraping cost less than the ceiling, by the median round, with every scrape answered."""
        cost = Cost.of(self.ratios(SCRAPED))
        return cost is not None and cost.share < COST_CEILING and bool(self.scrapes) and not self.failures


def scraping(
    catalog: Catalog, variants: Mapping[str, Path], settings: ScrapingSettings, console: Console
) -> ScrapingReport:
    """Serves the catalog and takes all turns; minutes. Raises LoadTestError."""
    wrk = Wrk.find()
    entry = raced_entry(catalog, settings.checkpoint)
    texts = shuffled_texts()
    started = perf_counter()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loadtests-")))
        with console.status("starting the gateway"):
            server = stack.enter_context(gateway(catalog, variants))
            urls = {ALONE: server.url, SCRAPED: server.url}
            if settings.access_log:
                logged = gateway(catalog, variants, access_log=str(folder / "access.log"))
                urls[LOGGED] = stack.enter_context(logged).url
        pin = {CHECKPOINT: entry.name}
        asked = {name: server_contestant(name, url, pin, wrk, folder, texts) for name, url in urls.items()}
        scrapes = Scrapes()
        turns = _run(asked, lambda: scraper(server.url, scrapes), settings, console)
        with console.status("scraping the idle gateway"):
            idle = _idle_cost(server)
    return ScrapingReport(
        settings=settings,
        host=read_host().kind,
        checkpoint=entry.name,
        turns=turns,
        scrapes=tuple(scrapes.made),
        failures=tuple(scrapes.failures),
        idle=idle,
        lasted_s=perf_counter() - started,
    )


@contextmanager
def scraper(url: str, into: Scrapes, every_s: float = EVERY_S, clock: Clock = perf_counter) -> Iterator[None]:
    """Scrapes at fixed instants, on a thread of its own, for as long as the context lasts.

    As Prometheus does, it has one scrape under way at most: an instant that passes meanwhile is passed over.
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
    """The first instant of the series through `due_s` that is still to come."""
    passed = max(0, int((now_s - due_s) // every_s))
    return due_s + (passed + 1) * every_s


def scraped(url: str, start_s: float, clock: Clock) -> Scrape:
    """One scrape. Raises OSError or HTTPException where it has no answer."""
    began_s = clock()
    with urlopen(f"{url}/metrics", timeout=SCRAPE_WITHIN_S) as answer:  # the scheme is ours
        content: bytes = answer.read()
    return Scrape(began_s - start_s, clock() - began_s, len(content), series_in(content))


def series_in(exposition: bytes) -> int:
    """How many series an exposition in text has: its lines, but for comments and empty ones."""
    return sum(bool(line.strip()) and not line.startswith(b"#") for line in exposition.splitlines())


def _run(
    asked: Mapping[str, Contestant],
    scraped_meanwhile: Callable[[], AbstractContextManager[None]],
    settings: ScrapingSettings,
    console: Console,
) -> Turns:
    """Every turn in the schedule's order."""
    slots = list(schedule(list(asked), (settings.connections,), settings.rounds, settings.seed))
    taken = []
    with Progress(console=console, refresh_per_second=1) as bar:  # it is drawn by the machine that is measured
        line = bar.add_task("warming up", total=sum(_seconds(slot, settings) for slot in slots))
        for slot in slots:
            stage = "warming up" if slot.round == WARM_UP else f"round {slot.round} of {settings.rounds}"
            bar.update(line, description=f"{stage}: {slot.contestant}")
            with ExitStack() as meanwhile:
                if slot.contestant == SCRAPED:
                    meanwhile.enter_context(scraped_meanwhile())
                taken.append(Turn(slot, asked[slot.contestant].run(slot.connections, _seconds(slot, settings))))
            bar.advance(line, _seconds(slot, settings))
    return Turns(tuple(taken))


def _seconds(slot: Slot, settings: ScrapingSettings) -> int:
    return min(settings.warm_up_seconds, settings.seconds) if slot.round == WARM_UP else settings.seconds


def _idle_cost(server: Server) -> IdleCost:
    """Scrapes one after the other, set against as long a rest."""
    family, mine, cores = server.family(), psutil.Process(), psutil.cpu_count() or 1
    psutil.cpu_percent()
    rest_s = cpu_seconds(family), cpu_seconds([mine])
    threading.Event().wait(IDLE_S)
    busy_cores = psutil.cpu_percent() / 100 * cores
    rest_share = (cpu_seconds(family) - rest_s[0]) / IDLE_S
    own_share = (cpu_seconds([mine]) - rest_s[1]) / IDLE_S
    before_s, began_s = cpu_seconds(family), perf_counter()
    for _ in range(IDLE_SCRAPES):
        scraped(server.url, began_s, perf_counter)
    used_s = cpu_seconds(family) - before_s - rest_share * (perf_counter() - began_s)
    others = max(0.0, busy_cores - rest_share - own_share) / cores
    return IdleCost(rest_share, max(0.0, used_s) / IDLE_SCRAPES, others, cores)
