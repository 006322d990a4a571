"""The command line of every recipe: its options, a progress bar for each run, and a table of scores."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from exporters.sources.registry import NotFetched
from exporters.starter.packages import CannotBuild
from exporters.starter.publishing import write_digests

HERE = Path(__file__).parent
THREADS = 2
"""Torch threads of every training run, as for the shipped checkpoints."""

CACHE = Path.home() / ".cache" / "punctual" / "starter"

Tick: TypeAlias = Callable[[int, int, str], None]
"""Called after every step with the steps done, the total, and a status line."""
Ticker: TypeAlias = Callable[[str], Tick]
"""Makes the tick of a run by name."""
Made = TypeVar("Made")


def run(
    program: str,
    about: str | None,
    build: Callable[[Path, Path, Ticker, bool], Made],
    table: Callable[[Made], Table],
    arguments: Sequence[str] | None = None,
) -> int:
    """Parses the options, builds with a progress bar, prints the scores.

    Status 0, 1 if an input of the build is not available, 2 for wrong options.
    """
    options = _options(program, about, arguments)
    columns = (TextColumn("{task.fields[run]}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    console = Console()
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        try:
            made = build(options.out, options.cache, _ticker(progress), options.smoke)
        except (CannotBuild, NotFetched) as missing:
            console.print(f"[red]{missing}[/red]")
            return 1
    write_digests(options.out)
    console.print(table(made))
    return 0


def _options(program: str, about: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=about)
    parser.add_argument("--out", type=Path, default=HERE, help="the folder for checkpoints/ and the held-out texts")
    parser.add_argument("--cache", type=Path, default=CACHE, help="the folder of downloads and intermediate results")
    parser.add_argument("--smoke", action="store_true", help="a smoke run: a few steps on a few texts")
    options = parser.parse_args(arguments)
    if options.smoke and options.out == HERE:
        parser.error("--smoke would overwrite the shipped checkpoints: name another folder with --out")
    return options


def _ticker(progress: Progress) -> Ticker:
    """One progress bar for each run; the first step sets its length."""

    def ticker(name: str) -> Tick:
        bar = progress.add_task("starting", run=name, total=None)
        return lambda done, steps, line: progress.update(bar, completed=done, total=steps, description=line)

    return ticker
