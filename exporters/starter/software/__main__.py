"""Rebuild the summarising starter checkpoint from Debian's descriptions: `python -m exporters.starter.software`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from exporters.starter.software.archive import NoDescriptions
from exporters.starter.software.build import build
from exporters.starter.software.manifest import Scores, SummariserManifest

HERE = Path(__file__).parents[1]
CACHE = Path.home() / ".cache" / "punctual" / "starter"


def main() -> int:
    """Parse, build under a progress bar, print what was measured; 1 where the descriptions cannot be had."""
    arguments = _arguments()
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    console = Console()
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task("reading the descriptions", total=None)

        def advance(done: int, steps: int, line: str) -> None:
            progress.update(bar, completed=done, total=steps, description=line)

        try:
            manifest = build(arguments.out, arguments.cache, advance, smoke=arguments.smoke)
        except NoDescriptions as missing:
            console.print(f"[red]{missing}[/red]")
            return 1
    console.print(_table(manifest))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m exporters.starter.software", description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="where checkpoints/ and software-heldout.jsonl go")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the base checkpoint and the lists are kept")
    parser.add_argument("--smoke", action="store_true", help="a few steps on a few pairs: does it run at all?")
    arguments = parser.parse_args()
    if arguments.smoke and arguments.out == HERE:
        parser.error("--smoke would overwrite the shipped checkpoint: name another folder with --out")
    return arguments


def _table(manifest: SummariserManifest) -> Table:
    table = Table("ROUGE-L", "held out", "dev")
    for name in Scores.model_fields:
        if name != "margin":
            table.add_row(name, *(f"{getattr(side, name).rougeL[0]:.1f}" for side in (manifest.heldout, manifest.dev)))
    return table


if __name__ == "__main__":
    sys.exit(main())
