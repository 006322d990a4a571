"""Rebuild the extractive checkpoints from the public registry: `python -m exporters.starter.extractive`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from exporters.starter.extractive.build import Watch, build
from exporters.starter.extractive.manifest import ExtractiveCheckpoint

HERE = Path(__file__).parents[1]
CACHE = Path.home() / ".cache" / "punctual" / "starter"


def main() -> None:
    """Parse, build under a progress bar, print what was measured."""
    arguments = _arguments()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("sentences"))
    console = Console()
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        manifests = build(arguments.out, arguments.cache, _ticker(progress), smoke=arguments.smoke)
    console.print(_table(manifests))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m exporters.starter.extractive", description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="where checkpoints/ and summaries-heldout.jsonl go")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the packages and the embeddings are kept")
    parser.add_argument("--smoke", action="store_true", help="a few documents: does it run at all?")
    arguments = parser.parse_args()
    if arguments.smoke and arguments.out == HERE:
        parser.error("--smoke would overwrite the shipped checkpoints: name another folder with --out")
    return arguments


def _ticker(progress: Progress) -> Watch:
    """One bar for each checkpoint, its length known from the first batch."""

    def watch(name: str) -> Callable[[int, int], None]:
        bar = progress.add_task(f"embedding for {name}", total=None)
        return lambda done, total: progress.update(bar, completed=done, total=total)

    return watch


def _table(manifests: list[ExtractiveCheckpoint]) -> Table:
    table = Table("checkpoint", "ROUGE-1, test", "over the first three sentences", "95 % interval")
    for m in manifests:
        gain = m.test.gain_over_lead["rouge1"]
        table.add_row(m.name, f"{m.test.own.rouge1:.2f}", f"{gain.mean:+.2f}", f"{gain.low:+.2f} to {gain.high:+.2f}")
    return table


if __name__ == "__main__":
    main()
