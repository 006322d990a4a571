"""Rebuild the large sentiment classifier's adapter from the registries: `python -m exporters.starter.adapter`."""

from __future__ import annotations

import sys

from rich.table import Table

from exporters.starter.adapter.build import build
from exporters.starter.adapter.card import AdapterManifest
from exporters.starter.command import run


def table(manifest: AdapterManifest) -> Table:
    """A table of the checkpoint's scores."""
    made = Table("checkpoint", "tier", "held out", "dev", "minutes")
    scores, minutes = manifest.scores, manifest.training.wall_s / 60
    made.add_row(
        manifest.name, manifest.tier, f"{scores.heldout.accuracy:.1%}", f"{scores.dev.accuracy:.1%}", f"{minutes:.1f}"
    )
    return made


if __name__ == "__main__":
    sys.exit(run("exporters.starter.adapter", __doc__, build, table))
