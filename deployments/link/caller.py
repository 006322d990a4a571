"""The client's end of one connection: requests under way, and what becomes of them when the connection ends.

A caller that stops waiting never disturbs the reader or another caller. (A result set on a cancelled future once killed
the reader of a prototype, and with it every later request.)
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Final

from deployments.link.connection import Connection
from deployments.link.frames import (
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
from deployments.link.handshake import HANDSHAKE_S, NONCE_BYTES, Handshake, HandshakeError, Role
from gateway.model.messages import Answer, Failure, FailureKind, LoadReport, Work

SUBMIT_LIMIT_BYTES: Final = 8 * 1024 * 1024
"""With so much unsent, a replica takes no more requests: half of what would end the connection.

Refused rather than made to wait: `remaining_s` was true when the work was made, and would age here unseen.
"""


class Caller(Connection[ClientFrame, ServerFrame]):
    """One connection to one replica. `ready` resolves once: None when open, else why it never opened."""

    def __init__(
        self, secret: bytes, on_load: Callable[[LoadReport], None], on_lost: Callable[[], None], heartbeat_s: float
    ) -> None:
        """Takes who is told of each load report, and of the end of a connection that had been open."""
        handshake = Handshake(Role.CLIENT, secret, secrets.token_bytes(NONCE_BYTES))
        super().__init__(handshake, server_frames(), HANDSHAKE_S, heartbeat_s)
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
            if self._pending.pop(request_id, None) is not None:  # still there: nobody answered, the caller left
                self.send(Cancel(request_id))

    def opened(self) -> None:
        """The replica has proven itself."""
        if not self.ready.done():
            self.ready.set_result(None)

    def received(self, frame: ServerFrame) -> None:
        """Resolves a request, and passes the load report on. The answer to a forgotten request is only a load report.

        The owner is told in a turn of the loop of its own, before the caller resumes: what it raises is logged by the
        loop and harms no request.
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
        """Everyone who waits is answered now: the gateway may still have the time to try elsewhere."""
        pending, self._pending = self._pending, {}
        for future in pending.values():
            if not future.done():
                future.set_result(Failure(FailureKind.UNAVAILABLE, "the link was lost"))
        if not self.ready.done():
            self.ready.set_result(reason or HandshakeError("the connection ended during the handshake"))
        elif not self.ready.cancelled():
            self._on_lost()
