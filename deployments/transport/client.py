"""The gateway's end of the transport: one connection to one replica, kept up, and a call that always returns.

Knows how to reach a replica, read its load, and outlive it. Does not choose among replicas and does not retry: the
gateway does both, within the request's budget.

A request that is given up never disturbs the reader or another request. (A result set on a cancelled future once killed
the reader of a prototype, and with it every later request.)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deployments.transport.address import Endpoint, UnixAddress, require_private
from deployments.transport.connection import HANDSHAKE_S, HUNG_UP, Connection, HandshakeError
from deployments.transport.frames import (
    Cancel,
    ClientFrame,
    Done,
    Draining,
    FrameTooLong,
    Ping,
    Pong,
    ServerFrame,
    Submit,
    server_frames,
)
from deployments.transport.tls import SHUTDOWN_S, Certificates, reason_of
from gateway.model.messages import Answer, Failure, FailureKind, LoadReport, Work

SUBMIT_LIMIT_BYTES: Final = 8 * 1024 * 1024
"""With more than this unsent, a replica gets no more requests: half of what would end the connection.

They are refused rather than made to wait: `remaining_s` was true when the work was made, and would age here unseen.
"""


class ClientConnection(Connection[ClientFrame, ServerFrame]):
    """One connection to one replica. `ready` resolves once: None when open, else why it never opened."""

    def __init__(self, on_load: Callable[[LoadReport], None], on_lost: Callable[[], None], heartbeat_s: float) -> None:
        """Takes what to call for each load report, and for the end of a connection that had been open."""
        super().__init__(server_frames(), HANDSHAKE_S, heartbeat_s)
        self._on_load = on_load
        self._on_lost = on_lost
        self._pending: dict[int, asyncio.Future[Answer | Failure]] = {}
        self._next_id = 0
        self.ready: asyncio.Future[Exception | None] = self._loop.create_future()

    async def submit(self, work: Work) -> Answer | Failure:
        """The replica's answer, or why there is none. Cancelling this cancels the work there.

        Raises ProtocolError if the work cannot be encoded, which only a bug of the edge can bring about.
        """
        if not self.is_open:
            return Failure(FailureKind.UNAVAILABLE, "not connected")
        if self.unsent_bytes > SUBMIT_LIMIT_BYTES:
            return Failure(FailureKind.UNAVAILABLE, "the replica does not read")
        request_id, self._next_id = self._next_id, self._next_id + 1
        try:
            self.send(Submit(request_id, work))
        except FrameTooLong as error:
            return Failure(FailureKind.TOO_LONG, str(error))
        future: asyncio.Future[Answer | Failure] = self._loop.create_future()
        self._pending[request_id] = future
        try:
            return await future
        finally:
            if self._pending.pop(request_id, None) is not None:  # still there: it was given up before an answer came
                self.send(Cancel(request_id))

    def opened(self) -> None:
        """The replica has let this side in."""
        if not self.ready.done():
            self.ready.set_result(None)

    def received(self, frame: ServerFrame) -> None:
        """Resolves a request, and passes the load report on. The answer to a forgotten request is only a load report.

        The owner hears of the load in its own turn of the loop, before the request resumes: what it raises is logged by
        the loop and harms no request.
        """
        self._loop.call_soon(self._on_load, frame.load)
        match frame:
            case Done():
                future = self._pending.pop(frame.id, None)
                if future is not None and not future.done():
                    future.set_result(frame.result)
            case Pong() | Draining():
                return

    def beat(self) -> None:
        """Asks for a sign of life."""
        self.send(Ping())

    def lost(self, reason: Exception | None) -> None:
        """Ends every request under way now: the gateway may still have the time to try elsewhere."""
        pending, self._pending = self._pending, {}
        for future in pending.values():
            if not future.done():
                future.set_result(Failure(FailureKind.UNAVAILABLE, "the connection was lost"))
        if not self.ready.done():
            self.ready.set_result(reason or HandshakeError(HUNG_UP))
        elif not self.ready.cancelled():
            self._on_lost()


CONNECT_S: Final = HANDSHAKE_S + 1.0
"""The longest one attempt to connect may take, its handshake included, in seconds: a dead node never refuses."""

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backoff:
    """How long to wait between attempts, in seconds: doubling up to a cap, spread so that clients differ."""

    first_s: float = 0.05
    cap_s: float = 2.0

    def delay_s(self, failures: int, rng: random.Random) -> float:
        """The wait after this many failures in a row: between half and all of what doubling gives."""
        doubled = self.first_s * 2.0 ** min(failures, 32)
        return min(doubled, self.cap_s) * rng.uniform(0.5, 1.0)


class TransportClient:
    """A call to one replica. `run` keeps it connected; `submit` answers at once when it is not."""

    def __init__(
        self,
        endpoint: Endpoint,
        own_node_id: str,
        on_load: Callable[[LoadReport], None],
        rng: random.Random,
        *,
        certificates: Certificates | None = None,
        on_disconnect: Callable[[], None] = lambda: None,
        heartbeat_s: float = 1.0,
        backoff: Backoff = Backoff(),
    ) -> None:
        """Takes the replica and what to call. Raises ValueError for a node out of reach, or TCP without certificates.

        `on_load` gets every load report, a draining replica's included; `on_disconnect` is called each time an open
        connection ends other than by `close`, when all its requests have been answered. A replica silent for three
        times `heartbeat_s` is given up.
        """
        self.endpoint = endpoint
        self._address = endpoint.pick(own_node_id)
        if certificates is None and not isinstance(self._address, UnixAddress):
            raise ValueError(f"replica {endpoint.replica_id} is reached over TCP, which needs certificates")
        self._certificates = certificates
        self._on_load = on_load
        self._on_disconnect = on_disconnect
        self._rng = rng
        self._heartbeat_s = heartbeat_s
        self._backoff = backoff
        self._connection: ClientConnection | None = None
        self._connecting = asyncio.Lock()
        self._stop = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether a `submit` would be sent."""
        return self._connection is not None and self._connection.is_open

    async def submit(self, work: Work) -> Answer | Failure:
        """The replica's answer, or a Failure: UNAVAILABLE at once if it is not connected or dies meanwhile.

        Cancelling this coroutine cancels the work in the replica and touches no other request. There is no timeout
        here: what is left of the budget is in the work, and the caller keeps its own. TOO_LONG (without token counts)
        for work past MAX_FRAME_BYTES; raises ProtocolError for work that cannot be encoded.
        """
        if self._connection is None:
            return Failure(FailureKind.UNAVAILABLE, "not connected")
        return await self._connection.submit(work)

    async def connect(self) -> None:
        """One attempt; nothing if connected. Raises HandshakeError, or OSError (TimeoutError after CONNECT_S)."""
        async with self._connecting:
            if self.connected or self._stop.is_set():
                return
            connection = ClientConnection(self._on_load, self._lost, self._heartbeat_s)
            try:
                async with asyncio.timeout(CONNECT_S):
                    await self._dial(connection)
                    refusal = await connection.ready
                if refusal is not None:
                    raise refusal
                if not self._stop.is_set():
                    self._connection = connection
            except ssl.SSLError as error:
                raise HandshakeError(reason_of(error)) from error
            finally:
                if self._connection is not connection:
                    connection.abort()

    async def run(self) -> None:
        """Keeps the connection up until `close`: the owner runs this as a task. It logs failed attempts."""
        failures = 0
        while not self._stop.is_set():
            try:
                await self.connect()
            except (HandshakeError, OSError) as error:
                level = logging.DEBUG if failures else logging.WARNING  # one line for each time a replica is away
                LOG.log(level, "transport: %s: %s", self.endpoint.replica_id, error or f"silent for {CONNECT_S:g} s")
                failures += 1
            else:
                failures = 0
                if self._connection is not None:
                    await self._connection.closed.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._backoff.delay_s(failures, self._rng)):
                    await self._stop.wait()

    async def close(self) -> None:
        """Hangs up for good: what is pending resolves to UNAVAILABLE, and `run` returns."""
        self._stop.set()
        if self._connection is not None:
            self._connection.abort()
            await self._connection.closed.wait()

    async def _dial(self, connection: ClientConnection) -> None:
        loop = asyncio.get_running_loop()
        if isinstance(self._address, UnixAddress):
            require_private(Path(self._address.path).parent)
            await loop.create_unix_connection(lambda: connection, self._address.path)
        else:
            assert self._certificates is not None  # the constructor has seen to it
            await loop.create_connection(
                lambda: connection,
                self._address.host,
                self._address.port,
                ssl=self._certificates.client_context(),
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )

    def _lost(self) -> None:
        if not self._stop.is_set():
            LOG.warning("transport: %s: the connection was lost", self.endpoint.replica_id)
            self._on_disconnect()
