"""The replica's end of the link: listens on a socket file and perhaps on TCP, and hands the work to a handler.

Knows when to listen, drain and stop; what happens on a connection is `peer.py`'s. Knows nothing of Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from deployments.link.address import SocketFile, TcpAddress, UnixAddress
from deployments.link.connection import SILENT_BEATS
from deployments.link.handshake import HANDSHAKE_S, check_secret
from deployments.link.peer import Handler, Peer, Service
from gateway.model.messages import LoadReport

CLOSE_S: Final = 1.0
"""How long `close` waits for cancelled handlers to end, then again for clients to read what was sent, in seconds."""


class LinkServer:
    """Serves every client that proves the secret, many requests at a time on each connection."""

    def __init__(
        self,
        handler: Handler,
        load: Callable[[], LoadReport],
        secret: bytes,
        *,
        max_in_flight: int = 4096,
        silence_s: float = 30.0,
        handshake_s: float = HANDSHAKE_S,
    ) -> None:
        """Takes what to do, and the limits of one connection. Raises ValueError for a short secret.

        What `load` reports goes out with the number of `callers` that are connected.

        `max_in_flight` requests on one connection, the next is refused as QUEUE_FULL; a client that is silent for
        `silence_s` (they ping every second) is given up, so that a lost node's connections do not pile up.
        """
        self._load = load
        self._service = Service(handler, self._counted_load, max_in_flight)
        self._secret = check_secret(secret)
        self._beat_s = silence_s / SILENT_BEATS
        self._handshake_s = handshake_s
        self._listeners: list[asyncio.Server] = []
        self._file: SocketFile | None = None

    @property
    def in_flight(self) -> int:
        """Requests whose handlers have not ended, of all clients: what a control plane wants to know of the link."""
        return len(self._service.tasks)

    @property
    def connections(self) -> int:
        """Open connections, those that still shake hands included."""
        return len(self._service.peers)

    @property
    def tcp(self) -> TcpAddress | None:
        """Where TCP is listened on, with the port the kernel chose if it was asked to; None without TCP."""
        for listener in self._listeners:
            for listening in listener.sockets:
                name = listening.getsockname()
                if isinstance(name, tuple):
                    return TcpAddress(name[0], name[1])
        return None

    async def start(self, unix: UnixAddress, tcp: TcpAddress | None = None) -> None:
        """Listens. Raises OSError, and listens nowhere, if an address is taken or others may enter the directory."""
        loop = asyncio.get_running_loop()
        try:
            if tcp is not None:
                self._listeners.append(await loop.create_server(self._peer, tcp.host, tcp.port))
            self._file = SocketFile.bind(unix)
            self._listeners.append(await loop.create_unix_server(self._peer, sock=self._file.socket))
        except OSError:
            await self.close()
            raise

    async def drain(self, grace_s: float) -> int:
        """Takes no new work and waits up to `grace_s` seconds for what is under way; returns how much is left then.

        Clients are told at once, and go on being answered: a Submit that was already on its way gets UNAVAILABLE, which
        the gateway may try elsewhere. Call `close` afterwards.
        """
        self._service.draining = True
        for peer in self._service.peers:
            peer.tell_draining()
        if self._service.tasks:
            await asyncio.wait(self._service.tasks, timeout=grace_s)
        return self.in_flight

    async def close(self) -> None:
        """Stops listening, cancels what is left, hangs up, removes the socket file. For good; in 2 CLOSE_S at most.

        A client sees its unanswered requests end as UNAVAILABLE: they were not cancelled by anyone who waits for them.
        """
        self._service.stopped = True
        for listener in self._listeners:
            listener.close()
        if self._file is not None:
            self._file.remove()
            self._file.socket.close()
        peers, tasks = list(self._service.peers), list(self._service.tasks)
        for peer in peers:
            peer.abandon()
            peer.hang_up()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                for peer in peers:
                    await peer.closed.wait()
        for peer in peers:
            peer.abort()
        for listener in self._listeners:
            await listener.wait_closed()
        self._listeners.clear()
        self._file = None

    def _counted_load(self) -> LoadReport:
        """Only the link knows how many send it work: a gateway process has one connection to each replica."""
        return replace(self._load(), callers=max(1, sum(peer.is_open for peer in self._service.peers)))

    def _peer(self) -> Peer:
        return Peer(self._service, self._secret, self._handshake_s, self._beat_s)
