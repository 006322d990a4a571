"""Rebuild the starter embedders from the public registry: `python -m exporters.starter.embedders`."""

from __future__ import annotations

import sys

from rich.table import Table

from exporters.starter.command import run
from exporters.starter.embedders.build import build
from exporters.starter.embedders.card import EmbedderCard


def table(manifests: list[EmbedderCard]) -> Table:
    """A table of each checkpoint's scores."""
    made = Table("checkpoint", "tier", "mean reciprocal rank", "found first", "pairs")
    for m in manifests:
        figures = (f"{m.score.reciprocal_rank:.4f}", f"{m.score.first:.1%}", str(m.score.pairs))
        made.add_row(m.name, m.tier, *figures)
    return made


if __name__ == "__main__":
    sys.exit(run("exporters.starter.embedders", __doc__, build, table))
