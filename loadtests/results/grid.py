"""A table of results, told apart from where it is shown: at a terminal, in Markdown, in a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands in one place of a grid."""

    text: str
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A row and the name of it; `ours` sets it apart where colours can."""

    label: Entry
    entries: tuple[Entry, ...]
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows under a header, whose first member names the rows; every row is as wide as the header."""

    title: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""

    def rich(self) -> Table:
        """For a terminal."""
        first, *others = self.header
        table = Table(first, title=self.title, caption=self.note or None)
        for name in others:
            table.add_column(name, justify="right")
        for row in self.rows:
            shown = [_rich(entry) for entry in (row.label, *row.entries)]
            table.add_row(*shown, style="cyan" if row.ours else None)
        return table

    def markdown(self) -> str:
        """For a document: the title in bold, the table, the note."""
        lines = [f"**{_piped(self.title)}**", "", _line([_piped(name) for name in self.header])]
        lines.append("|---|" + "---:|" * (len(self.header) - 1))
        for row in self.rows:
            lines.append(_line([_marked(entry) for entry in (row.label, *row.entries)]))
        if self.note:
            lines += ["", self.note]
        return "\n".join(lines) + "\n"

    def html(self) -> str:
        """For a page: a table with a caption and headed rows, in a frame that scrolls where it is too wide."""
        wordy = [any(row.entries[at].text[:1].isalpha() for row in self.rows) for at in range(len(self.header) - 1)]
        kinds = ["", *(' class="words"' if words else "" for words in wordy)]
        head = "".join(
            f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(self.header, kinds, strict=True)
        )
        body = "".join(_html(row, kinds[1:]) for row in self.rows)
        note = f'<p class="note">{escape(self.note)}</p>' if self.note else ""
        return (
            f'<div class="wide" tabindex="0" role="region" aria-label="{escape(self.title)}"><table>'
            f"<caption>{escape(self.title)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}"
        )


def _rich(entry: Entry) -> Text:
    return Text(entry.text, style="bold" if entry.bold else "")


def _line(parts: list[str]) -> str:
    return "| " + " | ".join(parts) + " |"


def _piped(text: str) -> str:
    return text.replace("|", "\\|")


def _marked(entry: Entry) -> str:
    return f"**{_piped(entry.text)}**" if entry.bold and entry.text else _piped(entry.text)


def _html(row: Row, kinds: Sequence[str]) -> str:
    """Words stand to the left of their column, figures to the right: `kinds` says which, as attributes."""
    entries = "".join(f"<td{kind}>{_strong(entry)}</td>" for entry, kind in zip(row.entries, kinds, strict=True))
    ours = ' class="ours"' if row.ours else ""
    return f'<tr{ours}><th scope="row">{_strong(row.label)}</th>{entries}</tr>'


def _strong(entry: Entry) -> str:
    return f"<strong>{escape(entry.text)}</strong>" if entry.bold else escape(entry.text)
