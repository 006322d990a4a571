"""Rebuild the general tagger's adapter from the public registry: `python -m exporters.starter.entities`."""

from __future__ import annotations

import sys

from exporters.starter.command import run
from exporters.starter.entities.build import build
from exporters.starter.entities.card import table

if __name__ == "__main__":
    sys.exit(run("exporters.starter.entities", __doc__, build, table))
