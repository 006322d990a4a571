"""The deployment of the ingress: builds the gateway, and answers Ray Serve's calls."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.replica.tokens import counters_of
from deployments.serve.checkpoint import TransportSettings, prepare_process
from deployments.serve.discovery import (
    APPLICATION,
    INGRESS,
    ServeDirectory,
    ask_all,
    ask_variant,
    late_handle,
    read_statuses,
)
from deployments.serve.late import Joining, Notes
from deployments.serve.observing import observing
from deployments.serve.scraping import ApplicationScrape, DeploymentStates
from deployments.serve.standing_in import STANDING_IN
from deployments.transport.client import TransportBackend
from gateway.api import app
from gateway.api.access import Access
from gateway.api.connection import Application
from gateway.api.server import HttpServer
from gateway.catalogs.catalog import Catalog
from gateway.forecasting.load import LoadTracker
from gateway.model.manifest import VariantManifest
from gateway.observability.metrics import Process, RequestMetrics, ServerErrors, exposition
from gateway.router import MakeScheduler, Router
from gateway.service import Service
from gateway.state import GatewayState

CONNECTED_WITHIN_S = 10.0
"""Seconds that a new ingress waits for a connection to each checkpoint before it is ready anyway."""

ENDED_WITHIN_S = 5.0
"""Seconds that a drained ingress has for its last answers and the last lines of its log."""

log = logging.getLogger("punctual.ingress")


@dataclass(frozen=True)
class Listening:
    """Where each ingress listens, and how it ends.

    A retired ingress serves on for `linger_s` seconds, in which nobody sends to it any more who asks its probe. Then it
    closes its port, and has `drain_s` seconds to finish its requests.
    """

    host: str
    port: int
    linger_s: float = 0.0
    drain_s: float = 5.0

    @property
    def retiring_s(self) -> float:
        """Seconds after which a retired ingress may be ended, whatever it does."""
        return self.linger_s + self.drain_s + ENDED_WITHIN_S


class IngressDeployment:
    """One ingress process: a gateway with an HTTP server, connected to every replica.

    Several ingresses on one host share a port.
    """

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self,
        catalog: Catalog,
        manifests: dict[str, VariantManifest],
        variants: dict[str, Path],
        transport: TransportSettings,
        listening: Listening,
        replicas: dict[str, DeploymentHandle[Any]],
        notes: Path | None,
        scheduler: MakeScheduler,
    ) -> None:
        self._id = prepare_process(transport)
        self._listening = listening
        load = LoadTracker()
        node = ray.get_runtime_context().get_node_id()
        expected = {entry.name: entry.replicas for entry in catalog.checkpoints}
        chance = random.Random(self._id)
        directory, certificates = ServeDirectory(replicas), transport.checked_certificates()
        self._backend = TransportBackend(expected, directory, load, node, time.monotonic, chance, certificates)
        self._metrics = RequestMetrics(catalog)
        self._errors = ServerErrors()
        self._observing = observing(self._id, os.environ)
        note = self._observing.faults.note
        self._service = Service(
            router=Router(catalog, manifests, load, time.monotonic, note, counters_of(manifests, variants), scheduler),
            backend=self._backend,
            load=load,
            max_concurrent_requests=catalog.limits.max_concurrent_requests,
            observers=(self._metrics, *self._observing.observers),
            clock=time.monotonic,
            note=note,
        )
        self._state = GatewayState(self._service, catalog, version("punctual"), time.monotonic)
        asked = {INGRESS: serve.get_deployment_handle(INGRESS, APPLICATION), **replicas}
        states = DeploymentStates(read_statuses, expected, time.monotonic)
        self._scrape = ApplicationScrape(
            list(asked), lambda deployment: ask_all(asked[deployment], "metrics"), states, time.monotonic
        )
        self._backend.start()
        if notes is not None:
            self._joining = asyncio.create_task(self._joined(notes, replicas, asked))
            self._joining.add_done_callback(_report)
        await self._connected()
        access = Access.of(listening.host, os.environ)
        application = self._application(catalog, notes, access)
        count = self._errors.count
        self._server = HttpServer(application, catalog.limits, time.monotonic, count, access.headers)
        await self._server.start(listening.host, listening.port)

    async def metrics(self) -> Process:
        """Gives this process's metrics."""
        return Process(self._id, INGRESS, await exposition(self._metrics, self._state, self._observing, self._errors))

    async def drain(self) -> None:
        """Takes no new connections, and finishes the requests under way; then needs no replica any more."""
        await self._server.drain(0.0, self._listening.drain_s)
        await self._backend.close()

    async def __del__(self) -> None:
        """Finishes the requests under way, then writes the last lines of the log. Ray Serve awaits this at the end."""
        if hasattr(self, "_server"):
            await self._server.drain(self._listening.linger_s, self._listening.drain_s)
        if hasattr(self, "_observing"):
            await asyncio.to_thread(self._observing.close)

    async def _joined(
        self, notes: Path, replicas: dict[str, DeploymentHandle[Any]], asked: dict[str, DeploymentHandle[Any]]
    ) -> None:
        """Takes in the checkpoints that come later than this ingress, until nothing more can come."""

        def find(name: str) -> None:
            if name not in replicas:
                replicas[name] = asked[name] = late_handle(name)
                self._scrape.add(name)

        router, load = self._service.router, self._service.load
        await Joining(router, load, Notes(notes), find, lambda name: ask_variant(replicas[name])).run()

    def _application(self, catalog: Catalog, notes: Path | None, access: Access) -> Application:
        return app.build(
            self._service,
            self._scrape,
            catalog.limits,
            time.monotonic,
            trace=self._observing.trace,
            draining=lambda: self._server.draining,
            is_shared=lambda: notes is not None and (notes.parent / STANDING_IN).exists(),
            refused=self._errors.count,
            access=access,
        )

    async def _connected(self) -> None:
        """Waits until each checkpoint is connected, since an ingress that is ready earlier would refuse requests.

        It waits `CONNECTED_WITHIN_S` at most, since one that is down must not keep the others from serving.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECTED_WITHIN_S):
                while self._service.missing():  # noqa: ASYNC110  # no event exists for this, and it soon ends
                    await asyncio.sleep(0.02)


def _report(joining: asyncio.Task[None]) -> None:
    """Logs that no checkpoint can join any more."""
    if not joining.cancelled() and (error := joining.exception()) is not None:
        log.critical("late checkpoints are not taken in any more", exc_info=error)
