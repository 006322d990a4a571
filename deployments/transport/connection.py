"""What both ends of a connection have in common: a hello each way, then frames both ways until it ends.

All frames of one turn of the event loop leave in one write. This module knows bytes, time and the socket; `server.py`
and `client.py` know what frames mean. The peer has been authenticated before: by TLS over TCP, by the folder of the
socket file on one host.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Final, Generic, TypeVar, cast

from deployments.transport.frames import ClientFrame, FrameReader, ProtocolError, ServerFrame, append_frame

VERSION: Final = 6
"""Version of the frames. Raise it with any change to them, so that the two ends refuse each other, not misread."""

HELLO: Final = b"PNL" + bytes([VERSION])
"""The first bytes from each end.

A server sends it only after TLS or the folder has let the client in. So it also tells the client that its certificate
was accepted: TLS 1.3 lets a client begin before that is decided."""

HANDSHAKE_S: Final = 2.0
"""Longest time for a peer's TLS handshake, and again for its hello, in seconds."""

HUNG_UP: Final = "the peer hung up before its hello; its own log says why"
"""asyncio ends a failed TLS handshake without an alert, so this side cannot know what the peer refused."""

SILENT_BEATS: Final = 3
"""Heartbeats without a byte after which a peer counts as dead.

Heartbeats are counted, not seconds: when this process's own loop stalls, a heartbeat comes late, and a living peer must
not count as dead for that.
"""

UNSENT_LIMIT_BYTES: Final = 16 * 1024 * 1024
"""Most bytes that may wait for a peer that does not read, beyond the kernel's buffer. More ends the connection."""

EAGER_FLUSH_BYTES: Final = 64 * 1024
"""Queued bytes above which frames are sent at once: to wait gains nothing, and the limit above holds within a turn."""

OutT = TypeVar("OutT", bound=ClientFrame | ServerFrame)
InT = TypeVar("InT", bound=ClientFrame | ServerFrame)


class HandshakeError(Exception):
    """The peer is not one of ours, speaks another version, or is silent. The connection is closed."""


def hello_received(received: bytes) -> bool:
    """True if `received` begins with the hello, False while it still may. Raises HandshakeError if it cannot."""
    prefix = received[: len(HELLO)]
    if HELLO.startswith(prefix):
        return prefix == HELLO
    if prefix[:-1] == HELLO[:-1]:
        raise HandshakeError(f"the peer speaks version {prefix[-1]} of the transport, this side {VERSION}")
    raise HandshakeError("the peer does not speak the transport's protocol")


class Connection(asyncio.Protocol, Generic[OutT, InT]):
    """One end of a connection. Subclasses say what to do in `opened`, `received`, `beat` and `lost`.

    Nothing that a peer sends makes it raise: a bad hello or frame ends the connection, and `lost` gets the reason.
    """

    def __init__(self, reader: FrameReader[InT], handshake_s: float, beat_s: float) -> None:
        """Takes the seconds that a hello may take, and the seconds between heartbeats. Needs a running loop."""
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
        """Called after the peer's hello; frames may be sent from now on."""

    @abstractmethod
    def received(self, frame: InT) -> None:
        """Called for each frame. May raise ProtocolError, which ends the connection."""

    @abstractmethod
    def beat(self) -> None:
        """Called at each heartbeat while the peer counts as alive."""

    @abstractmethod
    def lost(self, reason: Exception | None) -> None:
        """Called once when the connection has ended, with the reason if there was one. Nothing can be sent any more."""

    @property
    def unsent_bytes(self) -> int:
        """The bytes that the kernel has not taken yet."""
        return len(self._outbox) + (self._transport.get_write_buffer_size() if self._transport else 0)

    def send(self, frame: OutT) -> None:
        """Queues a frame for the next turn of the loop, or sends at once if many wait. Drops it on a closed connection.

        Raises ProtocolError if the frame cannot be encoded; the connection stays open.
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
        """Ends the connection once all queued frames have left."""
        self._flush()
        self.is_open = False
        if self._transport is not None:
            self._transport.close()

    def abort(self, reason: Exception | None = None) -> None:
        """Ends the connection now and drops unsent frames. Only the first reason counts."""
        self._reason = self._reason or reason
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio when the socket is open and TLS is done, if used. Sends the hello and starts its timer."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are transports by duck type only
        self._timer = self._loop.call_later(self._handshake_s, self._handshake_late)
        self._transport.write(HELLO)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio with some bytes, cut anywhere."""
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
        """Called by asyncio when the peer has closed its side. Ends the connection, since nobody would read answers."""
        self.abort(None if self._greeted else HandshakeError(HUNG_UP))

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio when the socket is closed, by either side."""
        self.is_open = False
        self._outbox.clear()
        if self._timer is not None:
            self._timer.cancel()
        self.closed.set()
        self.lost(self._reason or exc)

    def _greet(self, data: bytes) -> bytes:
        """Waits for the whole hello; returns the bytes after it."""
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
