"""The server's end of one connection: submits become tasks, tasks become answers.

Whatever a client does, only its own requests feel it; whatever a handler does, its connection goes on.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from msgspec.structs import replace

from deployments.link.connection import Connection
from deployments.link.frames import (
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
from deployments.link.handshake import NONCE_BYTES, Handshake, HandshakeError, Role
from gateway.model.messages import Answer, Failure, FailureKind, LoadReport, Work

Result: TypeAlias = Answer | Failure
Handler: TypeAlias = Callable[[Work], Coroutine[Any, Any, Result]]
"""Does one piece of work. Cancelled when nobody waits for the answer any more; what it raises is a bug of its own."""

LOG = logging.getLogger(__name__)


@dataclass
class Service:
    """What all connections of one server share. `load` must be quick and must not raise: it goes with every answer."""

    handler: Handler
    load: Callable[[], LoadReport]
    max_in_flight: int
    draining: bool = False
    stopped: bool = False
    peers: set[Peer] = field(default_factory=set)
    tasks: set[asyncio.Task[Result]] = field(default_factory=set)

    def report(self) -> LoadReport:
        """The load now; a draining server says so whether or not its replica does."""
        load = self.load()
        return replace(load, draining=True) if self.draining else load


class Peer(Connection[ServerFrame, ClientFrame]):
    """One client, as the server sees it. Its memory is bounded: while it does not read, nothing is read from it."""

    def __init__(self, service: Service, secret: bytes, handshake_s: float, beat_s: float) -> None:
        """Takes what it shares with the other peers, the secret, and the times of `Connection`."""
        handshake = Handshake(Role.SERVER, secret, secrets.token_bytes(NONCE_BYTES))
        super().__init__(handshake, client_frames(), handshake_s, beat_s)
        self._service = service
        self._tasks: dict[int, asyncio.Task[Result]] = {}
        service.peers.add(self)

    def opened(self) -> None:
        """A client is told the load at once, or that this server drains; one that slipped in as it closed is let go."""
        if self._service.stopped:
            self.abort()
        elif self._service.draining:
            self.tell_draining()
        else:
            self.send(Pong(self._service.load()))

    def received(self, frame: ClientFrame) -> None:
        """Starts, cancels or answers. Raises ProtocolError for an id that is still under way."""
        match frame:
            case Submit():
                self._submit(frame)
            case Cancel():
                if (task := self._tasks.get(frame.id)) is not None:
                    task.cancel()
            case Ping():
                self.send(Pong(self._service.report()))

    def beat(self) -> None:
        """Nothing: it is the client that pings, and its pings that are listened for."""

    def lost(self, reason: Exception | None) -> None:
        """The client is gone, so nobody waits for its answers."""
        self.abandon()
        self._service.peers.discard(self)
        if isinstance(reason, ProtocolError | HandshakeError):
            LOG.warning("link: connection ended: %s", reason)

    def tell_draining(self) -> None:
        """Asks the client to send no more work here."""
        self.send(Draining(self._service.report()))

    def abandon(self) -> None:
        """Cancels all that is under way for this client, without a word to it."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    def pause_writing(self) -> None:
        """asyncio's: the client reads too slowly. It gets no new work in until it has taken its answers out."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """asyncio's: the client reads again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _submit(self, frame: Submit) -> None:
        if frame.id in self._tasks:
            raise ProtocolError(f"request {frame.id} is still under way")
        if self._service.draining:
            self._reply(frame.id, Failure(FailureKind.UNAVAILABLE, "draining"))
        elif len(self._tasks) >= self._service.max_in_flight:
            self._reply(frame.id, Failure(FailureKind.QUEUE_FULL, "too many requests in flight on one link"))
        else:
            task = self._loop.create_task(self._service.handler(frame.work))
            self._tasks[frame.id] = task
            self._service.tasks.add(task)  # the loop itself holds tasks only weakly
            task.add_done_callback(partial(self._finished, frame.id))

    def _finished(self, request_id: int, task: asyncio.Task[Result]) -> None:
        """Every task ends here. `abandon` forgets tasks first, so that theirs end without a reply."""
        self._service.tasks.discard(task)
        result = _outcome(task)
        if self._tasks.get(request_id) is task:
            del self._tasks[request_id]
            self._reply(request_id, result)

    def _reply(self, request_id: int, result: Result) -> None:
        load = self._service.report()
        try:
            self.send(Done(request_id, result, load))
        except ProtocolError as error:
            LOG.error("link: an answer could not be sent: %s", error)
            self.send(Done(request_id, Failure(FailureKind.ENGINE, type(error).__name__), load))


def _outcome(task: asyncio.Task[Result]) -> Result:
    """The task's end as a value. Of an exception only the type's name crosses: its text may quote the request."""
    if task.cancelled():
        return Failure(FailureKind.CANCELLED)
    if (error := task.exception()) is not None:
        where = "".join(traceback.format_tb(error.__traceback__))  # without its message, which may quote a request
        LOG.error("link: the handler raised %s\n%s", type(error).__name__, where)
        return Failure(FailureKind.ENGINE, type(error).__name__)
    return task.result()
