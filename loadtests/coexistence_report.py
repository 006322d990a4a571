"""How coexistence is shown: a table of rounds with its verdict at the terminal, and a JSON file with every turn."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from loadtests.coexistence import CoexistenceReport
from loadtests.coexistence_turns import P95_CEILING, Neighbour, Turn, counted_rounds, faults, met, p95_ratio
from loadtests.turns import WARM_UP


def print_coexistence(report: CoexistenceReport, console: Console) -> None:
    """One row a round, then the generator's own delay, the neighbour's work, what is wrong, and the verdict."""
    settings = report.settings
    clients = f"{settings.summarizers} client{'' if settings.summarizers == 1 else 's'}"
    table = Table(
        "round", "p50 alone", "beside", "ratio", "p95 alone", "beside", "ratio", "in time", "summaries/s", "engine",
        title=f"{report.classifier}, ms, alone and beside {report.summarizer} on {report.host}",
        caption=f"{settings.rate:g} requests/s for {settings.seconds:g} s a turn, {clients} of the summarizer; "
        f"in time: within {settings.budget_ms:g} ms, alone and beside; engine: its share of the turn",
    )  # fmt: skip
    for one in counted_rounds(report.turns):
        neighbour = one.beside.neighbour
        table.add_row(
            str(one.number),
            *(*_pair(one.alone, one.beside, 50), f"{one.p50_ratio:.2f}"),
            *(*_pair(one.alone, one.beside, 95), f"{one.p95_ratio:.2f}"),
            f"{one.alone.load.attainment:.1%}, {one.beside.load.attainment:.1%}",
            f"{neighbour.per_s:.2f}" if neighbour else "-",
            f"{neighbour.engine_share:.0%}" if neighbour else "-",
        )
    console.print(table)
    counted = [turn for turn in report.turns if turn.place.round != WARM_UP]
    lags = [turn.load.lag.p99_s * 1000 for turn in counted if turn.load.lag]
    if lags:
        bound_ms = report.turns[0].load.settings.lag_bound_s * 1000
        console.print(
            f"the generator's own delay, p99: {max(lags):.1f} ms in the worst turn; it may be {bound_ms:g} ms"
        )
    for fault in faults(report.turns):
        console.print(f"[red]NOT VALID: {fault}[/]")
    console.print(f"[{'green' if met(report.turns) else 'red'}]{verdict(report)}[/]")


def verdict(report: CoexistenceReport) -> str:
    """The target, whether it is kept, and the ratio over the rounds."""
    wanted = f"p95 beside a busy summarizer: at most {P95_CEILING:g} × alone"
    ratio = p95_ratio(report.turns)
    if ratio is None:
        return f"{wanted}: not measured, no round counts"
    said = "not valid" if faults(report.turns) else "met" if met(report.turns) else "missed"
    return f"{wanted}: {said}: {ratio.median:.2f} × ({ratio.low:.2f} to {ratio.high:.2f})"


def write_coexistence(report: CoexistenceReport, path: Path) -> None:
    """Everything in SI units: the conditions, every turn, the ratios and the verdict."""
    settings = report.settings
    document = {
        "host": report.host,
        "classifier": report.classifier,
        "summarizer": report.summarizer,
        "rate": settings.rate,
        "seconds": settings.seconds,
        "budget_s": settings.budget_ms / 1000,
        "summarizers": settings.summarizers,
        "seed": settings.seed,
        "lasted_s": report.lasted_s,
        "p95_ratios": [one.p95_ratio for one in counted_rounds(report.turns)],
        "p95_ratio": msgspec.to_builtins(p95_ratio(report.turns)),
        "met": met(report.turns),
        "faults": faults(report.turns),
        "turns": [_turn(turn) for turn in report.turns],
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


def _turn(turn: Turn) -> dict[str, object]:
    neighbour: Neighbour | None = turn.neighbour
    return {
        "round": turn.place.round,
        "company": turn.place.company,
        "offered": turn.load.offered,
        "endings": msgspec.to_builtins(turn.load.endings),
        "latency": msgspec.to_builtins(turn.load.latency),
        "lag": msgspec.to_builtins(turn.load.lag),
        "neighbour": msgspec.to_builtins(neighbour),
    }


def _pair(alone: Turn, beside: Turn, percentile: int) -> tuple[str, str]:
    """One percentile of both turns in milliseconds."""
    found = []
    for turn in (alone, beside):
        latency = turn.load.latency
        seconds = None if latency is None else latency.p50_s if percentile == 50 else latency.p95_s
        found.append("-" if seconds is None else f"{seconds * 1000:.2f}")
    return found[0], found[1]
