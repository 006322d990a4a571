"""Train a translator of software descriptions on Debian's translations: `python -m exporters.starter.translators`."""

from __future__ import annotations

import sys

from rich.table import Table

from exporters.starter.command import run
from exporters.starter.translators.build import Reached, build


def table(reached: Reached) -> Table:
    """A table of the scores on the held-out segments."""
    made = Table("held out", "segments", "BLEU", "chrF")
    for name, one in reached.scores.items():
        made.add_row(name, f"{one.segments:,}", f"{one.bleu:.1f}", f"{one.chrf:.1f}")
    return made


if __name__ == "__main__":
    sys.exit(run("exporters.starter.translators", __doc__, build, table))
