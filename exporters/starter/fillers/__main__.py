"""Rebuild the starter that fills masks from public texts: `python -m exporters.starter.fillers`."""

from __future__ import annotations

import sys

from rich.table import Table

from exporters.starter.command import run
from exporters.starter.fillers.build import build
from exporters.starter.fillers.card import FillerCard, score_rows


def table(manifest: FillerCard) -> Table:
    """A table of the checkpoint's scores beside those of counts."""
    made = Table("sentences from", "sentences", "first", "95 %", "within five", "pairs", "most frequent")
    for row in score_rows(manifest):
        made.add_row(*row)
    return made


if __name__ == "__main__":
    sys.exit(run("exporters.starter.fillers", __doc__, build, table))
