"""How a decoding race is shown: a table at the terminal, the same in Markdown, a JSON file of every turn, a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from loadtests.decoding_engines import BASELINE
from loadtests.decoding_figures import BEAMS, GREEDY, Verdict, encoder, summary, token, verdicts
from loadtests.decoding_race import DecodingReport
from loadtests.turns import Spread

WIDTH, BAR, GAP, LEFT, TOP = 760, 22, 8, 170, 40
COLOURS = {BASELINE: "#1a73e8", "onnxruntime-fp32": "#7baaf7"}
BUSY_CEILING = 0.10
ROOMY = 150
"""The characters across that the whole table takes."""


def print_decoding(report: DecodingReport, console: Console) -> None:
    """The table, one verdict for each candidate, and what a reader must know of the conditions.

    A narrow terminal shows medians without their ranges.
    """
    roomy = console.width >= ROOMY
    table = Table(*(heading.replace(", ", ",\n") for heading in headings(report)), padding=(0, 1) if roomy else 0)
    table.title, table.caption = title(report), caption(report)
    for cells in rows(report):
        table.add_row(*(cell.replace(" (", "\n(") if roomy else cell.partition(" (")[0] for cell in cells))
    for column in table.columns:
        column.overflow = "fold"
    console.print(table)
    for caution in cautions(report):
        console.print(f"[yellow]{caution}[/]")
    for verdict in judged(report):
        console.print(f"[{'green' if verdict.worth else 'default'}]{verdict.sentence()}[/]")


def markdown(reports: Sequence[DecodingReport]) -> str:
    """A heading, a table, its conditions and verdicts for each race, as a README takes them."""
    parts = []
    for report in reports:
        names = headings(report)
        lines = [names, ["---"] * len(names), *rows(report)]
        parts += [
            f"### {title(report)}",
            "\n".join(f"| {' | '.join(cells)} |" for cells in lines),
            f"{caption(report)[:1].upper()}{caption(report)[1:]}.",
        ]
        said = [*cautions(report), *(verdict.sentence() for verdict in judged(report))]
        parts += ["\n".join(f"- {sentence}" for sentence in said)] if said else []
    return "\n\n".join(parts) + "\n"


def write_json(reports: Sequence[DecodingReport], path: Path) -> None:
    """Everything in SI units and bytes: conditions, verdicts, and every single turn of each race."""
    documents = [
        {
            **msgspec.to_builtins(report),
            "verdicts": [{**msgspec.to_builtins(one), "worth": one.worth} for one in judged(report)],
            "cautions": cautions(report),
        }
        for report in reports
    ]
    path.write_bytes(msgspec.json.format(msgspec.json.encode(documents)) + b"\n")


def write_svg(reports: Sequence[DecodingReport], path: Path) -> None:
    """Two rows of bars for each race in one self-contained drawing: time per token, greedy and with beams."""
    parts, top = [], 0
    for report in reports:
        for beams, how in ((GREEDY, "greedy"), (BEAMS, f"{BEAMS} beams")):
            parts += _panel(report, f"{report.checkpoint}: ms per token, {how}: less is better", beams, top)
            top += TOP + len(report.loaded) * (BAR + GAP)
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top + GAP}" '
        'font-family="sans-serif" font-size="13">'
    )
    drawing = [opening, '<rect width="100%" height="100%" fill="#ffffff"/>', *parts, "</svg>"]
    path.write_text("\n".join(drawing) + "\n", encoding="utf-8")


def title(report: DecodingReport) -> str:
    """What was raced, on what."""
    return f"{report.checkpoint} on {report.host}, {report.settings.threads} threads"


def caption(report: DecodingReport) -> str:
    """How it was measured."""
    settings, turns = report.settings, report.turns
    counted = " and ".join(str(len(turns.rounds(beams))) for beams in (GREEDY, BEAMS))
    each = ", each engine loaded anew for every turn" if report.apart else ""
    return (
        f"{report.input_tokens} tokens read, {settings.tokens} written; median (least to most) of the rounds that "
        f"count: {counted} of {settings.rounds}, greedy and with beams{each}; × is the speed of {BASELINE} as 1, "
        "within each round; ≈ derived: the first token less a further one"
    )


def headings(report: DecodingReport) -> list[str]:
    """The columns."""
    return [
        "engine", "load, s", "resident, MB", f"encoder, ms, {report.input_tokens} tokens",
        "ms a token, greedy", "×", f"ms a token, {BEAMS} beams", "×",
        "summary, s, greedy", f"summary, s, {BEAMS} beams",
    ]  # fmt: skip


def rows(report: DecodingReport) -> list[list[str]]:
    """One row for each engine that ran, the baseline first and the others as they are registered."""
    turns, table = report.turns, []
    for name, loaded in report.loaded.items():
        alone = any(turn.encode_s is not None for turn in turns.taken if turn.engine == name)
        spread = turns.spread(name, GREEDY, encoder)
        table.append(
            [
                name if loaded.arithmetic in name else f"{name} ({loaded.arithmetic})",
                f"{loaded.load_s:.1f}",
                f"{loaded.resident_bytes / 1e6:.0f}, later {turns.resident(name) / 1e6:.0f}",
                ("" if alone or spread is None else "≈ ") + _cell(spread, 1000, ".0f"),
                *_times(report, name, GREEDY),
                *_times(report, name, BEAMS),
                _cell(turns.spread(name, GREEDY, summary), 1, ".2f"),
                _cell(turns.spread(name, BEAMS, summary), 1, ".2f"),
            ]
        )
    return table


def judged(report: DecodingReport) -> list[Verdict]:
    """The verdict on every candidate that ran."""
    return verdicts(report.turns, report.candidates, BASELINE)


def cautions(report: DecodingReport) -> list[str]:
    """What a reader of the figures must know: engines left out, spoilt rounds, a machine that was not quiet."""
    said = [f"{name} is left out: its library is not installed" for name in report.missing]
    said += [
        f"round {turn.round} does not count with {turn.beams} beam{'s' if turn.beams > 1 else ''}: {turn.engine} took "
        f"{turn.one_s:.2f} s for one token and {turn.all_s:.2f} s for {turn.tokens}"
        for turn in report.turns.spoilt()
    ]
    if report.others > BUSY_CEILING:
        said.append(f"the machine was not quiet: {report.others:.0%} of it was busy with something else")
    return said


def _times(report: DecodingReport, name: str, beams: int) -> tuple[str, str]:
    """What a token takes, and how many times as fast as the baseline that is."""
    spread = report.turns.spread(name, beams, token)
    return _cell(spread, 1000, ".1f"), _cell(report.turns.gain(name, BASELINE, beams, token), 1, ".2f")


def _panel(report: DecodingReport, heading: str, beams: int, top: int) -> list[str]:
    """Bars of the medians with a whisker from the least to the most of the rounds."""
    found: list[tuple[str, Spread | None]] = [(name, report.turns.spread(name, beams, token)) for name in report.loaded]
    room = (WIDTH - LEFT - 90) / max((spread.high for _, spread in found if spread), default=1.0)
    parts = [f'<text x="{GAP}" y="{top + 25}" font-weight="bold">{escape(heading)}</text>']
    for at, (name, spread) in enumerate(found):
        y = top + TOP + at * (BAR + GAP)
        middle = y + BAR / 2
        parts.append(f'<text x="{LEFT - GAP}" y="{middle + 5}" text-anchor="end">{escape(name)}</text>')
        if spread is None:
            continue
        low, high = LEFT + spread.low * room, LEFT + spread.high * room
        parts += [
            f'<rect x="{LEFT}" y="{y}" width="{spread.median * room:.1f}" height="{BAR}" '
            f'fill="{COLOURS.get(name, "#f29900")}"/>',
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke="#202124"/>',
            f'<text x="{high + GAP:.1f}" y="{middle + 5}">{spread.median * 1000:.1f}</text>',
        ]
    return parts


def _cell(spread: Spread | None, scale: float, form: str) -> str:
    if spread is None:
        return "-"
    median, low, high = (format(value * scale, form) for value in (spread.median, spread.low, spread.high))
    return f"{median} ({low} to {high})"
