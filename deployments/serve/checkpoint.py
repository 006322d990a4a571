"""The deployment of a checkpoint: connects a replica to the transport, and answers Ray Serve's calls.

It imports nothing of the ingress, for there is a process for each replica. What both do in their process is here.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve._private import replica

from deployments.replica.replica import ReplicaSettings, open_replica
from deployments.replica.tracing import CLOSED_WITHIN_S, TracedHandler, spans_of, utc_now
from deployments.replica.variant import checked_manifest
from deployments.serve.autoscaling import BACKLOG_S, BUSY_SHARE, BusyShare
from deployments.transport import Certificates, Endpoint, Handler, TcpAddress, TransportServer, UnixAddress
from gateway.model.manifest import VariantManifest
from gateway.observability.metrics import Process


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


class CheckpointDeployment:
    """One replica of a checkpoint under Ray Serve. It is ready only after its variant has passed its checks."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self, settings: ReplicaSettings, transport: TransportSettings
    ) -> None:
        self._id = prepare_process(transport)
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


def prepare_process(transport: TransportSettings) -> str:
    """Prepares a process of the gateway, and gives its id."""
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
                f"Ray Serve binds {address}, not {_EVERYWHERE}: look at deployments/serve/checkpoint.py again"
            )
        port: int = original(server, "127.0.0.1:0")
        return port

    _REPLICA.add_port_to_grpc_server = bound
