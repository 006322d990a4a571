"""The replica's end of the transport: it listens, turns submits into tasks, and sends the answers back.

`TransportServer` knows when to listen, drain and stop; `ServerConnection` what happens on one connection. Whatever a
client does, only its own requests feel it; whatever a handler does, its connection goes on. Knows nothing of Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias

from msgspec.structs import replace

from deployments.transport.address import SocketFile, TcpAddress, UnixAddress
from deployments.transport.connection import HANDSHAKE_S, SILENT_BEATS, Connection, HandshakeError
from deployments.transport.frames import (
    Cancel,
    ClientFrame,
    Done,
    Draining,
    Ping,
    Pong,
    ProtocolError,
    ServerFrame,
    Submit,
    client_frames,
)
from deployments.transport.tls import Certificates, CertificatesError, TlsListener
from gateway.model.messages import Answer, Failure, FailureKind, LoadReport, Work

Result: TypeAlias = Answer | Failure
Handler: TypeAlias = Callable[[Work], Coroutine[Any, Any, Result]]
"""Does one piece of work. It is cancelled when nobody waits for the answer any more; it should not raise."""

CLOSE_S: Final = 1.0
"""How long `close` waits for cancelled handlers to end, then again for clients to read what was sent, in seconds."""

LOG = logging.getLogger(__name__)


@dataclass
class ServerState:
    """What all connections of one server share. `load` must be quick and must not raise: it goes with every answer."""

    handler: Handler
    load: Callable[[], LoadReport]
    max_in_flight: int
    draining: bool = False
    stopped: bool = False
    connections: set[ServerConnection] = field(default_factory=set)
    tasks: set[asyncio.Task[Result]] = field(default_factory=set)

    def report(self) -> LoadReport:
        """The load now; a draining server says so whether or not its replica does."""
        load = self.load()
        return replace(load, draining=True) if self.draining else load


class ServerConnection(Connection[ServerFrame, ClientFrame]):
    """One client, as the server sees it. Its memory is bounded: while it does not read, nothing is read from it."""

    def __init__(self, state: ServerState, handshake_s: float, beat_s: float) -> None:
        """Takes what it shares with the other connections, and the times of `Connection`."""
        super().__init__(client_frames(), handshake_s, beat_s)
        self._state = state
        self._tasks: dict[int, asyncio.Task[Result]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's: counted from here on; a peer that fails its TLS handshake never comes so far."""
        self._state.connections.add(self)
        super().connection_made(transport)

    def opened(self) -> None:
        """Tells the client the load, or that this server drains. One that connects as the server closes is let go."""
        if self._state.stopped:
            self.abort()
        elif self._state.draining:
            self.tell_draining()
        else:
            self.send(Pong(self._state.load()))

    def received(self, frame: ClientFrame) -> None:
        """Starts, cancels or answers. Raises ProtocolError for an id that is still under way."""
        match frame:
            case Submit():
                self._submit(frame)
            case Cancel():
                if (task := self._tasks.get(frame.id)) is not None:
                    task.cancel()
            case Ping():
                self.send(Pong(self._state.report()))

    def beat(self) -> None:
        """Nothing: the client pings, and the server listens for its pings."""

    def lost(self, reason: Exception | None) -> None:
        """The client is gone, so nobody waits for its answers."""
        self.abandon()
        self._state.connections.discard(self)
        if isinstance(reason, ProtocolError | HandshakeError):
            LOG.warning("transport: a connection ended: %s", reason)

    def tell_draining(self) -> None:
        """Asks the client to send no more work here."""
        self.send(Draining(self._state.report()))

    def abandon(self) -> None:
        """Cancels all that is under way for this client, without a word to it."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    def pause_writing(self) -> None:
        """asyncio's: the client reads too slowly. Nothing more is read from it until it has read its answers."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """asyncio's: the client reads again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _submit(self, frame: Submit) -> None:
        if frame.id in self._tasks:
            raise ProtocolError(f"request {frame.id} is still under way")
        if self._state.draining:
            self._reply(frame.id, Failure(FailureKind.UNAVAILABLE, "draining"))
        elif len(self._tasks) >= self._state.max_in_flight:
            self._reply(frame.id, Failure(FailureKind.QUEUE_FULL, "too many requests in flight on one connection"))
        else:
            task = self._loop.create_task(self._state.handler(frame.work))
            self._tasks[frame.id] = task
            self._state.tasks.add(task)  # the loop itself holds tasks only weakly
            task.add_done_callback(partial(self._finished, frame.id))

    def _finished(self, request_id: int, task: asyncio.Task[Result]) -> None:
        """Every task ends here. `abandon` has forgotten its tasks before, so that they end without a reply."""
        self._state.tasks.discard(task)
        result = _outcome(task)
        if self._tasks.get(request_id) is task:
            del self._tasks[request_id]
            self._reply(request_id, result)

    def _reply(self, request_id: int, result: Result) -> None:
        load = self._state.report()
        try:
            self.send(Done(request_id, result, load))
        except ProtocolError as error:
            LOG.error("transport: an answer could not be sent: %s", error)
            self.send(Done(request_id, Failure(FailureKind.ENGINE, type(error).__name__), load))


def _outcome(task: asyncio.Task[Result]) -> Result:
    """The task's end as a value. Of an exception only the type's name crosses: its text may quote the request."""
    if task.cancelled():
        return Failure(FailureKind.CANCELLED)
    if (error := task.exception()) is not None:
        where = "".join(traceback.format_tb(error.__traceback__))  # without its message, which may quote a request
        LOG.error("transport: the handler raised %s\n%s", type(error).__name__, where)
        return Failure(FailureKind.ENGINE, type(error).__name__)
    return task.result()


class TransportServer:
    """Serves every client that TLS or the socket's folder lets in, many requests at a time on each connection."""

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
        """Takes what to do, what to show to clients over TCP, and the limits of one connection.

        What `load` reports goes out with the number of `callers` that are connected. A connection may have
        `max_in_flight` requests; the next is refused as QUEUE_FULL. A client that is silent for `silence_s` (they ping
        every second) is given up, so that a lost node's connections do not pile up.
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
        """Requests whose handlers have not ended, of all clients."""
        return len(self._state.tasks)

    @property
    def connections(self) -> int:
        """Open connections, those that still shake hands included."""
        return len(self._state.connections) + (self._tcp.handshaking if self._tcp else 0)

    @property
    def tcp(self) -> TcpAddress | None:
        """Where it listens on TCP, with the port the kernel chose if it was asked to; None without TCP."""
        return self._tcp.address if self._tcp else None

    async def start(self, unix: UnixAddress, tcp: TcpAddress | None = None) -> None:
        """Listens: on the socket file, and on TCP if asked.

        Raises OSError if an address is taken or others may enter the directory, CertificatesError for unusable
        certificates, ValueError for TCP without any; then it listens nowhere.
        """
        loop = asyncio.get_running_loop()
        try:
            if tcp is not None:
                if self._certificates is None:
                    raise ValueError("TCP needs certificates")  # on loopback too: nothing downgrades by accident
                self._tcp = TlsListener.start(tcp, self._certificates, self._connection, self._handshake_s)
            self._file = SocketFile.bind(unix)
            self._unix = await loop.create_unix_server(self._connection, sock=self._file.socket)
        except (OSError, CertificatesError):
            await self.close()
            raise

    async def drain(self, grace_s: float) -> int:
        """Takes no new work and waits up to `grace_s` seconds for what is under way; returns how much is left then.

        Clients are told at once, and go on being answered: a Submit that was already on its way gets UNAVAILABLE, which
        the gateway may try elsewhere. Call `close` afterwards.
        """
        self._state.draining = True
        for connection in self._state.connections:
            connection.tell_draining()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=grace_s)
        return self.in_flight

    async def close(self) -> None:
        """Stops listening, cancels what is left, hangs up, removes the socket file. For good; in 2 CLOSE_S at most.

        A client sees its unanswered requests end as UNAVAILABLE: they were not cancelled by anyone who waits for them.
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
        """Only the server knows how many send it work: a gateway process has one connection to each replica."""
        return replace(self._load(), callers=max(1, sum(one.is_open for one in self._state.connections)))

    def _connection(self) -> ServerConnection:
        return ServerConnection(self._state, self._handshake_s, self._beat_s)
