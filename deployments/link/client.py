"""The ingress's end of the link to one replica: one connection, kept up, and a call that always returns.

Knows how to reach, heed and outlive a replica. Does not choose among replicas and does not retry: the gateway does
both, within the request's budget.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from deployments.link.address import Endpoint, UnixAddress
from deployments.link.caller import Caller
from deployments.link.handshake import HANDSHAKE_S, HandshakeError, check_secret
from gateway.model.messages import Answer, Failure, FailureKind, LoadReport, Work

CONNECT_S: Final = HANDSHAKE_S + 1.0
"""The longest one attempt to connect may take, handshake included, in seconds: a dead node never refuses."""

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backoff:
    """How long to wait between attempts, in seconds: doubling up to a cap, spread so that clients fall out of step."""

    first_s: float = 0.05
    cap_s: float = 2.0

    def delay_s(self, failures: int, rng: random.Random) -> float:
        """The wait after so many failures in a row: between half and all of what doubling gives."""
        doubled = self.first_s * 2.0 ** min(failures, 32)
        return min(doubled, self.cap_s) * rng.uniform(0.5, 1.0)


class LinkClient:
    """A call to one replica. `run` keeps it connected; `submit` answers at once when it is not."""

    def __init__(
        self,
        endpoint: Endpoint,
        secret: bytes,
        own_node_id: str,
        on_load: Callable[[LoadReport], None],
        rng: random.Random,
        *,
        on_disconnect: Callable[[], None] = lambda: None,
        heartbeat_s: float = 1.0,
        backoff: Backoff = Backoff(),
    ) -> None:
        """Takes whom to call and whom to tell. Raises ValueError for a short secret or a node that cannot be reached.

        `on_load` gets every load report, a draining replica's included; `on_disconnect` is called each time an open
        connection ends other than by `close`, when all its requests have been answered. A replica silent for three
        times `heartbeat_s` is given up.
        """
        self.endpoint = endpoint
        self._address = endpoint.pick(own_node_id)
        self._secret = check_secret(secret)
        self._on_load = on_load
        self._on_disconnect = on_disconnect
        self._rng = rng
        self._heartbeat_s = heartbeat_s
        self._backoff = backoff
        self._caller: Caller | None = None
        self._connecting = asyncio.Lock()
        self._stop = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether a `submit` would be sent."""
        return self._caller is not None and self._caller.is_open

    async def submit(self, work: Work) -> Answer | Failure:
        """The replica's answer, or a Failure: UNAVAILABLE at once if it is not connected or dies meanwhile.

        Cancelling this coroutine cancels the work in the replica and touches no other request. There is no timeout
        here: what is left of the budget is in the work, and the caller keeps its own. TOO_LONG (without token counts)
        for work past MAX_FRAME_BYTES; raises ProtocolError for work that cannot be encoded.
        """
        if self._caller is None:
            return Failure(FailureKind.UNAVAILABLE, "not connected")
        return await self._caller.submit(work)

    async def connect(self) -> None:
        """One attempt; nothing if connected. Raises HandshakeError, or OSError (TimeoutError after CONNECT_S)."""
        async with self._connecting:
            if self.connected or self._stop.is_set():
                return
            caller = Caller(self._secret, self._on_load, self._lost, self._heartbeat_s)
            try:
                async with asyncio.timeout(CONNECT_S):
                    await self._dial(caller)
                    refusal = await caller.ready
                if refusal is not None:
                    raise refusal
                if not self._stop.is_set():
                    self._caller = caller
            finally:
                if self._caller is not caller:
                    caller.abort()

    async def run(self) -> None:
        """Keeps the link up until `close`: the owner runs this as a task. Failed attempts are logged, not raised."""
        failures = 0
        while not self._stop.is_set():
            try:
                await self.connect()
            except (HandshakeError, OSError) as error:
                LOG.log(logging.DEBUG if failures else logging.WARNING, "link: %s: %s", self.endpoint.replica_id, error)
                failures += 1
            else:
                failures = 0
                if self._caller is not None:
                    await self._caller.closed.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._backoff.delay_s(failures, self._rng)):
                    await self._stop.wait()

    async def close(self) -> None:
        """Hangs up for good: what is pending resolves to UNAVAILABLE, and `run` returns."""
        self._stop.set()
        if self._caller is not None:
            self._caller.abort()
            await self._caller.closed.wait()

    async def _dial(self, caller: Caller) -> None:
        loop = asyncio.get_running_loop()
        if isinstance(self._address, UnixAddress):
            await loop.create_unix_connection(lambda: caller, self._address.path)
        else:
            await loop.create_connection(lambda: caller, self._address.host, self._address.port)

    def _lost(self) -> None:
        if not self._stop.is_set():
            LOG.warning("link: %s: the connection was lost", self.endpoint.replica_id)
            self._on_disconnect()
