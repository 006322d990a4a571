"""One connection, seen from either end: handshake, then frames in and out, until something ends it.

The frames that one turn of the event loop produces leave in one write. Knows bytes, time and the transport; what a
frame means is for the two ends to say, in `peer.py` (the server's) and `caller.py` (the client's).
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Final, Generic, TypeVar, cast

from deployments.link.frames import ClientFrame, FrameReader, ProtocolError, ServerFrame, append_frame
from deployments.link.handshake import Handshake, HandshakeError

SILENT_BEATS: Final = 3
"""So many heartbeats without a byte, and the peer is dead.

Beats are counted, not seconds: after a stall of this process's own loop one beat is late, and a living peer is not
taken for dead because of it.
"""

UNSENT_LIMIT_BYTES: Final = 16 * 1024 * 1024
"""What may wait for a peer that does not read, beyond the kernel's buffer; past it the connection is ended."""

EAGER_FLUSH_BYTES: Final = 64 * 1024
"""More than this is sent at once: it gains nothing by waiting for company, and the bound above holds within a turn."""

OutT = TypeVar("OutT", bound=ClientFrame | ServerFrame)
InT = TypeVar("InT", bound=ClientFrame | ServerFrame)


class Connection(asyncio.Protocol, Generic[OutT, InT]):
    """The part of a connection that is the same at both ends.

    An end says what to do in `opened`, `received`, `beat` and `lost`. Nothing that a peer sends raises out of here: a
    bad handshake or frame ends this connection, with the reason given to `lost`.
    """

    def __init__(self, handshake: Handshake, reader: FrameReader[InT], handshake_s: float, beat_s: float) -> None:
        """Takes the seconds a handshake may last and the seconds between two beats. Needs a running loop."""
        self._loop = asyncio.get_running_loop()
        self._handshake = handshake
        self._reader = reader
        self._handshake_s = handshake_s
        self._beat_s = beat_s
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._outbox = bytearray()
        self._flush_due = False
        self._heard = False
        self._silent_beats = 0
        self._reason: Exception | None = None
        self.is_open = False
        self.closed = asyncio.Event()

    @abstractmethod
    def opened(self) -> None:
        """The peer has proven itself; frames may be sent from here on."""

    @abstractmethod
    def received(self, frame: InT) -> None:
        """A frame has come. May raise ProtocolError, which ends the connection."""

    @abstractmethod
    def beat(self) -> None:
        """A heartbeat has passed and the peer is not yet given up."""

    @abstractmethod
    def lost(self, reason: Exception | None) -> None:
        """The connection has ended, for this reason if there was one. Called once; nothing can be sent any more."""

    @property
    def unsent_bytes(self) -> int:
        """What waits here because the kernel has not taken it yet."""
        return len(self._outbox) + (self._transport.get_write_buffer_size() if self._transport else 0)

    def send(self, frame: OutT) -> None:
        """Queues a frame for the next turn of the loop, or sends a heap of them now; on a closed connection, nothing.

        Raises ProtocolError if the frame cannot be encoded; the connection lives on.
        """
        if not self.is_open:
            return
        append_frame(self._outbox, frame)
        if len(self._outbox) > EAGER_FLUSH_BYTES:
            self._flush()
        elif not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def hang_up(self) -> None:
        """Ends the connection when what was sent has left."""
        self._flush()
        self.is_open = False
        if self._transport is not None:
            self._transport.close()

    def abort(self, reason: Exception | None = None) -> None:
        """Ends the connection now; what has not left is dropped. The first reason given is the one that counts."""
        self._reason = self._reason or reason
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's: the socket is there; the handshake and its time begin."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are transports by duck type only
        self._timer = self._loop.call_later(self._handshake_s, self._handshake_late)
        self._transport.write(self._handshake.opening)

    def data_received(self, data: bytes) -> None:
        """asyncio's: some bytes, cut anywhere."""
        self._heard = True
        try:
            if not self._handshake.done:
                data = self._greet(data)
            for frame in self._reader.feed(data):
                if not self.is_open:
                    return
                self.received(frame)
        except (ProtocolError, HandshakeError) as error:
            self.abort(error)

    def eof_received(self) -> None:
        """asyncio's: the peer is gone. There is no half-open link: nobody would read the answers."""
        self.abort(None if self._handshake.done else HandshakeError("the peer hung up: another secret or version?"))

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's: the socket is closed, by whichever side."""
        self.is_open = False
        self._outbox.clear()
        if self._timer is not None:
            self._timer.cancel()
        self.closed.set()
        self.lost(self._reason or exc)

    def _greet(self, data: bytes) -> bytes:
        """Takes the handshake further; returns what belongs to the frames behind it."""
        assert self._transport is not None and self._timer is not None
        reply = self._handshake.feed(data)
        if reply:
            self._transport.write(reply)
        if not self._handshake.done or self._transport.is_closing():
            return b""
        self._timer.cancel()
        self._timer = self._loop.call_later(self._beat_s, self._beat)
        self.is_open = True
        self.opened()
        return self._handshake.leftover

    def _handshake_late(self) -> None:
        self.abort(HandshakeError(f"no proof from the peer within {self._handshake_s} s"))

    def _beat(self) -> None:
        self._silent_beats = 0 if self._heard else self._silent_beats + 1
        self._heard = False
        if self._silent_beats >= SILENT_BEATS:
            self.abort(ProtocolError(f"nothing heard for {SILENT_BEATS * self._beat_s:g} s"))
            return
        self._timer = self._loop.call_later(self._beat_s, self._beat)
        self.beat()

    def _flush(self) -> None:
        self._flush_due = False
        if self._transport is None or self._transport.is_closing() or not self._outbox:
            return
        data, self._outbox = self._outbox, bytearray()
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > UNSENT_LIMIT_BYTES:
            self.abort(ProtocolError(f"the peer does not read: more than {UNSENT_LIMIT_BYTES} bytes wait for it"))
