"""The gateway's end of the transport: keeps a connection to every replica, and every batch ends with a value.

`TransportBackend` is the `Backend` of `gateway/scheduling/loop.py`: it sends each batch to the least loaded replica of
its checkpoint and calls back with the results. A `Directory` finds the replicas; in production it asks Ray Serve, and
no request waits for it. A `TransportClient` keeps one connection to one replica. Neither retries: the gateway does,
within the requests' budgets. A cancelled batch never disturbs the reader or another batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeAlias

from deployments.transport.address import Endpoint, UnixAddress, require_private
from deployments.transport.connection import (
    HANDSHAKE_S,
    HUNG_UP,
    Cancel,
    ClientFrame,
    Connection,
    Done,
    Draining,
    FrameTooLong,
    HandshakeError,
    Ping,
    Pong,
    Progress,
    ProtocolError,
    ServerFrame,
    Submit,
    server_frames,
)
from deployments.transport.tls import SHUTDOWN_S, Certificates, reason_of
from gateway.forecasting.load import LoadTracker
from gateway.model.deadline import Clock
from gateway.model.messages import Answer, Delta, Emit, Failure, FailureKind, LoadReport, Work, to_nobody

SUBMIT_LIMIT_BYTES: Final = 8 * 1024 * 1024
"""Unsent bytes above which a replica gets no more requests: half of what ends the connection.

Requests are refused rather than held here, since their `remaining_s` would become wrong while they wait.
"""


TakeResults: TypeAlias = Callable[[Sequence[Answer | Failure]], None]
"""Takes the results of a batch, one for each request, in order. It must not raise."""


class _Pending(NamedTuple):
    """A batch under way: its number of requests, what takes their results, and what takes deltas before."""

    size: int
    done: TakeResults
    emit: Emit


class ClientConnection(Connection[ClientFrame, ServerFrame]):
    """One connection to one replica. `ready` resolves once: to None when it is open, else to why it never opened."""

    def __init__(self, on_load: Callable[[LoadReport], None], on_lost: Callable[[], None], heartbeat_s: float) -> None:
        """Takes the callbacks for each load report, and for the end of a connection that had been open."""
        super().__init__(server_frames(), HANDSHAKE_S, heartbeat_s)
        self._on_load = on_load
        self._on_lost = on_lost
        self._pending: dict[int, _Pending] = {}
        self._next_id = 0
        self.ready: asyncio.Future[Exception | None] = self._loop.create_future()

    def submit(self, batch: Sequence[Work], done: TakeResults, emit: Emit) -> Callable[[], None]:
        """Sends a batch; `done` gets its results later, and `emit` deltas of streamed answers before.

        The function that it returns cancels the batch.
        """
        if not self.is_open:
            return self._failed(len(batch), done, Failure(FailureKind.UNAVAILABLE, "not connected"))
        if self.unsent_bytes > SUBMIT_LIMIT_BYTES:
            return self._failed(len(batch), done, Failure(FailureKind.UNAVAILABLE, "the replica does not read"))
        batch_id, self._next_id = self._next_id, self._next_id + 1
        try:
            self.send(Submit(batch_id, tuple(batch)))
        except ProtocolError as error:
            if len(batch) > 1:
                return self._one_by_one(batch, done, emit)
            kind = FailureKind.TOO_LONG if isinstance(error, FrameTooLong) else FailureKind.ENGINE
            return self._failed(1, done, Failure(kind, str(error)))
        self._pending[batch_id] = _Pending(len(batch), done, emit)
        return partial(self._cancel, batch_id)

    def _failed(self, size: int, done: TakeResults, failure: Failure) -> Callable[[], None]:
        """Fails a batch in the loop's next turn, so that `done` never runs inside `submit`."""
        return self._loop.call_soon(done, (failure,) * size).cancel

    def _one_by_one(self, batch: Sequence[Work], done: TakeResults, emit: Emit) -> Callable[[], None]:
        """Sends a batch that one frame cannot hold in a frame for each request, so that only a faulty one fails."""
        results: dict[int, Answer | Failure] = {}

        def one_done(place: int, result: Sequence[Answer | Failure]) -> None:
            (results[place],) = result
            if len(results) == len(batch):
                done([results[at] for at in range(len(batch))])

        def one_told(place: int, _: int, delta: Delta) -> None:
            emit(place, delta)

        cancels = [
            self.submit((work,), partial(one_done, place), partial(one_told, place)) for place, work in enumerate(batch)
        ]

        def cancel() -> None:
            for one in cancels:
                one()

        return cancel

    def _cancel(self, batch_id: int) -> None:
        if self._pending.pop(batch_id, None) is not None:
            self.send(Cancel(batch_id))

    def _end(self, batch_id: int, results: tuple[Answer | Failure, ...]) -> None:
        """Gives a batch its results, unless it was cancelled. A wrong number of results is the replica's failure."""
        pending = self._pending.pop(batch_id, None)
        if pending is None:
            return
        if len(results) != pending.size:
            results = (Failure(FailureKind.ENGINE, f"{len(results)} results for {pending.size} requests"),)
            results *= pending.size
        pending.done(results)

    def _told(self, frame: Progress) -> None:
        """Passes a delta on, unless its batch was cancelled. One of no request of the batch is dropped."""
        pending = self._pending.get(frame.id)
        if pending is not None and 0 <= frame.place < pending.size:
            pending.emit(frame.place, frame.delta)

    def opened(self) -> None:
        """Resolves `ready`: the replica has accepted this side."""
        if not self.ready.done():
            self.ready.set_result(None)

    def received(self, frame: ServerFrame) -> None:
        """Ends a batch, or passes a delta or a load report on. For a cancelled batch, only the load report counts.

        `on_load` is called on its own by the loop. If it raises, the loop logs the error and no request is harmed.
        """
        if isinstance(frame, Progress):
            self._told(frame)
            return
        self._loop.call_soon(self._on_load, frame.load)
        match frame:
            case Done():
                self._end(frame.id, frame.results)
            case Pong() | Draining():
                return

    def beat(self) -> None:
        """Pings the replica."""
        self.send(Ping())

    def lost(self, reason: Exception | None) -> None:
        """Ends every batch under way at once, since the gateway may still have time to try elsewhere."""
        for batch_id, pending in tuple(self._pending.items()):
            self._end(batch_id, (Failure(FailureKind.UNAVAILABLE, "the connection was lost"),) * pending.size)
        if not self.ready.done():
            self.ready.set_result(reason or HandshakeError(HUNG_UP))
        elif not self.ready.cancelled():
            self._on_lost()


CONNECT_S: Final = HANDSHAKE_S + 1.0
"""Longest attempt to connect, with the handshake, in seconds: a dead node never refuses."""

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backoff:
    """The wait between attempts, in seconds: doubles up to a cap, and is random so that clients differ."""

    first_s: float = 0.05
    cap_s: float = 2.0

    def delay_s(self, failures: int, rng: random.Random) -> float:
        """The wait after `failures` in a row: between half and all of the doubled wait."""
        doubled = self.first_s * 2.0 ** min(failures, 32)
        return min(doubled, self.cap_s) * rng.uniform(0.5, 1.0)


class TransportClient:
    """Sends work to one replica. `run` keeps it connected; `submit` fails at once while it is not."""

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
        """Takes the replica and the callbacks. Raises ValueError for a node out of reach, or TCP without certificates.

        `on_load` gets every load report, even of a draining replica. `on_disconnect` is called each time an open
        connection ends other than by `close`, after all its requests have ended. A connection that is silent for three
        times `heartbeat_s` is ended.
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
        """True if a `submit` would be sent."""
        return self._connection is not None and self._connection.is_open

    def submit(self, batch: Sequence[Work], done: TakeResults, emit: Emit = to_nobody) -> Callable[[], None]:
        """Sends a batch. `done` is called once, later, with one result for each request, in order.

        Before that, `emit` is called with the deltas of streamed answers, if the replica has any.

        The function that it returns cancels the batch at the replica and affects no other; `done` is then not called.
        Requests fail as UNAVAILABLE if this is not connected or the connection dies meanwhile. There is no timeout
        here: work carries the rest of its budget, and the caller watches its own. A request longer than
        MAX_FRAME_BYTES fails as TOO_LONG, without token counts; one that cannot be encoded, as ENGINE.
        """
        if self._connection is None:
            failure = Failure(FailureKind.UNAVAILABLE, "not connected")
            return asyncio.get_running_loop().call_soon(done, (failure,) * len(batch)).cancel
        return self._connection.submit(batch, done, emit)

    async def connect(self) -> None:
        """Tries once to connect, if not connected. Raises HandshakeError, or OSError (TimeoutError after CONNECT_S)."""
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
        """Keeps the connection up until `close`, and logs failed attempts. The owner runs it as a task."""
        failures = 0
        while not self._stop.is_set():
            try:
                await self.connect()
            except (HandshakeError, OSError) as error:
                level = logging.DEBUG if failures else logging.WARNING  # one warning each time a replica is away
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
        """Ends the connection for good. Pending requests end as UNAVAILABLE, and `run` returns."""
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
            assert self._certificates is not None  # the constructor has checked it
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


SETTLED_S = 5.0
"""Seconds between looks into the directory while every expected replica is connected, to find new ones."""

UNSETTLED_S = 0.25
"""Seconds between looks into the directory while a replica is missing."""


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
        self, checkpoint: str, batch: Sequence[Work], service_time_s: float, done: TakeResults, emit: Emit = to_nobody
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
            LOG.warning("lost a replica of %s", checkpoint)
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
        LOG.critical("the watch over %s ended", task.get_name(), exc_info=error)
