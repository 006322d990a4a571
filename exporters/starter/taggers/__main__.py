"""Rebuild the starter tagger from the public registry: `python -m exporters.starter.taggers`."""

from __future__ import annotations

import sys

from rich.table import Table

from exporters.starter.command import run
from exporters.starter.taggers.build import build
from exporters.starter.taggers.card import TaggerCard


def table(manifests: list[TaggerCard]) -> Table:
    """A table of each checkpoint's scores."""
    made = Table("checkpoint", "tier", "precision", "recall", "F1", "characters covered", "texts")
    for m in manifests:
        one = m.score
        made.add_row(
            m.name,
            m.tier,
            f"{one.precision:.1%}",
            f"{one.recall:.1%}",
            f"{one.f1:.1%}",
            f"{one.covered:.1%}",
            str(one.texts),
        )
    return made


if __name__ == "__main__":
    sys.exit(run("exporters.starter.taggers", __doc__, build, table))
