"""Train a span head on made questions, and score it beside sentences: `python -m exporters.starter.spans`."""

from __future__ import annotations

import sys

from exporters.starter.command import run
from exporters.starter.spans.build import build
from exporters.starter.spans.card import table

if __name__ == "__main__":
    sys.exit(run("exporters.starter.spans", __doc__, build, table))
