"""What every test run shares: how many examples a property is tried on, one live gateway, and one browser."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from virtual_time import VirtualLoop

if TYPE_CHECKING:
    from live import Live
    from opened_console import Console

# A loaded machine must not fail a property for its speed. `ci` tries the same examples each time;
# HYPOTHESIS_PROFILE=explore searches anew, and long. What fails says how it is tried again.
unhurried = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", unhurried, max_examples=60, derandomize=True, database=None)
settings.register_profile("explore", unhurried, max_examples=1000, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

PRIORITY = os.getpriority(os.PRIO_PROCESS, 0)
"""The niceness that the tests were started with."""


def pytest_configure(config: pytest.Config) -> None:
    """Makes the mark known, and heeds SIGHUP and SIGINT even if the tests were started where they are ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # programs inherit what is ignored, by `nohup` or a shell's `&`
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "virtual_time(flows=True): runs a coroutine on a loop with a clock of its own")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keeps what collecting has made out of all later garbage collections: it lives as long as the process."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """No test leaves its process at a lower priority: all tests after it would wait for everything else."""
    if os.getpriority(os.PRIO_PROCESS, 0) != PRIORITY:
        with suppress(PermissionError):  # only root may raise it again
            os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
        pytest.fail(f"{item.nodeid} has lowered the priority of its process", pytrace=False)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of a coroutine test: one with a clock of its own where it is marked `virtual_time`."""
    mark = item.get_closest_marker("virtual_time")
    if mark is None:
        return {"real": asyncio.new_event_loop}
    return {"virtual": lambda: VirtualLoop(flows=mark.kwargs.get("flows", True))}


def group_of(path: str) -> str:
    """Whose tests run in one process, one after the other: those of a file, of the one gateway, of the one browser."""
    folder, name = Path(path).parent.name, Path(path).name
    if name.startswith("test_live_") or (folder, name) == ("browser", "test_console.py"):
        return "gateway"
    return folder if folder == "browser" else path


REPEATING = ("tests/property/", "tests/unit/loadtests/")
"""Whose tests take ways that others take too, again and again: watched by coverage they last twice as long."""


@pytest.hookimpl(trylast=True)  # after pytest-randomly has mixed them
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The gateway's tests go first: they take longest, and much of that is waiting. Coverage leaves some unwatched."""
    items.sort(key=lambda item: group_of(item.nodeid.partition("::")[0]) != "gateway")
    for item in items:
        if item.nodeid.startswith(REPEATING):
            item.add_marker(pytest.mark.no_cover)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`: groups go to processes whole. The marks of pytest-xdist 3.8 have no effect under pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped,unused-ignore]

    class Grouped(LoadScopeScheduling):  # type: ignore[misc,unused-ignore]  # pytest-xdist ships no types
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid.partition("::")[0])

    config.option.loadscopereorder = False
    return Grouped(config, log)


@pytest.fixture(scope="module")
def warm() -> Iterator[None]:
    """Export jobs of a file's tests begin with their libraries imported."""
    from warm_jobs import warm_jobs  # here, since it starts a process that imports torch

    with warm_jobs():
        yield


@pytest.fixture(scope="session")
def small_catalog(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A catalog of small checkpoints, and the cache with its variants."""
    from live import make_variants, write_catalog  # here, since they import torch, which most tests do without
    from warm_jobs import warm_jobs

    folder = tmp_path_factory.mktemp("small")
    catalog = write_catalog(folder)
    with warm_jobs():
        make_variants(catalog, folder / "cache")
    return catalog, folder / "cache"


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
def opened_browser() -> Iterator[Console]:
    """An open browser: starting it takes longer than most tests of the console."""
    from opened_console import browser  # here, since it imports selenium, which most tests do without

    with browser() as opened:
        yield opened


@pytest.fixture
def console(opened_browser: Console) -> Iterator[Console]:
    """An open browser at no page yet. The page that it opens is left afterwards, for it would ask on and on."""
    yield opened_browser
    opened_browser.leave()
