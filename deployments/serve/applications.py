"""The classes that Ray Serve runs: the ingress, which holds the gateway, and the deployment of a checkpoint.

They only wire other modules together, and answer Ray Serve's calls.
"""

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
from ray.serve._private import replica
from ray.serve.handle import DeploymentHandle

from deployments.replica.replica import ReplicaSettings, open_replica
from deployments.replica.tokens import counters_of
from deployments.replica.tracing import TracedHandler, spans_of
from deployments.replica.variant import checked_manifest
from deployments.serve.autoscaling import BACKLOG_S, BUSY_SHARE, BusyShare
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
from deployments.serve.observing import CLOSED_WITHIN_S, observing, utc_now
from deployments.serve.scraping import ApplicationScrape, DeploymentStates
from deployments.serve.standing_in import STANDING_IN
from deployments.transport import Certificates, Endpoint, Handler, TcpAddress, TransportServer, UnixAddress
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
class TransportSettings:
    """Where replicas listen, the folder of their certificates, and how long a retired replica stays.

    `certificates` is the folder that `Certificates` reads, since Ray stores these settings and must never store a key.
    Without it, replicas listen on socket files only, and all processes stay on this host.

    A retired replica works on for `linger_s` seconds, in which every ingress finds its successors. Then it has
    `drain_s` seconds to finish its requests.
    """

    folder: Path
    certificates: Path | None
    linger_s: float = 0.0
    drain_s: float = 5.0

    @property
    def retiring_s(self) -> float:
        """Seconds after which a retired replica may be ended, whatever it does."""
        return self.linger_s + 2 * self.drain_s

    def checked_certificates(self) -> Certificates | None:
        """Opens and checks the certificates, if there are any. Raises CertificatesError."""
        if self.certificates is None:
            return None
        certificates = Certificates(self.certificates)
        certificates.check()
        return certificates


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


class CheckpointDeployment:
    """One replica of a checkpoint under Ray Serve. It is ready only after its variant has passed its checks."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self, settings: ReplicaSettings, transport: TransportSettings
    ) -> None:
        self._id = _prepare_process(transport)
        self._replica = await asyncio.to_thread(open_replica, settings, time.monotonic)
        self._manifest = await asyncio.to_thread(checked_manifest, settings.folder)
        self._folder = settings.folder
        self._replica.server.start()
        self._busy = BusyShare(time.monotonic, settings.entry.slots)
        self._transport = transport
        self._spans = spans_of(settings.entry.name, self._id, os.environ)
        handle: Handler = self._replica.handle
        if self._spans is not None:
            handle = TracedHandler(handle, settings.entry.name, self._spans, time.monotonic, utc_now)
        certificates = transport.checked_certificates()
        self._server = TransportServer(handle, self._replica.load, certificates=certificates)
        unix = UnixAddress(str(transport.folder / f"{self._id}.sock"))
        await self._server.start(unix, TcpAddress(ray.util.get_node_ip_address(), 0) if certificates else None)
        self._endpoint = Endpoint(self._id, ray.get_runtime_context().get_node_id(), unix, self._server.tcp)

    async def endpoint(self) -> Endpoint:
        """Says where this replica listens."""
        return self._endpoint

    async def variant(self) -> tuple[VariantManifest, Path]:
        """Gives the manifest and the folder of the variant that this replica serves."""
        return self._manifest, self._folder

    async def metrics(self) -> Process:
        """Gives this replica's metrics."""
        return Process(self._id, self._replica.checkpoint, self._replica.metrics())

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Says how busy this replica was since Ray Serve last asked, and how much work waits."""
        busy_share = self._busy.since_last(self._replica.server.totals().busy_s)
        return {BUSY_SHARE: busy_share, BACKLOG_S: self._replica.load().backlog_s}

    async def __del__(self) -> None:
        """Finishes the requests under way and takes no new ones. Ray Serve awaits this when it retires the replica."""
        if hasattr(self, "_server"):
            await asyncio.sleep(self._transport.linger_s)
            await self._server.drain(self._transport.drain_s)
            await self._replica.server.stop(self._transport.drain_s)
            await self._server.close()
            if self._spans is not None:
                await asyncio.to_thread(self._spans.close, CLOSED_WITHIN_S)


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
        self._id = _prepare_process(transport)
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
        self._server = HttpServer(self._application(catalog, notes), catalog.limits, time.monotonic, self._errors.count)
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

    def _application(self, catalog: Catalog, notes: Path | None) -> Application:
        return app.build(
            self._service,
            self._scrape,
            catalog.limits,
            time.monotonic,
            trace=self._observing.trace,
            draining=lambda: self._server.draining,
            is_shared=lambda: notes is not None and (notes.parent / STANDING_IN).exists(),
            refused=self._errors.count,
            access=Access.of(self._listening.host, os.environ),
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


def _prepare_process(transport: TransportSettings) -> str:
    """Prepares a process of the application, and gives its id."""
    if transport.certificates is None:
        stay_on_loopback()
    return serve.get_replica_context().replica_id.unique_id


_REPLICA: Any = replica  # a private module, which does not export its names
_EVERYWHERE = "[::]:0"


def stay_on_loopback() -> None:
    """Keeps Ray Serve's gRPC server on loopback. Call it in a deployment's constructor, before that server starts.

    Raises RuntimeError, when the server starts, if Ray binds another address than it did.
    """
    original = _REPLICA.add_port_to_grpc_server

    def bound(server: Any, address: str) -> int:
        if address != _EVERYWHERE:
            raise RuntimeError(
                f"Ray Serve binds {address}, not {_EVERYWHERE}: look at deployments/serve/applications.py again"
            )
        port: int = original(server, "127.0.0.1:0")
        return port

    _REPLICA.add_port_to_grpc_server = bound
