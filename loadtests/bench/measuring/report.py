"""A benchmark's report, shown at the terminal and written as JSON, Markdown or a plot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under headings. `note` explains the figures: units, and the number of runs."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target or promise in a sentence, and whether it is met."""

    sentence: str
    met: bool


@dataclass(frozen=True, slots=True)
class Report:
    """The results of one benchmark.

    The JSON file holds `document`, in SI units, with the remarks, cautions and verdicts. `remarks` explain the
    figures; `cautions` name what may have distorted them. `figure` draws the plot, if the benchmark has one.
    """

    tables: Sequence[Table]
    document: Mapping[str, object]
    verdicts: Sequence[Verdict] = ()
    remarks: Sequence[str] = ()
    cautions: Sequence[str] = ()
    figure: Callable[[], Figure] | None = field(default=None, compare=False)

    @property
    def met(self) -> bool:
        """True if every target is met."""
        return all(verdict.met for verdict in self.verdicts)


def present(
    report: Report,
    console: Console,
    *,
    json: Path | None = None,
    markdown: Path | None = None,
    plot: Path | None = None,
) -> int:
    """Prints the report and writes the given files. Returns the exit status: 0 if every target is met, else 1."""
    for table in report.tables:
        console.print(_printed(table))
    for remark in report.remarks:
        console.print(Text(remark), soft_wrap=True)
    for caution in report.cautions:
        console.print(Text(caution, "yellow"), soft_wrap=True)
    for verdict in report.verdicts:
        console.print(Text(verdict.sentence, "green" if verdict.met else "red"), soft_wrap=True)
    if json:
        sentences = {name: getattr(report, name) for name in ("remarks", "cautions", "verdicts")}
        encoded = msgspec.json.encode({**report.document, **sentences}, enc_hook=_last_part)
        json.write_bytes(msgspec.json.format(encoded) + b"\n")
    if markdown:
        markdown.write_text(in_markdown(report), encoding="utf-8")
    if plot and report.figure:
        report.figure().savefig(plot)
    return 0 if report.met else 1


def in_markdown(report: Report) -> str:
    """The tables, remarks, cautions and verdicts as Markdown."""
    parts: list[str] = []
    for table in report.tables:
        lines = [f"**{table.title}**", "", _row(table.headings), _row("---" for _ in table.headings)]
        lines += [_row(row) for row in table.rows]
        parts.append("\n".join([*lines, *(("", table.note) if table.note else ())]))
    parts += [*report.remarks, *report.cautions, *(verdict.sentence for verdict in report.verdicts)]
    return "\n\n".join(parts) + "\n"


def _printed(table: Table) -> RichTable:
    printed = RichTable(title=Text(table.title), caption=Text(table.note) if table.note else None)
    for heading in table.headings:
        printed.add_column(Text(heading))
    for row in table.rows:
        printed.add_row(*map(Text, row))
    return printed


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _last_part(value: object) -> str:
    """A path's last part, so that a published report shows no folders of this machine."""
    if isinstance(value, Path):
        return value.name
    raise TypeError(f"a report cannot hold a {type(value).__name__}")
