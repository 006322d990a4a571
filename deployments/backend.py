"""The gateway's door to the replicas: which are up, one link to each, and the least loaded one for each dispatch.

It implements `Backend` of `gateway/service.py`. Replicas are found through a `Directory`, which in production asks
Ray Serve; nothing of the request path waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from deployments.link import Endpoint, LinkClient
from gateway.forecasting.load import LoadTracker
from gateway.model.deadline import Clock
from gateway.model.messages import Answer, Failure, FailureKind, LoadReport, Work

SETTLED_S = 5.0
"""Seconds between looks into the directory while every expected replica is linked; it also finds scaled-up ones."""

UNSETTLED_S = 0.25
"""Seconds between looks while a replica is missing."""

log = logging.getLogger("punctual.backend")


class Directory(Protocol):
    """Knows where the replicas of a checkpoint listen."""

    async def endpoints(self, checkpoint: str) -> Sequence[Endpoint]:
        """The replicas that answer now, in bounded time; empty where none does."""


@dataclass(frozen=True, slots=True)
class _Linked:
    """A replica with the client that reaches it and the task that keeps that connected."""

    endpoint: Endpoint
    client: LinkClient
    supervision: asyncio.Task[None]


class LinkBackend:
    """Keeps a link to every replica of every checkpoint and sends each piece of work over the least loaded one."""

    def __init__(
        self,
        expected: dict[str, int],
        directory: Directory,
        load: LoadTracker,
        secret: bytes,
        node_id: str,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        """`expected` says how many replicas each checkpoint should have; `chance` spreads reconnects in time."""
        self._expected = expected
        self._directory = directory
        self._load = load
        self._secret = secret
        self._node_id = node_id
        self._clock = clock
        self._chance = chance
        self._linked: dict[str, dict[str, _Linked]] = {checkpoint: {} for checkpoint in expected}
        self._changed = asyncio.Event()
        self._watching: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins to look for replicas, one watch for each checkpoint. Call it on the loop, once."""
        self._watching = [
            asyncio.create_task(self._watch(checkpoint), name=checkpoint) for checkpoint in self._expected
        ]
        for task in self._watching:
            task.add_done_callback(_report)

    async def close(self) -> None:
        """Ends the watches and closes every link."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        for checkpoint, linked in self._linked.items():
            for replica_id in tuple(linked):
                await self._unlink(checkpoint, replica_id)

    async def dispatch(self, checkpoint: str, work: Work, service_time_s: float) -> Answer | Failure:
        """Sends the work to the least loaded replica. UNAVAILABLE where none is up or the link broke."""
        now_s = self._clock()
        while (replica_id := self._load.least_loaded(checkpoint, now_s)) is not None:
            linked = self._linked[checkpoint].get(replica_id)
            if linked is not None and linked.client.connected:
                self._load.dispatched(checkpoint, replica_id, service_time_s, now_s)
                return await linked.client.submit(work)
            self._load.left(checkpoint, replica_id)  # its link has just ended, and the loop has not said so yet
        return Failure(FailureKind.UNAVAILABLE, "no replica is linked")

    async def _watch(self, checkpoint: str) -> None:
        """Follows the directory: quickly while a replica is missing, slowly once all are linked."""
        while True:
            found = {endpoint.replica_id: endpoint for endpoint in await self._directory.endpoints(checkpoint)}
            linked = self._linked[checkpoint]
            for replica_id in linked.keys() - found.keys():
                if not linked[replica_id].client.connected:
                    await self._unlink(checkpoint, replica_id)
            for replica_id in found.keys() - linked.keys():
                self._link(checkpoint, found[replica_id])
            settled = self._load.replicas(checkpoint) >= self._expected[checkpoint]
            try:
                async with asyncio.timeout(SETTLED_S if settled else UNSETTLED_S):
                    await self._changed.wait()
                    self._changed.clear()
            except TimeoutError:
                continue

    def _link(self, checkpoint: str, endpoint: Endpoint) -> None:
        replica_id = endpoint.replica_id

        def on_load(report: LoadReport) -> None:
            self._load.reported(checkpoint, replica_id, report, self._clock(), endpoint.node_id)

        def on_disconnect() -> None:
            log.warning("lost a replica of %s", checkpoint)
            self._load.left(checkpoint, replica_id)
            self._changed.set()

        client = LinkClient(
            endpoint,
            self._secret,
            self._node_id,
            on_load=on_load,
            rng=self._chance,
            on_disconnect=on_disconnect,
        )
        self._linked[checkpoint][replica_id] = _Linked(endpoint, client, asyncio.create_task(client.run()))

    async def _unlink(self, checkpoint: str, replica_id: str) -> None:
        linked = self._linked[checkpoint].pop(replica_id)
        linked.supervision.cancel()
        await asyncio.gather(linked.supervision, return_exceptions=True)
        await linked.client.close()
        self._load.left(checkpoint, replica_id)


def _report(task: asyncio.Task[None]) -> None:
    """A watch that ends by an exception must not end unheard: its checkpoint would stay lost."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("the watch over %s ended", task.get_name(), exc_info=error)
