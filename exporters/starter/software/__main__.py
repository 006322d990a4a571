"""Rebuild the summarising starter checkpoint from Debian's descriptions: `python -m exporters.starter.software`."""

from __future__ import annotations

import sys

from rich.table import Table

from exporters.starter.command import run
from exporters.starter.software.build import build
from exporters.starter.software.card import Scores, SummariserManifest


def table(manifest: SummariserManifest) -> Table:
    """A table of the checkpoint's scores."""
    made = Table("ROUGE-L", "held out", "dev")
    for name in Scores.model_fields:
        if name != "margin":
            made.add_row(name, *(f"{getattr(side, name).rougeL[0]:.1f}" for side in (manifest.heldout, manifest.dev)))
    return made


if __name__ == "__main__":
    sys.exit(run("exporters.starter.software", __doc__, build, table))
