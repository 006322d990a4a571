"""Rebuild the extractive checkpoints from the public registry: `python -m exporters.starter.extractive`."""

from __future__ import annotations

import sys

from rich.table import Table

from exporters.starter.command import run
from exporters.starter.extractive.build import build
from exporters.starter.extractive.card import ExtractiveCheckpoint


def table(manifests: list[ExtractiveCheckpoint]) -> Table:
    """A table of each checkpoint's scores."""
    made = Table("checkpoint", "ROUGE-1, test", "over the first three sentences", "95 % interval")
    for m in manifests:
        gain = m.test.gain_over_lead["rouge1"]
        made.add_row(m.name, f"{m.test.own.rouge1:.2f}", f"{gain.mean:+.2f}", f"{gain.low:+.2f} to {gain.high:+.2f}")
    return made


if __name__ == "__main__":
    sys.exit(run("exporters.starter.extractive", __doc__, build, table))
