"""How sharing is shown: a table for each load at the terminal, the same in Markdown, and a JSON file of every turn."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from loadtests.decoding_report import BUSY_CEILING
from loadtests.offered_load import LoadSettings
from loadtests.sharing import SharingReport
from loadtests.sharing_turns import (
    ARRANGEMENTS,
    BASELINE,
    Measure,
    Verdict,
    batch_sentence,
    long_p50,
    short_p50,
    short_p95,
    tokens_per_s,
    verdict,
)
from loadtests.turns import WARM_UP, Spread

HEADINGS = (
    "arrangement", "short p50, ms", "×", "short p95, ms", "×", "long p50, ms", "×", "tokens/s", "×"
)  # fmt: skip
MEASURES: tuple[tuple[Measure, float, str], ...] = (
    (short_p50, 1000, ".0f"),
    (short_p95, 1000, ".0f"),
    (long_p50, 1000, ".0f"),
    (tokens_per_s, 1, ".1f"),
)
ROOMY = 130
"""The characters across that the whole table takes."""


def print_sharing(report: SharingReport, console: Console) -> None:
    """A table for each number of long texts, the conditions, what is to be known of them, and the verdicts.

    A narrow terminal shows medians without their ranges.
    """
    roomy = console.width >= ROOMY
    for longs in report.settings.longs:
        table = Table(*HEADINGS, title=title(report, longs), padding=(0, 1) if roomy else 0)
        for cells in rows(report, longs):
            table.add_row(*(cell.replace(" (", "\n(") if roomy else cell.partition(" (")[0] for cell in cells))
        console.print(table)
    console.print(f"{conditions(report)}.")
    for caution in cautions(report):
        console.print(f"[yellow]{caution}[/]")
    console.print(batch_sentence(report.batches))
    for one in verdicts(report):
        console.print(f"[{'green' if one.clear else 'default'}]{one.sentence()}[/]")


def markdown(report: SharingReport) -> str:
    """A heading and a table for each load, then conditions and verdicts, as a README takes them."""
    parts = []
    for longs in report.settings.longs:
        lines = [HEADINGS, ["---"] * len(HEADINGS), *rows(report, longs)]
        parts += [f"### {title(report, longs)}", "\n".join(f"| {' | '.join(cells)} |" for cells in lines)]
    said = [*cautions(report), batch_sentence(report.batches), *(one.sentence() for one in verdicts(report))]
    parts += [f"{conditions(report)}.", "\n".join(f"- {sentence}" for sentence in said)]
    return "\n\n".join(parts) + "\n"


def write_json(report: SharingReport, path: Path) -> None:
    """Everything in SI units: conditions, arrangements (a turn of null ends only with its text), turns, verdicts."""
    document = {
        **msgspec.to_builtins(report),
        "arrangements": msgspec.to_builtins(ARRANGEMENTS),
        "verdicts": [
            {**msgspec.to_builtins(one), "clear": one.clear, "sentence": one.sentence()} for one in verdicts(report)
        ],
        "batch": batch_sentence(report.batches),
        "cautions": cautions(report),
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


def title(report: SharingReport, longs: int) -> str:
    """What was shared, on what, beside how much."""
    texts = "one long text" if longs == 1 else f"{longs} long texts"
    return f"{report.checkpoint} on {report.host}: short texts while {texts} at a time {_is(longs)} written"


def conditions(report: SharingReport) -> str:
    """The load and how it was measured."""
    settings = report.settings
    counted = " and ".join(str(len(report.turns.rounds(longs))) for longs in settings.longs)
    shorts = [turn.shorts for turn in report.turns.counted()] or [0]
    return (
        f"Long texts read {settings.long_read} tokens and write {settings.long_written}, short ones read "
        f"{settings.short_read} and write {settings.short_written} and arrive at {report.rate:g}/s, at random and "
        f"whatever is under way; turns of {settings.seconds:g} s with {_range(min(shorts), max(shorts))} short texts; "
        f"alone, a short one takes {report.short_s * 1000:.0f} ms and a long one {report.long_s * 1000:.0f} ms; "
        f"median (least to most) of the rounds that count: {counted} of {settings.rounds}; × is {BASELINE} as 1, "
        "within each round"
    )


def rows(report: SharingReport, longs: int) -> list[list[str]]:
    """One row for each arrangement, the baseline first."""
    turns = report.turns
    return [
        [
            one.name,
            *(
                cell
                for measure, scale, form in MEASURES
                for cell in (
                    _cell(turns.spread(one.name, longs, measure), scale, form),
                    "1" if one.name == BASELINE else _cell(turns.ratio(one.name, longs, measure), 1, ".2f"),
                )
            ),
        ]
        for one in ARRANGEMENTS
    ]


def verdicts(report: SharingReport) -> list[Verdict]:
    """One for each number of long texts at which a round counts."""
    found = (verdict(report.turns, longs) for longs in report.settings.longs)
    return [one for one in found if one is not None]


def cautions(report: SharingReport) -> list[str]:
    """What a reader of the figures must know: rounds that do not count, a late generator, a machine not quiet."""
    said = [
        f"round {turn.round} does not count beside {turn.longs} long: in {turn.arrangement} no short or no long text "
        "ended in time"
        for turn in report.turns.taken
        if not turn.complete and turn.round != WARM_UP
    ]
    counted = report.turns.counted()
    bound_s = LoadSettings(report.rate, report.settings.seconds).lag_bound_s
    late = [turn.lag.p99_s for turn in counted if turn.lag and turn.lag.p99_s > bound_s]
    if late:
        said.append(
            f"short texts were sent late in {len(late)} of {len(counted)} turns, p99 up to {max(late) * 1000:.1f} ms"
        )
    busy = [turn.others for turn in counted if turn.others > BUSY_CEILING]
    if busy:
        said.append(
            f"the machine was not quiet: up to {max(busy):.0%} of it was busy with something else, more than "
            f"{BUSY_CEILING:.0%} in {len(busy)} of {len(counted)} turns"
        )
    return said


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _range(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"


def _cell(spread: Spread | None, scale: float, form: str) -> str:
    if spread is None:
        return "-"
    median, low, high = (format(value * scale, form) for value in (spread.median, spread.low, spread.high))
    return f"{median} ({low} to {high})"
