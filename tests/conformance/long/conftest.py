"""What only `make conformance` runs: other people's programs, at length, against a gateway that it starts and ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from live import await_ready, free_port, start, stop

import gateway.catalogs
from exporters.options import DEFAULT_CACHE

collect_ignore_glob = [] if os.environ.get("CONFORMANCE") == "long" else ["test_*.py"]

STARTER = Path(gateway.catalogs.__file__).with_name("starter.yaml")
SERVED = {"distilbert-sentiment", "extract-realtime", "all-minilm-l6", "rampart", "smollm2"}
"""Of the starter catalog, a checkpoint for each task."""


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a gateway with a checkpoint for each task of the starter catalog answers."""
    folder = tmp_path_factory.mktemp("gateway")
    document = yaml.safe_load(STARTER.read_text("utf-8"))
    document["checkpoints"] = [one for one in document["checkpoints"] if one["name"] in SERVED]
    catalog = folder / "catalog.yaml"
    catalog.write_text(yaml.safe_dump(document), "utf-8")
    running = start(catalog, Path(os.environ.get("PUNCTUAL_CACHE", DEFAULT_CACHE)), free_port(), folder / "log")
    try:
        await_ready(running)
        yield running.url
    finally:
        stop(running)
