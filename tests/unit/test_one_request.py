"""The path of one request: which modules it enters, and that no floor calls a higher one."""

from __future__ import annotations

import random
import sys
import threading
import tomllib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import httpx
import pytest
from by_hand import entry_of
from fakes import FakeClock
from small_variants import write_variant
from waiting import until
from worlds import OwnMetrics

from deployments.replica.replica import ReplicaSettings, open_replica
from deployments.replica.tokens import counters_of
from deployments.transport import Endpoint, TransportServer, UnixAddress
from deployments.transport.client import TransportBackend
from gateway.api import app
from gateway.catalogs.catalog import Catalog
from gateway.forecasting.load import LoadTracker
from gateway.model.tier import Tier
from gateway.router import Router
from gateway.service import Service

ROOT = Path(__file__).resolve().parents[2]
MODULES_AT_MOST = 34
"""The number of modules that one `/classify` enters on an idle gateway; lower it when there are fewer."""

WARM_UP = 30
"""Requests before the measured one, enough for forecasts to have learnt."""

NAME = "by-hand"


@cache
def module_of(code: CodeType) -> str:
    """The path of the module of the two packages that defines a function; empty for other functions."""
    path = Path(code.co_filename)
    inside = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
    return inside if inside.startswith(("gateway/", "deployments/")) else ""


@cache
def floors() -> dict[str, int]:
    """The floor of each package and module of the gateway, by import-linter's contract."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (one["layers"] for one in contracts if one.get("containers") == ["gateway"])
    return {name.strip(): -at for at, layer in enumerate(layers) for name in layer.split("|")}


def floor(module: str) -> int:
    """The floor of a module of the gateway."""
    return floors()[module.removeprefix("gateway/").split("/")[0].removesuffix(".py")]


class Walk:
    """A profiler of all threads that records every function entered, and its caller."""

    def __init__(self) -> None:
        self.recording = False
        self.entered: dict[str, set[str]] = {}
        self.climbs: set[str] = set()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Handles one event of the interpreter."""
        if self.recording and event == "call" and (module := module_of(frame.f_code)):
            self.entered.setdefault(module, set()).add(frame.f_code.co_qualname)
            self._compare(frame, module)

    def _compare(self, frame: FrameType, module: str) -> None:
        """Records a call from a lower floor of the gateway. A lambda or closure belongs to the module that defines it.

        The caller is the nearest frame in the two packages, since a library between two modules has no floor.
        """
        name, back = frame.f_code.co_qualname, frame.f_back
        while back is not None and not (caller := module_of(back.f_code)):
            back = back.f_back
        if back is None or "<locals>" in name or "<lambda>" in name:
            return
        if module.startswith("gateway/") and caller.startswith("gateway/") and floor(caller) < floor(module):
            self.climbs.add(f"{caller}:{back.f_code.co_qualname} -> {module}:{name}")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Records this thread, and those started since `installed`, within the context."""
        before = sys.getprofile()
        sys.setprofile(self)
        self.recording = True
        try:
            yield
        finally:
            self.recording = False
            sys.setprofile(before)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Profiles every thread that is started within the context."""
        before = threading.getprofile()
        threading.setprofile(self)
        try:
            yield
        finally:
            threading.setprofile(before)

    def described(self) -> str:
        """The entered modules, one a line."""
        lines = [f"{module:44} {' '.join(sorted(names))}" for module, names in sorted(self.entered.items())]
        return "\n".join([f"one request enters {len(lines)} modules:", *lines])


class Beside:
    """A `Directory` that knows one replica."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    async def endpoints(self, checkpoint: str) -> Sequence[Endpoint]:
        """The one replica."""
        return [self.endpoint]


@asynccontextmanager
async def gateway(folder: Path, clock: FakeClock) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a whole gateway over one replica, without an HTTP socket; its clock stands still."""
    entry = entry_of(NAME, "classify", Tier.BALANCED, 85.0, family="sum")
    catalog, manifest = Catalog(name="one", checkpoints=(entry,)), write_variant(folder / "variant")
    replica = open_replica(ReplicaSettings(entry, folder / "variant", 99), clock)
    replica.server.start()
    address, server = UnixAddress(str(folder / "s")), TransportServer(replica.handle, replica.load)
    await server.start(address)
    load, scrape = LoadTracker(), OwnMetrics(catalog)
    backend = TransportBackend(
        {NAME: 1}, Beside(Endpoint("replica", "here", address)), load, "here", clock, random.Random(1)
    )
    counters = counters_of({NAME: manifest}, {NAME: folder / "variant"})
    router = Router(catalog, {NAME: manifest}, load, clock, counters=counters)
    service = Service(router, backend, load, 99, (scrape.metrics,), clock)
    application = app.build(service, scrape, catalog.limits, clock)
    backend.start()
    try:
        await until(lambda: load.replicas(NAME) == 1)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://gateway") as client:
            yield client
    finally:
        await backend.close()
        await server.close()
        await replica.server.stop(0.0)


@pytest.fixture
async def walk(tmp_path: Path) -> Walk:
    """The walk of one `/classify` on an idle gateway that has answered some before."""
    walk, clock = Walk(), FakeClock()
    with walk.installed():
        async with gateway(tmp_path, clock) as client:
            for at in range(WARM_UP + 1):
                if at == WARM_UP:
                    with walk.watching():
                        answer = await ask(client)
                else:
                    answer = await ask(client)
                assert answer.status_code == 200, answer.text
                clock.advance(0.1)
    print(walk.described())
    return walk


async def ask(client: httpx.AsyncClient) -> httpx.Response:
    """Sends one request."""
    return await client.post("/classify", json={"inputs": "good film"}, headers={"X-Latency-SLA-Ms": "500"})


async def test_a_request_enters_few_modules(walk: Walk) -> None:
    """One request enters at most MODULES_AT_MOST modules, from HTTP to the engine and back."""
    assert {"gateway/api/app.py", "gateway/service.py", "deployments/engines/onnx.py"} <= set(walk.entered)
    assert len(walk.entered) <= MODULES_AT_MOST, walk.described()


async def test_no_floor_calls_a_higher_one(walk: Walk) -> None:
    """Within the gateway no lower floor calls a higher one, not even through an object handed in."""
    assert not walk.climbs, "\n".join(sorted(walk.climbs))
