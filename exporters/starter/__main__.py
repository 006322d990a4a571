"""Rebuild the starter checkpoints from the public registries: `python -m exporters.starter`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from exporters.starter.build import build
from exporters.starter.fit import Advance
from exporters.starter.learn import Watch
from exporters.starter.manifest import Manifest

HERE = Path(__file__).parent
CACHE = Path.home() / ".cache" / "punctual" / "starter"


def main() -> None:
    """Parse, build under a progress bar, print what was measured."""
    arguments = _arguments()
    columns = (TextColumn("{task.fields[run]}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    console = Console()
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        manifests = build(arguments.out, arguments.cache, _ticker(progress), smoke=arguments.smoke)
    console.print(_table(manifests))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m exporters.starter", description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="where checkpoints/ and heldout.jsonl go")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the two packages are kept")
    parser.add_argument("--smoke", action="store_true", help="a few steps on a few sentences: does it run at all?")
    arguments = parser.parse_args()
    if arguments.smoke and arguments.out == HERE:
        parser.error("--smoke would overwrite the shipped checkpoints: name another folder with --out")
    return arguments


def _ticker(progress: Progress) -> Watch:
    """One bar for each run, its length known from the first step."""

    def watch(name: str) -> Advance:
        bar = progress.add_task("starting", run=name, total=None)
        return lambda done, steps, line: progress.update(bar, completed=done, total=steps, description=line)

    return watch


def _table(manifests: list[Manifest]) -> Table:
    table = Table("checkpoint", "tier", "held out", "dev", "minutes")
    for m in manifests:
        scores = m.scores
        figures = (f"{scores.heldout.accuracy:.1%}", f"{scores.dev.accuracy:.1%}", f"{m.training.wall_s / 60:.1f}")
        table.add_row(m.name, m.tier, *figures)
    return table


if __name__ == "__main__":
    main()
