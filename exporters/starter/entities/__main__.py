"""Rebuild the general tagger's adapter from the public registry: `python -m exporters.starter.entities`."""

from __future__ import annotations

import sys

from rich.table import Table

from exporters.starter.command import run
from exporters.starter.entities.build import build
from exporters.starter.entities.card import EntitiesCard, score_rows


def table(manifest: EntitiesCard) -> Table:
    """A table of the checkpoint's scores and of its teacher's."""
    made = Table("texts", "of", "entities", "precision", "recall", "F1", "the teacher's F1")
    for row in score_rows(manifest):
        made.add_row(*row)
    return made


if __name__ == "__main__":
    sys.exit(run("exporters.starter.entities", __doc__, build, table))
