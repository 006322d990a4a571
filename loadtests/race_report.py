"""How a race is shown: a table at the terminal, a JSON file with every turn in it, and a drawing."""

from __future__ import annotations

from html import escape
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from loadtests.race import RaceReport
from loadtests.turns import Spread
from loadtests.verdicts import Standing, beside, cautions, standings, targets

WIDTH, BAR, GAP, LEFT, TOP = 760, 22, 8, 150, 40
COLOURS = {"in-process": "#9aa0a6", "gateway": "#1a73e8", "gateway-routed": "#7baaf7"}


def print_report(report: RaceReport, console: Console) -> None:
    """The table, the two verdicts, and what a reader must know of the conditions."""
    many, settings = report.settings.connections, report.settings
    table = Table(
        "contestant", "p50 ms, 1 connection", "× FastAPI", f"requests/s, {many} connections", "× FastAPI",
        title=f"{report.checkpoint} {report.variant} on {report.host}",
        caption=f"median of {settings.rounds} rounds of {settings.seconds} s (least to most); ratios within each round",
    )  # fmt: skip
    for standing in standings(report):
        table.add_row(
            standing.contestant,
            _cell(standing.latency_s, 1000, ".2f"),
            _cell(standing.latency_ratio, 1, ".2f"),
            _cell(standing.throughput, 1, ".0f"),
            _cell(standing.throughput_ratio, 1, ".2f"),
        )
    console.print(table)
    idle = ", ".join(f"{name} {share:.1%}" for name, share in report.idle.items())
    console.print(f"idle, of one core: {idle}; busy with anything else: {report.others:.0%} of the machine")
    console.print("; ".join(beside(report)))
    for caution in cautions(report):
        console.print(f"[yellow]{caution}[/]")
    for target in targets(report):
        console.print(f"[{'green' if target.met else 'red'}]{target.sentence()}[/]")


def write_json(report: RaceReport, path: Path) -> None:
    """Everything in SI units: conditions, standings, targets with their verdicts, and every single turn."""
    document = {
        **msgspec.to_builtins(report, enc_hook=_plain),
        "standings": [msgspec.to_builtins(standing) for standing in standings(report)],
        "targets": [{**msgspec.to_builtins(target), "met": target.met} for target in targets(report)],
        "beside_the_idle_gateway": beside(report),
        "cautions": list(cautions(report)),
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


def write_svg(report: RaceReport, path: Path) -> None:
    """Two rows of bars in one self-contained drawing: median latency alone, throughput in a crowd."""
    rows = standings(report)
    panel = TOP + len(rows) * (BAR + GAP)
    many = report.settings.connections
    alone = [(row, row.latency_s) for row in rows]
    crowd = [(row, row.throughput) for row in rows]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{2 * panel + GAP}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        *_panel("median latency at 1 connection, ms: less is better", alone, 1000, ".2f", 0),
        *_panel(f"requests/s at {many} connections: more is better", crowd, 1, ".0f", panel),
        "</svg>",
    ]
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _panel(title: str, rows: list[tuple[Standing, Spread | None]], scale: float, form: str, top: int) -> list[str]:
    """Bars of the medians with a whisker from the least to the most of the rounds."""
    most = max((spread.high for _, spread in rows if spread), default=1.0)
    room = (WIDTH - LEFT - 90) / most
    parts = [f'<text x="{GAP}" y="{top + 25}" font-weight="bold">{escape(title)}</text>']
    for at, (standing, spread) in enumerate(rows):
        y = top + TOP + at * (BAR + GAP)
        middle = y + BAR / 2
        parts.append(f'<text x="{LEFT - GAP}" y="{middle + 5}" text-anchor="end">{escape(standing.contestant)}</text>')
        if spread is None:
            continue
        low, high = LEFT + spread.low * room, LEFT + spread.high * room
        colour = COLOURS.get(standing.contestant, "#f29900")
        parts += [
            f'<rect x="{LEFT}" y="{y}" width="{spread.median * room:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke="#202124"/>',
            f'<text x="{high + GAP:.1f}" y="{middle + 5}">{format(spread.median * scale, form)}</text>',
        ]
    return parts


def _plain(value: object) -> str:
    """A path as its last part: a report that is published names no machine's folders."""
    if isinstance(value, Path):
        return value.name
    raise TypeError(f"a report holds no {type(value).__name__}")


def _cell(spread: Spread | None, scale: float, form: str) -> str:
    if spread is None:
        return "-"
    median, low, high = (format(value * scale, form) for value in (spread.median, spread.low, spread.high))
    return f"{median} ({low} to {high})"
