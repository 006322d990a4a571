"""Connects the gateway to every replica, and sends each batch to the least loaded one.

Implements `Backend` of `gateway/scheduling/loop.py`. A `Directory` finds the replicas; in production it asks Ray Serve.
No request waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from deployments.transport import Certificates, Endpoint, TransportClient
from deployments.transport.client import Done
from gateway.forecasting.load import LoadTracker
from gateway.model.deadline import Clock
from gateway.model.messages import Emit, Failure, FailureKind, LoadReport, Work, to_nobody

SETTLED_S = 5.0
"""Seconds between looks into the directory while every expected replica is connected, to find new ones."""

UNSETTLED_S = 0.25
"""Seconds between looks into the directory while a replica is missing."""

log = logging.getLogger("punctual.backend")


class Directory(Protocol):
    """Knows where the replicas of a checkpoint listen."""

    async def endpoints(self, checkpoint: str) -> Sequence[Endpoint]:
        """Finds the replicas that answer now, in bounded time; empty if none does."""


@dataclass(frozen=True, slots=True)
class _Connected:
    """The client of a replica, and the task that keeps it connected."""

    client: TransportClient
    supervision: asyncio.Task[None]


class TransportBackend:
    """Keeps a connection to every replica, and sends each batch to the least loaded one of its checkpoint."""

    def __init__(
        self,
        expected: dict[str, int],
        directory: Directory,
        load: LoadTracker,
        node_id: str,
        clock: Clock,
        chance: random.Random,
        certificates: Certificates | None = None,
    ) -> None:
        """Takes the number of replicas that each checkpoint should have, and the certificates for other nodes.

        `chance` spreads reconnects in time. Without certificates, only replicas on this node can be reached.
        """
        self._expected = expected
        self._directory = directory
        self._load = load
        self._certificates = certificates
        self._node_id = node_id
        self._clock = clock
        self._chance = chance
        self._connected: dict[str, dict[str, _Connected]] = {checkpoint: {} for checkpoint in expected}
        self._changed = asyncio.Event()
        self._watching: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins to look for replicas, with one watch for each checkpoint. Call it once, on the loop."""
        self._watching = [
            asyncio.create_task(self._watch(checkpoint), name=checkpoint) for checkpoint in self._expected
        ]
        for task in self._watching:
            task.add_done_callback(_report)

    async def close(self) -> None:
        """Ends the watches and closes all connections."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        for checkpoint, connected in self._connected.items():
            for replica_id in tuple(connected):
                await self._disconnect(checkpoint, replica_id)

    def dispatch(
        self, checkpoint: str, batch: Sequence[Work], service_time_s: float, done: Done, emit: Emit = to_nobody
    ) -> Callable[[], None]:
        """Sends a batch to the least loaded replica of a checkpoint. UNAVAILABLE if none is up or it is lost."""
        now_s = self._clock()
        while (replica_id := self._load.least_loaded(checkpoint, now_s)) is not None:
            replica = self._connected[checkpoint].get(replica_id)
            if replica is not None and replica.client.connected:
                self._load.dispatched(checkpoint, replica_id, service_time_s, now_s)
                return replica.client.submit(batch, done, emit)
            self._load.left(checkpoint, replica_id)  # its connection has just ended, before `on_disconnect` was called
        failure = Failure(FailureKind.UNAVAILABLE, "no replica is connected")
        return asyncio.get_running_loop().call_soon(done, (failure,) * len(batch)).cancel

    async def _watch(self, checkpoint: str) -> None:
        """Follows the directory: often while a replica is missing, seldom once all are connected."""
        while True:
            found = {endpoint.replica_id: endpoint for endpoint in await self._directory.endpoints(checkpoint)}
            connected = self._connected[checkpoint]
            for replica_id in connected.keys() - found.keys():
                if not connected[replica_id].client.connected:
                    await self._disconnect(checkpoint, replica_id)
            for replica_id in found.keys() - connected.keys():
                self._connect(checkpoint, found[replica_id])
            settled = self._load.replicas(checkpoint) >= self._expected[checkpoint]
            try:
                async with asyncio.timeout(SETTLED_S if settled else UNSETTLED_S):
                    await self._changed.wait()
                    self._changed.clear()
            except TimeoutError:
                continue

    def _connect(self, checkpoint: str, endpoint: Endpoint) -> None:
        replica_id = endpoint.replica_id

        def on_load(report: LoadReport) -> None:
            self._load.reported(checkpoint, replica_id, report, self._clock(), endpoint.node_id)

        def on_disconnect() -> None:
            log.warning("lost a replica of %s", checkpoint)
            self._load.left(checkpoint, replica_id)
            self._changed.set()

        client = TransportClient(
            endpoint,
            self._node_id,
            on_load=on_load,
            rng=self._chance,
            certificates=self._certificates,
            on_disconnect=on_disconnect,
        )
        self._connected[checkpoint][replica_id] = _Connected(client, asyncio.create_task(client.run()))

    async def _disconnect(self, checkpoint: str, replica_id: str) -> None:
        replica = self._connected[checkpoint].pop(replica_id)
        replica.supervision.cancel()
        await asyncio.gather(replica.supervision, return_exceptions=True)
        await replica.client.close()
        self._load.left(checkpoint, replica_id)


def _report(task: asyncio.Task[None]) -> None:
    """Logs a watch that ended with an exception: its checkpoint finds no more new replicas."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("the watch over %s ended", task.get_name(), exc_info=error)
