"""The classes that Ray Serve runs: the ingress, which carries the gateway, and one deployment for each checkpoint.

Thin on purpose: each wires, in its constructor's order, what the rooms define, and answers the control plane.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette

from deployments.backend import LinkBackend
from deployments.directory import ServeDirectory, ServeScrape
from deployments.link import Endpoint, LinkServer, TcpAddress, UnixAddress
from deployments.loopback import stay_on_loopback
from deployments.replica import ReplicaSettings, open_replica
from gateway import app
from gateway.catalog import Catalog
from gateway.load import LoadBook
from gateway.manifest import VariantManifest
from gateway.metrics import RequestMetrics
from gateway.routing import Router, served_of
from gateway.service import Service

APPLICATION = "punctual"
INGRESS = "gateway"
DRAIN_S = 5.0


@dataclass(frozen=True)
class LinkSettings:
    """Where replicas listen and the secret that both ends prove to each other. Never logged."""

    folder: Path
    secret: bytes
    tcp: bool

    def __repr__(self) -> str:
        return f"LinkSettings(folder={self.folder}, tcp={self.tcp})"


class CheckpointDeployment:
    """One replica of one checkpoint under Ray Serve. It is ready only once its variant has passed its checks."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self, settings: ReplicaSettings, link: LinkSettings
    ) -> None:
        self._id = _enter(link)
        self._replica = await asyncio.to_thread(open_replica, settings, time.monotonic)
        self._replica.server.start()
        self._server = LinkServer(self._replica.handle, self._replica.load, link.secret)
        unix = UnixAddress(str(link.folder / f"{self._id}.sock"))
        await self._server.start(unix, TcpAddress(ray.util.get_node_ip_address(), 0) if link.tcp else None)
        self._endpoint = Endpoint(self._id, ray.get_runtime_context().get_node_id(), unix, self._server.tcp)

    async def endpoint(self) -> Endpoint:
        """Where this replica listens."""
        return self._endpoint

    async def metrics_text(self) -> tuple[str, str]:
        """This replica's name and its metrics in the text format."""
        return self._id, self._replica.metrics()

    async def __del__(self) -> None:
        """Ray Serve awaits this when it retires the replica: finish what is under way, take nothing new."""
        if hasattr(self, "_server"):
            await self._server.drain(DRAIN_S)
            await self._replica.server.stop(DRAIN_S)
            await self._server.close()


@serve.ingress()
class IngressDeployment:
    """One ingress process: the gateway over links to every replica, behind Ray Serve's HTTP server."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self,
        catalog: Catalog,
        manifests: dict[str, VariantManifest],
        link: LinkSettings,
        replicas: dict[str, DeploymentHandle[Any]],
    ) -> None:
        self._id = _enter(link)
        self._limits = catalog.limits
        load = LoadBook()
        node = ray.get_runtime_context().get_node_id()
        expected = {entry.name: entry.replicas for entry in catalog.checkpoints}
        chance = random.Random(self._id)
        self._backend = LinkBackend(expected, ServeDirectory(replicas), load, link.secret, node, time.monotonic, chance)
        self._metrics = RequestMetrics()
        self._service = Service(
            router=Router(catalog, served_of(catalog, manifests), load, time.monotonic),
            backend=self._backend,
            load=load,
            max_concurrent_requests=catalog.limits.max_concurrent_requests,
            observers=(self._metrics,),
            clock=time.monotonic,
        )
        siblings = serve.get_deployment_handle(INGRESS, APPLICATION)
        self._scrape = ServeScrape(replicas, siblings)
        self._backend.start()

    def __serve_build_asgi_app__(self) -> Starlette:
        """Ray Serve calls this once after the constructor. Its own server echoes `X-Request-Id`."""
        return app.build(self._service, self._scrape, self._limits, time.monotonic, echo_request_id=False)

    async def metrics_text(self) -> tuple[str, str]:
        """This process's name and its metrics in the text format."""
        return self._id, self._metrics.text()


def _enter(link: LinkSettings) -> str:
    """What every process of the application does first; the name it goes by."""
    if not link.tcp:
        stay_on_loopback()
    return serve.get_replica_context().replica_id.unique_id
