"""The replica's end of the transport: listens, runs each batch as a task, and sends the answers back.

`TransportServer` listens, drains and stops; `ServerConnection` serves one connection. A client can harm only its own
batches, and a handler cannot end its connection. Knows nothing of Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias

from msgspec.structs import replace

from deployments.transport.address import SocketFile, TcpAddress, UnixAddress
from deployments.transport.connection import (
    HANDSHAKE_S,
    SILENT_BEATS,
    Cancel,
    ClientFrame,
    Connection,
    Done,
    Draining,
    HandshakeError,
    Ping,
    Pong,
    Progress,
    ProtocolError,
    ServerFrame,
    Submit,
    append_frame,
    client_frames,
)
from deployments.transport.tls import Certificates, CertificatesError, TlsListener
from gateway.model.messages import Answer, Delta, Emit, Failure, FailureKind, LoadReport, Work

Result: TypeAlias = Answer | Failure
Results: TypeAlias = Sequence[Result]
Handler: TypeAlias = Callable[[Sequence[Work], Emit], Coroutine[Any, Any, Results]]
"""Answers a batch with one result for each request, in order; until it returns it may emit deltas of streamed answers.

It should not raise, and is cancelled when nobody waits for an answer any more.
"""

CLOSE_S: Final = 1.0
"""Seconds that `close` waits for cancelled handlers to end, and then again for clients to read what was sent."""

LOG = logging.getLogger(__name__)


@dataclass
class ServerState:
    """What all connections of one server share. `load` is called for every answer: it must be fast and never raise."""

    handler: Handler
    load: Callable[[], LoadReport]
    max_in_flight: int
    draining: bool = False
    stopped: bool = False
    connections: set[ServerConnection] = field(default_factory=set)
    tasks: set[asyncio.Task[Results]] = field(default_factory=set)

    def report(self) -> LoadReport:
        """Reports the load, marked as draining if the server drains."""
        load = self.load()
        return replace(load, draining=True) if self.draining else load


class ServerConnection(Connection[ServerFrame, ClientFrame]):
    """One client's connection at the server. To bound memory, nothing is read from a client that does not read."""

    def __init__(self, state: ServerState, handshake_s: float, beat_s: float) -> None:
        """Takes the state shared with other connections, and the times of `Connection`."""
        super().__init__(client_frames(), handshake_s, beat_s)
        self._state = state
        self._tasks: dict[int, asyncio.Task[Results]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio after TLS: the connection counts from now on."""
        self._state.connections.add(self)
        super().connection_made(transport)

    def opened(self) -> None:
        """Sends the load, or that this server drains. Ends the connection if the server has just closed."""
        if self._state.stopped:
            self.abort()
        elif self._state.draining:
            self.tell_draining()
        else:
            self.send(Pong(self._state.load()))

    def received(self, frame: ClientFrame) -> None:
        """Starts or cancels a batch, or answers a ping. Raises ProtocolError for an id that is still under way."""
        match frame:
            case Submit():
                self._submit(frame)
            case Cancel():
                if (task := self._tasks.get(frame.id)) is not None:
                    task.cancel()
            case Ping():
                self.send(Pong(self._state.report()))

    def beat(self) -> None:
        """Does nothing: the client pings, and the server only listens."""

    def lost(self, reason: Exception | None) -> None:
        """Cancels the client's batches, since nobody waits for the answers."""
        self.abandon()
        self._state.connections.discard(self)
        if isinstance(reason, ProtocolError | HandshakeError):
            LOG.warning("transport: a connection ended: %s", reason)

    def tell_draining(self) -> None:
        """Asks the client to send no more work here."""
        self.send(Draining(self._state.report()))

    def abandon(self) -> None:
        """Cancels all of this client's batches without an answer."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    def pause_writing(self) -> None:
        """Called by asyncio when the client reads too slowly. Reads no more from it until it has read its answers."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Called by asyncio when the client reads again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _submit(self, frame: Submit) -> None:
        if frame.id in self._tasks:
            raise ProtocolError(f"batch {frame.id} is still under way")
        size = len(frame.batch)
        if self._state.draining:
            self._reply(frame.id, (Failure(FailureKind.UNAVAILABLE, "draining"),) * size)
        elif len(self._tasks) >= self._state.max_in_flight:
            failure = Failure(FailureKind.QUEUE_FULL, "too many batches in flight on one connection")
            self._reply(frame.id, (failure,) * size)
        else:
            task = self._loop.create_task(self._state.handler(frame.batch, partial(self._told, frame.id)))
            self._tasks[frame.id] = task
            self._state.tasks.add(task)  # the loop itself holds tasks only weakly
            task.add_done_callback(partial(self._finished, frame.id, size))

    def _told(self, batch_id: int, place: int, delta: Delta) -> None:
        """Sends a delta, unless the batch has ended."""
        if batch_id in self._tasks:
            self.send(Progress(batch_id, place, delta))

    def _finished(self, batch_id: int, size: int, task: asyncio.Task[Results]) -> None:
        """Every task ends here. `abandon` has forgotten its tasks before, so that they end without a reply."""
        self._state.tasks.discard(task)
        results = _outcome(task, size)
        if self._tasks.get(batch_id) is task:
            del self._tasks[batch_id]
            self._reply(batch_id, results)

    def _reply(self, batch_id: int, results: Results) -> None:
        done = Done(batch_id, tuple(results), self._state.report())
        try:
            self.send(done)
        except ProtocolError as error:
            LOG.error("transport: an answer could not be sent: %s", error)
            self.send(_sendable(done))


def _sendable(done: Done) -> Done:
    """Fails the results that cannot be encoded, or that one frame cannot hold with those before them."""
    sent = replace(done, results=())
    for result in done.results:
        longer = replace(sent, results=(*sent.results, result))
        try:
            append_frame(bytearray(), longer)
            sent = longer
        except ProtocolError as error:
            sent = replace(sent, results=(*sent.results, Failure(FailureKind.ENGINE, type(error).__name__)))
    return sent


def _outcome(task: asyncio.Task[Results], size: int) -> Results:
    """Turns a task's end into values. Only the type of an exception is sent: its message may quote the request."""
    if task.cancelled():
        return (Failure(FailureKind.CANCELLED),) * size
    if (error := task.exception()) is not None:
        where = "".join(traceback.format_tb(error.__traceback__))  # without the message, which may quote a request
        LOG.error("transport: the handler raised %s\n%s", type(error).__name__, where)
        return (Failure(FailureKind.ENGINE, type(error).__name__),) * size
    return task.result()


class TransportServer:
    """Serves all clients that TLS or the socket's folder lets in, many batches at a time on each connection."""

    def __init__(
        self,
        handler: Handler,
        load: Callable[[], LoadReport],
        *,
        certificates: Certificates | None = None,
        max_in_flight: int = 4096,
        silence_s: float = 30.0,
        handshake_s: float = HANDSHAKE_S,
    ) -> None:
        """Takes the handler, the load report, the certificates for TCP, and the limits of one connection.

        Load reports go out with `callers`, the number of open connections. A connection may have `max_in_flight`
        batches; further ones fail as QUEUE_FULL. Clients ping every second. A connection that is silent for
        `silence_s` seconds is ended, so that those of a lost node do not pile up.
        """
        self._load = load
        self._state = ServerState(handler, self._counted_load, max_in_flight)
        self._certificates = certificates
        self._beat_s = silence_s / SILENT_BEATS
        self._handshake_s = handshake_s
        self._tcp: TlsListener | None = None
        self._unix: asyncio.Server | None = None
        self._file: SocketFile | None = None

    @property
    def in_flight(self) -> int:
        """The batches of all clients whose handlers have not ended."""
        return len(self._state.tasks)

    @property
    def connections(self) -> int:
        """The open connections, with those in their handshake."""
        return len(self._state.connections) + (self._tcp.handshaking if self._tcp else 0)

    @property
    def tcp(self) -> TcpAddress | None:
        """The address on TCP, with the port that the kernel chose if it was 0; None without TCP."""
        return self._tcp.address if self._tcp else None

    async def start(self, unix: UnixAddress, tcp: TcpAddress | None = None) -> None:
        """Listens on the socket file, and on TCP if asked.

        Raises OSError if an address is taken or other users may enter the directory, CertificatesError for unusable
        certificates, ValueError for TCP without certificates. It then listens nowhere.
        """
        loop = asyncio.get_running_loop()
        try:
            if tcp is not None:
                if self._certificates is None:
                    raise ValueError("TCP needs certificates")  # even on loopback, so that none is left out by accident
                self._tcp = TlsListener.start(tcp, self._certificates, self._connection, self._handshake_s)
            self._file = SocketFile.bind(unix)
            self._unix = await loop.create_unix_server(self._connection, sock=self._file.socket)
        except (OSError, CertificatesError):
            await self.close()
            raise

    async def drain(self, grace_s: float) -> int:
        """Takes no new work and waits up to `grace_s` seconds for requests under way; returns how many are left.

        Clients hear of it at once and still get their answers. A Submit already on its way fails as UNAVAILABLE, and
        the gateway may try elsewhere. Call `close` afterwards.
        """
        self._state.draining = True
        for connection in self._state.connections:
            connection.tell_draining()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=grace_s)
        return self.in_flight

    async def close(self) -> None:
        """Stops for good, within 2 CLOSE_S: stops listening, cancels requests, hangs up and removes the socket file.

        Clients see their unanswered requests end as UNAVAILABLE, not as cancelled: no client cancelled them.
        """
        self._state.stopped = True
        if self._tcp is not None:
            await self._tcp.close()
        if self._unix is not None:
            self._unix.close()
        if self._file is not None:
            self._file.remove()
            self._file.socket.close()
        connections, tasks = list(self._state.connections), list(self._state.tasks)
        for connection in connections:
            connection.abandon()
            connection.hang_up()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                for connection in connections:
                    await connection.closed.wait()
        for connection in connections:
            connection.abort()
        if self._unix is not None:
            await self._unix.wait_closed()
        self._tcp = self._unix = self._file = None

    def _counted_load(self) -> LoadReport:
        """Adds the number of callers to the load report: each gateway process has one connection to a replica."""
        return replace(self._load(), callers=max(1, sum(one.is_open for one in self._state.connections)))

    def _connection(self) -> ServerConnection:
        return ServerConnection(self._state, self._handshake_s, self._beat_s)
