"""How the cost of being scraped is shown: requests/s of each round, what a scrape is, and the verdict."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import msgspec
from rich.console import Console
from rich.table import Table

from loadtests.scraping import ALONE, COST_CEILING, LOGGED, SCRAPED, Cost, ScrapingReport
from loadtests.turns import Spread

TITLES = {SCRAPED: "scraped each second", LOGGED: "with an access log"}
BUSY_CEILING = 0.10
ENOUGH = 0.8
"""Scrapes a second, below which it was not each second that was scraped."""

MOST_ERROR = COST_CEILING / 2
"""The standard error of the median from which on it says little about the ceiling."""


def print_scraping(report: ScrapingReport, console: Console) -> None:
    """One row a round and one of medians; then the scrapes, their processor time, what spoils it, and the verdict."""
    console.print(_table(report))
    for said in scrape_sentences(report):
        console.print(said)
    for caution in cautions(report):
        console.print(f"[yellow]{caution}[/]")
    console.print(f"[{'green' if report.met else 'red'}]{verdict(report)}[/]")


def _table(report: ScrapingReport) -> Table:
    settings, turns = report.settings, report.turns
    others = (SCRAPED, LOGGED) if settings.access_log else (SCRAPED,)
    table = Table(
        "round", "requests/s alone", *(title for name in others for title in (TITLES[name], "ratio")),
        title=f"{report.checkpoint}, {settings.connections} connections, on {report.host}",
        caption=f"turns of {settings.seconds} s; the last row: medians (least to most), ratios within each round",
    )  # fmt: skip
    by_slot = {(turn.slot.round, turn.slot.contestant): turn.sample.throughput for turn in turns.taken}
    counted = turns.rounds(settings.connections)
    columns = [([by_slot[number, ALONE] for number in counted], ".0f")]
    for name in others:
        columns += [([by_slot[number, name] for number in counted], ".0f"), (report.ratios(name), ".3f")]
    for at, number in enumerate(counted):
        table.add_row(str(number), *(format(values[at], form) for values, form in columns))
    if counted:
        table.add_section()
        table.add_row("median", *(_cell(Spread.of(values), form) for values, form in columns))
    return table


def scrape_sentences(report: ScrapingReport) -> list[str]:
    """What a scrape is: its duration under load, its size, and its processor time on the idle gateway."""
    said = []
    if report.scrapes:
        took_ms = [one.took_s * 1000 for one in report.scrapes]
        last = report.scrapes[-1]
        said.append(
            f"{len(took_ms)} scrapes under load: median {median(took_ms):.0f} ms, longest {max(took_ms):.0f} ms; "
            f"the last had {last.series} series in {last.size_bytes} bytes"
        )
    idle = report.idle
    said.append(
        f"on the idle gateway one scrape takes {idle.scrape_cpu_s * 1000:.1f} ms of processor time: each second, "
        f"{idle.share:.1%} of {idle.cores} cores"
    )
    log = Cost.of(report.ratios(LOGGED))
    if log is not None:
        said.append(f"an access log costs {_words(log)} of requests/s")
    return said


def cautions(report: ScrapingReport) -> list[str]:
    """What a reader of the figures must know: spoilt turns, scrapes without an answer, a machine that was not quiet."""
    said = [
        f"{turn.slot.contestant}: {turn.sample.errors} errors in {turn.sample.requests} answers; "
        f"round {turn.slot.round or '(warm-up)'} does not count"
        for turn in report.turns.spoilt()
    ]
    if report.failures:
        said.append(f"{len(report.failures)} scrapes had no answer, the last: {report.failures[-1]}")
    lasted_s = sum(turn.sample.duration_s for turn in report.turns.taken if turn.slot.contestant == SCRAPED)
    if len(report.scrapes) < ENOUGH * lasted_s:
        said.append(f"only {len(report.scrapes)} scrapes in {lasted_s:.0f} s: some took longer than a second")
    cost = Cost.of(report.ratios(SCRAPED))
    if cost is not None and (cost.error is None or cost.error > MOST_ERROR):
        said.append(f"the rounds are too few or too unlike to tell a cost of {COST_CEILING:.0%} from noise: take more")
    if report.idle.others > BUSY_CEILING:
        said.append(f"the machine was not quiet: {report.idle.others:.0%} of it was busy with something else")
    return said


def verdict(report: ScrapingReport) -> str:
    """The target, whether it is met, and the cost over the rounds."""
    wanted = f"scraping each second costs less than {COST_CEILING:.0%} of requests/s"
    cost = Cost.of(report.ratios(SCRAPED))
    if cost is None:
        return f"{wanted}: not measured, no round counts"
    return f"{wanted}: {'met' if report.met else 'missed'}: {_words(cost)}"


def write_scraping(report: ScrapingReport, path: Path) -> None:
    """Everything in SI units: conditions, every turn and scrape, processor time, and the verdict."""
    document = {
        **msgspec.to_builtins(report),
        "costs": {name: msgspec.to_builtins(Cost.of(report.ratios(name))) for name in TITLES},
        "target": {"cost_below": COST_CEILING, "met": report.met},
        "cautions": cautions(report),
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


def _words(cost: Cost) -> str:
    """Below 0 it was a gain."""
    error = "" if cost.error is None else f" ± {cost.error:.1%}"
    return f"{cost.share:+.1%}{error} ({cost.least:+.1%} to {cost.most:+.1%} over the rounds)"


def _cell(spread: Spread, form: str) -> str:
    return f"{spread.median:{form}} ({spread.low:{form}} to {spread.high:{form}})"
