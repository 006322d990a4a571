"""The HTTP server: listens, ends connections that take too long, and drains.

Several servers may listen on one port, in one process each: the kernel spreads new connections over them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate

from gateway.api.connection import Application, Connection, Headers, Hub
from gateway.catalogs.catalog import Limits
from gateway.model.deadline import Clock
from gateway.model.errors import Problem, Stopping

BACKLOG = 4096
"""Connections that may wait to be accepted; Linux caps it at net.core.somaxconn, which has this default."""

LOOK_EVERY_S = 0.5
"""Seconds between two looks for connections that take too long: by so much a limit may be exceeded."""

AT_ONCE = 16
"""Connections that are taken, or ended for want of time, before requests have their turn again. Set by hand: 1,000 that
come or end together would hold every request up until the last of them."""

_HANDSHAKE_S = 0.05
"""Seconds that the kernel has to finish connections that have begun, before the port is closed."""

_ON_ITS_WAY_S = 0.25
"""Seconds that connections without a request stay open after the port is closed: a request may be on its way."""

_SO_ATTACH_FILTER = 26
"""The socket option that attaches a classic BPF program (Linux's asm-generic/socket.h); Python has no name for it."""

_DROP_SYN = (
    (0x30, 0, 0, 13),  # load byte 13 of the TCP header, the flags
    (0x45, 0, 1, 0x02),  # if SYN is set, take the next step, else the one behind it
    (0x06, 0, 0, 0),  # drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # keep it whole
)
"""A BPF program: each step is an operation, two jumps and a value (Linux's filter.rst)."""

_TOLD_WITHIN_S = 1.0
"""Seconds for the last answers of a server that stops to reach their clients."""

UNSENT_BYTES = 64 << 10
"""Bytes of an answer that the kernel takes before what it has is sent (TCP_NOTSENT_LOWAT, tcp(7)): it would take
several answers for each client that asks much and reads slowly. Set by hand."""

log = logging.getLogger("gateway.http")


class HttpServer:
    """Serves one application. `limits` has the time limits and the number of connections.

    `refused` is told of each request that the server answers itself, with an error; `told` gives more headers of that
    answer, for those of the request.
    """

    def __init__(
        self,
        app: Application,
        limits: Limits,
        clock: Clock,
        refused: Callable[[Problem], None] = lambda problem: None,
        told: Callable[[Headers], Mapping[str, str]] = lambda headers: {},
    ) -> None:
        self._hub = Hub(app, limits, clock, refused, told)
        self._listeners: list[socket.socket] = []
        self._accepting: set[asyncio.Task[object]] = set()
        self._looking: asyncio.TimerHandle | None = None

    @property
    def draining(self) -> bool:
        """True from the beginning of the drain."""
        return self._hub.draining

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._hub.open)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self._listeners[0].getsockname()[1]
        return port

    async def start(self, host: str, port: int) -> None:
        """Listens on every address of the host. Raises OSError."""
        self._look()
        for family, address in await _addresses(host, port):
            self._listeners.append(_listener(family, address))
            self._listen(self._listeners[-1])

    async def drain(self, linger_s: float, within_s: float) -> None:
        """Serves on for `linger_s` seconds, then takes no new connections and finishes the requests under way.

        From the beginning, each answer is the last of its connection. Requests that are not answered `within_s` seconds
        after the lingering are answered 503.
        """
        self._hub.draining = True
        await asyncio.sleep(linger_s)
        await self._close_listeners()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        if self._hub.open:
            await asyncio.sleep(_ON_ITS_WAY_S)
        for connection in list(self._hub.open):
            if connection.idle:
                connection.stop(None)
        await self._empty(within_s)
        for connection in list(self._hub.open):
            connection.stop(Stopping())
        await self._empty(_TOLD_WITHIN_S)
        if self._looking is not None:
            self._looking.cancel()

    def _listen(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        """Accepts some of what waits. Without a free file it tries again in a second, as asyncio does."""
        self._accept_at_most(AT_ONCE, listener)

    def _accept_at_most(self, number: int, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            for _ in range(number):
                connection, _ = listener.accept()
                connection.setblocking(False)
                task = loop.create_task(loop.connect_accepted_socket(self._connection, connection))
                self._accepting.add(task)
                task.add_done_callback(self._accepting.discard)
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            log.error("no connection can be accepted: %s", error.strerror)
            loop.remove_reader(listener)
            loop.call_later(1.0, self._listen, listener)

    async def _close_listeners(self) -> None:
        """Stops listening. Connections that have begun are accepted first, since the kernel would reset them.

        New ones meanwhile are left unanswered: their clients ask again within a second, by themselves, and reach
        another server of the port.
        """
        for listener in self._listeners:
            _ignore_new(listener)
        await asyncio.sleep(_HANDSHAKE_S)
        for listener in self._listeners:
            self._accept_at_most(2 * BACKLOG, listener)
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        self._listeners.clear()

    async def _empty(self, within_s: float) -> None:
        """Waits until no connection is open, for so long at most."""
        if self._hub.open:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hub.empty.wait(), within_s)

    def _connection(self) -> Connection:
        return Connection(self._hub)

    def _look(self) -> None:
        """Ends the connections that take too long, renews the date, and comes back."""
        self._hub.date = f"date: {formatdate(usegmt=True)}\r\n".encode()
        now_s = self._hub.clock()
        self._expire(deque(one for one in self._hub.open if one.due_s <= now_s))
        self._looking = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)

    def _expire(self, due: deque[Connection]) -> None:
        """Ends those of them that still take too long, some at a time."""
        for _ in range(min(AT_ONCE, len(due))):
            connection = due.popleft()
            if connection in self._hub.open and connection.due_s <= self._hub.clock():
                connection.expire()
        if due:
            asyncio.get_running_loop().call_soon(self._expire, due)


def _ignore_new(listener: socket.socket) -> None:
    """Lets Linux drop each packet that begins a connection to a listening socket, and no other packet."""
    if sys.platform == "linux":
        filtering = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in _DROP_SYN))
        program = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(filtering))
        with contextlib.suppress(OSError):  # a sandbox may forbid filters: the port is closed all the same
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


async def _addresses(host: str, port: int) -> Sequence[tuple[int, tuple[object, ...]]]:
    """Every address of a host name, each once."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((int(family), tuple(address)) for family, _, _, _, address in found))


def _listener(family: int, address: tuple[object, ...]) -> socket.socket:
    """Binds a socket that may share its port with other processes of this user."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
