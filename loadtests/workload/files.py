"""Reads text and CSV files up to a size limit, and reports every error with its line.

Knows lines and columns, not their meaning.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.catalogs.catalog_yaml import shown
from loadtests.errors import LoadTestError


class ScenarioError(LoadTestError):
    """A scenario that cannot be run. Its arguments are the faults, one line each, as `FILE: FIELD: what`."""

    def __str__(self) -> str:
        """All faults, one per line."""
        return "\n".join(str(fault) for fault in self.args)


MOST_BYTES = 32 * 1024 * 1024


def read_text(path: Path) -> str:
    """The UTF-8 text of a file of at most 32 MiB. Raises ScenarioError."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ScenarioError(f"{path}: cannot be read: {reason}") from None
    if len(content) > MOST_BYTES:
        raise ScenarioError(f"{path}: must be at most {MOST_BYTES // 1024**2} MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ScenarioError(f"{path}:{line}: the file must be UTF-8 text") from None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: its cells by column, its file and its line."""

    path: Path
    line: int
    cells: Mapping[str, str]

    def fault(self, column: str, what: str) -> ScenarioError:
        """An error about one of the row's cells."""
        return ScenarioError(f"{self.path}:{self.line}: {column}: {what}, got {shown(self.cells[column])}")

    def name(self, column: str) -> str:
        """A cell as a printable name. Raises ScenarioError."""
        value = self.cells[column]
        if not 1 <= len(value) <= 100 or not value.isprintable():
            raise self.fault(column, "must be a name of at most 100 printable characters")
        return value

    def number(self, column: str, least: float, most: float) -> float:
        """A cell as a number within these bounds. Raises ScenarioError."""
        try:
            value = float(self.cells[column])
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise self.fault(column, f"must be a number from {least:g} to {most:g}")
        return value

    def count(self, column: str, most: int) -> int:
        """A cell as an integer from 1 to `most`. Raises ScenarioError."""
        text = self.cells[column]
        if not (text.isascii() and text.isdecimal() and len(text) <= 18 and 1 <= int(text) <= most):
            raise self.fault(column, f"must be a whole number from 1 to {most}")
        return int(text)


def read_table(path: Path, columns: Collection[str]) -> Iterator[Row]:
    """Yields the rows under a header with at least these columns, in any order; skips blank lines and `#` comments.

    A row is one line. Raises ScenarioError at the first faulty row.
    """
    header: list[str] = []
    for number, text in enumerate(read_text(path).split("\n"), start=1):
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        cells = _cells(text, f"{path}:{number}")
        if not header:
            header = _checked(cells, columns, f"{path}:{number}")
        elif len(cells) != len(header):
            raise ScenarioError(f"{path}:{number}: must have {len(header)} cells, as the header has, got {len(cells)}")
        else:
            yield Row(path, number, dict(zip(header, cells, strict=True)))
    if not header:
        raise ScenarioError(f"{path}: the file is empty; its header has the columns {','.join(columns)}")


def _cells(text: str, place: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([text.rstrip("\r")], strict=True))]
    except csv.Error as error:
        raise ScenarioError(f"{place}: not CSV: {error}") from None


def _checked(header: list[str], columns: Collection[str], place: str) -> list[str]:
    if missing := [column for column in columns if column not in header]:
        raise ScenarioError(f"{place}: the header lacks {', '.join(missing)}, got {shown(','.join(header))}")
    if twice := [column for column in columns if header.count(column) > 1]:
        raise ScenarioError(f"{place}: the header has {', '.join(twice)} twice")
    return header
