"""Rebuild the starter classifiers from the public registries: `python -m exporters.starter`."""

from __future__ import annotations

import sys

from rich.table import Table

from exporters.starter.command import run
from exporters.starter.sentiment.build import build
from exporters.starter.sentiment.card import Manifest


def table(manifests: list[Manifest]) -> Table:
    """A table of each checkpoint's scores."""
    made = Table("checkpoint", "tier", "held out", "dev", "minutes")
    for m in manifests:
        scores = m.scores
        figures = (f"{scores.heldout.accuracy:.1%}", f"{scores.dev.accuracy:.1%}", f"{m.training.wall_s / 60:.1f}")
        made.add_row(m.name, m.tier, *figures)
    return made


if __name__ == "__main__":
    sys.exit(run("exporters.starter", __doc__, build, table))
