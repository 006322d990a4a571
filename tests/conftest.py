"""What every test run shares: how many examples a property is tried on, one live gateway, and one browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from live import Live
    from opened_console import Console

# No deadline, since a loaded machine must not fail a property for its speed. HYPOTHESIS_PROFILE=thorough searches long.
settings.register_profile("quick", max_examples=60, deadline=None)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(scope="session")
def small_catalog(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A catalog of small checkpoints, and the cache that its variants go into."""
    from live import write_catalog  # here, since it imports torch, which most tests do without

    folder = tmp_path_factory.mktemp("small")
    return write_catalog(folder), folder / "cache"


@pytest.fixture(scope="session")
def live(small_catalog: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A ready gateway, shared: a test that harms it leaves it whole again."""
    from live import await_ready, free_port, start, stop

    catalog, cache = small_catalog
    running = start(catalog, cache, free_port(), tmp_path_factory.mktemp("live") / "log")
    try:
        await_ready(running)
        yield running
    finally:
        stop(running)


@pytest.fixture(scope="session")
def console() -> Iterator[Console]:
    """An open browser, at no page yet: starting it takes longer than most tests of the console."""
    from opened_console import browser  # here, since it imports selenium, which most tests do without

    with browser() as opened:
        yield opened
