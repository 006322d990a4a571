"""A crowd of slow clients, in a process of its own: each takes its time over a head, a body or an answer.

`python -m loadtests.bench.peers.crowd URL KIND CLIENTS` opens a connection for each client, prints a line when all are
open, and goes on until its standard input ends. Then it prints, as JSON, what became of them. A client whose connection
is ended comes back soon. Like a real crowd it has several addresses: 127.0.0.2 and those after it, all of loopback.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from urllib.parse import urlsplit

import msgspec
import uvloop
from msgspec import Struct

from loadtests.bench.peers.servers import child_environment
from loadtests.errors import ServerFailed

PAUSE_S = 1.0
"""Seconds between two parts that a client sends or reads. slowhttptest takes 10 by default, and is easier to bear."""

BACK_S = 0.1
"""Seconds after which a client comes back."""

PER_ADDRESS = 100
"""Clients of one address."""

TAKEN = 64
"""Bytes that a slow reader takes at a time."""

ROOM = 4096
"""Bytes of a slow reader's receive buffer; the kernel doubles it."""

PIPELINED = 4
"""Answers that a slow reader asks for at once, so that what waits for it exceeds the kernel's buffers."""

OPEN_WITHIN_S = 60.0


class Kind(StrEnum):
    """What a client is slow with: the head of its request, the body, or reading its answer."""

    HEADS = "slow heads"
    BODIES = "slow bodies"
    READERS = "slow readers"


class Crowd(Struct):
    """What became of the clients: connections in all, those that the server ended, bytes read.

    `open` is how many were open, on average over the looks taken once in `PAUSE_S`.
    """

    clients: int
    connections: int = 0
    ended: int = 0
    read_bytes: int = 0
    looks: int = 0
    open_seen: int = 0

    @property
    def open(self) -> float:
        """The mean number of open connections."""
        return self.open_seen / self.looks if self.looks else 0.0


def beginning(kind: Kind, host: str) -> bytes:
    """What a client sends at once."""
    if kind is Kind.READERS:
        return f"GET /openapi.json HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() * PIPELINED
    head = f"POST /classify HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n".encode()
    return head if kind is Kind.HEADS else head + b'Content-Length: 4000\r\n\r\n{"inputs": "'


def part(kind: Kind) -> bytes:
    """What a client sends after each pause; a slow reader sends nothing more."""
    return {Kind.HEADS: b"X-Slow: a\r\n", Kind.BODIES: b"a", Kind.READERS: b""}[kind]


class _Clients:
    """The clients of one process, each a coroutine."""

    def __init__(self, url: str, kind: Kind, clients: int) -> None:
        where = urlsplit(url)
        assert where.hostname is not None and where.port is not None, "a gateway's URL has both"
        self._address = (where.hostname, where.port)
        self._kind, self._first, self._next = kind, beginning(kind, where.netloc), part(kind)
        self._open: set[int] = set()
        self._all_open = asyncio.Event()
        self.told = Crowd(clients)

    async def run(self, opened: Callable[[], None], over: asyncio.Event) -> None:
        """Opens all connections, calls `opened`, and keeps them until `over`."""
        clients = [asyncio.create_task(self._client(number)) for number in range(self.told.clients)]
        await self._all_open.wait()
        opened()
        while not over.is_set():
            self.told.looks += 1
            self.told.open_seen += len(self._open)
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), PAUSE_S)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    async def _client(self, number: int) -> None:
        await asyncio.sleep(PAUSE_S * number / self.told.clients)  # a crowd does not step in time
        while True:
            with socket.socket() as connection, suppress(OSError):
                await self._connection(connection, number)
            self._open.discard(number)
            self.told.ended += 1
            await asyncio.sleep(BACK_S)

    async def _connection(self, connection: socket.socket, number: int) -> None:
        """Keeps one connection slow. Raises OSError when the server has ended it."""
        loop = asyncio.get_running_loop()
        if self._kind is Kind.READERS:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        connection.bind((f"127.0.0.{2 + number // PER_ADDRESS}", 0))
        connection.setblocking(False)
        await loop.sock_connect(connection, self._address)
        self.told.connections += 1
        await loop.sock_sendall(connection, self._first)
        self._open.add(number)
        if len(self._open) == self.told.clients:
            self._all_open.set()
        while True:
            await asyncio.sleep(PAUSE_S)
            await loop.sock_sendall(connection, self._next)
            self._look(connection)

    def _look(self, connection: socket.socket) -> None:
        """Reads what a slow reader takes. Raises OSError for an answer to a request that is not whole, or an end."""
        try:
            read = len(connection.recv(TAKEN))
        except BlockingIOError:
            return
        self.told.read_bytes += read
        if self._kind is not Kind.READERS or not read:
            raise ConnectionResetError("the server has answered, and ended the connection")


@contextmanager
def crowd(url: str, kind: Kind, clients: int) -> Iterator[Callable[[], Crowd]]:
    """Runs a crowd while the context lasts; the function that it yields ends it and tells. Raises ServerFailed."""
    command = [sys.executable, "-m", "loadtests.bench.peers.crowd", url, kind.name, str(clients)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=child_environment(), **pipes) as process:  # type: ignore[call-overload]
        late = threading.Timer(OPEN_WITHIN_S, process.kill)
        late.start()
        opened = process.stdout.readline()
        late.cancel()
        if not opened:
            raise ServerFailed(f"{clients} {kind} could not all connect within {OPEN_WITHIN_S:g} s")

        def end() -> Crowd:
            told, _ = process.communicate()
            return msgspec.json.decode(told, type=Crowd)

        try:
            yield end
        finally:
            process.stdin.close()


async def _run(url: str, kind: Kind, clients: int) -> Crowd:
    """Runs the clients until the standard input ends."""
    over, loop = asyncio.Event(), asyncio.get_running_loop()
    made = _Clients(url, kind, clients)

    def ended() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(over.set)

    threading.Thread(target=ended, daemon=True).start()
    await made.run(lambda: print("open", flush=True), over)
    return made.told


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    told = uvloop.run(_run(sys.argv[1], Kind[sys.argv[2]], int(sys.argv[3])))
    sys.stdout.write(msgspec.json.encode(told).decode())
