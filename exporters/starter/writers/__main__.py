"""Rebuild the starter that writes on from the public registry: `python -m exporters.starter.writers`."""

from __future__ import annotations

import sys

from rich.table import Table

from exporters.starter.command import run
from exporters.starter.writers.build import build
from exporters.starter.writers.card import WriterCard


def table(manifests: list[WriterCard]) -> Table:
    """A table of each checkpoint's scores."""
    made = Table("checkpoint", "tier", "questions answered", "share", "nats a token", "tokens")
    for m in manifests:
        one = m.score
        made.add_row(
            m.name,
            m.tier,
            f"{one.right} of {one.questions}",
            f"{one.right / one.questions:.1%}",
            f"{one.nats:.3f}",
            str(one.tokens),
        )
    return made


if __name__ == "__main__":
    sys.exit(run("exporters.starter.writers", __doc__, build, table))
