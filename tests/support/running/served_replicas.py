"""A gateway over replicas of this process, as clients reach it: variants that were made for real, without a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from worlds import OwnMetrics

from deployments.replica.replica import Replica, ReplicaSettings, open_replica
from gateway.api import app
from gateway.api.server import HttpServer
from gateway.catalogs.catalog import Catalog, load_catalog
from gateway.forecasting.load import LoadTracker
from gateway.model.messages import Emit, LoadReport, Work, to_nobody
from gateway.router import Router
from gateway.scheduling.loop import Result
from gateway.service import Service
from gateway.tasks import read_manifest


@dataclass
class OwnReplicas:
    """A `Backend` over replicas of this process."""

    replicas: dict[str, Replica]
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def dispatch(
        self,
        checkpoint: str,
        batch: Sequence[Work],
        service_time_s: float,
        done: Callable[[Sequence[Result]], None],
        emit: Emit = to_nobody,
    ) -> Callable[[], None]:
        """Give the batch to the checkpoint's replica."""

        async def handle() -> None:
            done(await self.replicas[checkpoint].handle(batch, emit))

        task = asyncio.get_running_loop().create_task(handle())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

        def cancel() -> None:
            task.cancel()

        return cancel


@asynccontextmanager
async def served(variants: Path, names: Sequence[str]) -> AsyncIterator[str]:
    """Serve a folder's `catalog.yaml` over its variants `NAME-variant`, on a free port of loopback; the URL."""
    catalog: Catalog = load_catalog(variants / "catalog.yaml")
    folders = {name: variants / f"{name}-variant" for name in names}
    replicas = {
        entry.name: open_replica(ReplicaSettings(entry, folders[entry.name], 99), monotonic)
        for entry in catalog.checkpoints
    }
    load, scrape = LoadTracker(), OwnMetrics(catalog)
    for name, replica in replicas.items():
        replica.server.start()
        load.reported(name, "replica", LoadReport(0.0, 0), monotonic())
    router = Router(catalog, {name: read_manifest(folder) for name, folder in folders.items()}, load, monotonic)
    service = Service(router, OwnReplicas(replicas), load, 9, (scrape.metrics,), monotonic)
    server = HttpServer(app.build(service, scrape, catalog.limits, monotonic), catalog.limits, monotonic)
    await server.start("127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await server.drain(0.0, 0.0)
        for replica in replicas.values():
            await replica.server.stop(60)
