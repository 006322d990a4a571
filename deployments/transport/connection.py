"""One connection, seen from either end: a hello each way, then frames in and out, until something ends it.

All frames of one turn of the event loop leave in one write. This module knows bytes, time and the socket; what a frame
means is for the two ends to say, `server.py` and `client.py`. Who the peer is was settled before: over TCP by TLS, on
one host by the folder of the socket file.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Final, Generic, TypeVar, cast

from deployments.transport.frames import ClientFrame, FrameReader, ProtocolError, ServerFrame, append_frame

VERSION: Final = 3
"""Raise it with any change of the frames: both ends then refuse each other instead of misreading."""

HELLO: Final = b"PNL" + bytes([VERSION])
"""What each end says first. A server says it only to a client that TLS or the folder let in, so its hello is also the
client's sign that its own certificate was accepted: TLS 1.3 lets the client begin before that is decided."""

HANDSHAKE_S: Final = 2.0
"""The longest a peer may take for its TLS handshake, and again for its hello, in seconds."""

HUNG_UP: Final = "the peer hung up before its hello; its own log says why"
"""asyncio closes a failed TLS handshake without an alert, so this side cannot know what the peer refused."""

SILENT_BEATS: Final = 3
"""After this many heartbeats without a byte the peer counts as dead.

Beats are counted, not seconds: after a stall of this process's own loop one beat is late, and a living peer is not
taken for dead because of it.
"""

UNSENT_LIMIT_BYTES: Final = 16 * 1024 * 1024
"""What may wait for a peer that does not read, beyond the kernel's buffer; past it the connection is ended."""

EAGER_FLUSH_BYTES: Final = 64 * 1024
"""More than this is sent at once: waiting for more frames gains nothing, and the bound above holds within a turn."""

OutT = TypeVar("OutT", bound=ClientFrame | ServerFrame)
InT = TypeVar("InT", bound=ClientFrame | ServerFrame)


class HandshakeError(Exception):
    """The peer cannot be talked to: not one of ours, another version, or silent. The connection is closed."""


def hello_received(received: bytes) -> bool:
    """True once `received` begins with the hello, False while it still may. Raises HandshakeError if it cannot."""
    prefix = received[: len(HELLO)]
    if HELLO.startswith(prefix):
        return prefix == HELLO
    if prefix[:-1] == HELLO[:-1]:
        raise HandshakeError(f"the peer speaks version {prefix[-1]} of the transport, this side {VERSION}")
    raise HandshakeError("the peer does not speak the transport's protocol")


class Connection(asyncio.Protocol, Generic[OutT, InT]):
    """What both ends of a connection have in common.

    An end says what to do in `opened`, `received`, `beat` and `lost`. Nothing that a peer sends raises out of here: a
    bad hello or frame ends this connection, with the reason given to `lost`.
    """

    def __init__(self, reader: FrameReader[InT], handshake_s: float, beat_s: float) -> None:
        """Takes the seconds a hello may take and the seconds between two beats. Needs a running loop."""
        self._loop = asyncio.get_running_loop()
        self._reader = reader
        self._handshake_s = handshake_s
        self._beat_s = beat_s
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._hello = b""
        self._greeted = False
        self._outbox = bytearray()
        self._flush_due = False
        self._heard = False
        self._silent_beats = 0
        self._reason: Exception | None = None
        self.is_open = False
        self.closed = asyncio.Event()

    @abstractmethod
    def opened(self) -> None:
        """The peer has said hello; frames may be sent from here on."""

    @abstractmethod
    def received(self, frame: InT) -> None:
        """A frame has come. May raise ProtocolError, which ends the connection."""

    @abstractmethod
    def beat(self) -> None:
        """A heartbeat has passed and the peer still counts as alive."""

    @abstractmethod
    def lost(self, reason: Exception | None) -> None:
        """The connection has ended, for this reason if there was one. Called once; nothing can be sent any more."""

    @property
    def unsent_bytes(self) -> int:
        """What waits here because the kernel has not taken it yet."""
        return len(self._outbox) + (self._transport.get_write_buffer_size() if self._transport else 0)

    def send(self, frame: OutT) -> None:
        """Queues a frame for the next turn of the loop, or sends many of them now; on a closed connection, nothing.

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
        """Ends the connection now and drops what has not left. The first reason given is the one that counts."""
        self._reason = self._reason or reason
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's: the socket is there, and TLS is done where there is TLS; the hello and its time begin."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are transports by duck type only
        self._timer = self._loop.call_later(self._handshake_s, self._handshake_late)
        self._transport.write(HELLO)

    def data_received(self, data: bytes) -> None:
        """asyncio's: some bytes, cut anywhere."""
        self._heard = True
        try:
            if not self._greeted:
                data = self._greet(data)
            for frame in self._reader.feed(data):
                if not self.is_open:
                    return
                self.received(frame)
        except (ProtocolError, HandshakeError) as error:
            self.abort(error)

    def eof_received(self) -> None:
        """asyncio's: the peer is gone. No connection is kept half open: nobody would read the answers."""
        self.abort(None if self._greeted else HandshakeError(HUNG_UP))

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's: the socket is closed, by whichever side."""
        self.is_open = False
        self._outbox.clear()
        if self._timer is not None:
            self._timer.cancel()
        self.closed.set()
        self.lost(self._reason or exc)

    def _greet(self, data: bytes) -> bytes:
        """Waits for the whole hello; returns what stands behind it, the first frames."""
        assert self._transport is not None and self._timer is not None
        self._hello += data
        if not hello_received(self._hello) or self._transport.is_closing():
            return b""
        self._greeted = True
        self._timer.cancel()
        self._timer = self._loop.call_later(self._beat_s, self._beat)
        self.is_open = True
        self.opened()
        return self._hello[len(HELLO) :]

    def _handshake_late(self) -> None:
        self.abort(HandshakeError(f"no hello from the peer within {self._handshake_s:g} s"))

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
