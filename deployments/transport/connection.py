"""What both ends of a connection have in common: a hello each way, then frames both ways until it ends.

A frame is a length of four bytes, big-endian, then one msgpack array; every size is checked before the body is read.
All frames of one turn of the event loop leave in one write. This module knows bytes, time and the socket; `server.py`
and `client.py` know what frames mean. The peer has been authenticated before: by TLS over TCP, by the folder of the
socket file on one host.
"""

from __future__ import annotations

import asyncio
import struct
from abc import abstractmethod
from collections.abc import Iterator
from typing import Final, Generic, TypeAlias, TypeVar, cast

from msgspec import Struct
from msgspec.msgpack import Decoder, Encoder

from gateway.model.messages import Answer, Delta, Failure, LoadReport, Work

MAX_FRAME_BYTES: Final = 4 * 1024 * 1024
"""Longest body of one frame. No checkpoint reads a text of nearly 4 MiB."""

_LENGTH: Final = struct.Struct(">I")
_HEADER_BYTES: Final = _LENGTH.size
_BLANK: Final = bytes(_HEADER_BYTES)


class ProtocolError(Exception):
    """Received bytes, or a value to be sent, are not a frame. Received ones end their connection, and only that."""


class FrameTooLong(ProtocolError):
    """A frame to be sent is longer than `MAX_FRAME_BYTES`. Nothing of it was written."""


class Submit(Struct, frozen=True, array_like=True, tag=0):
    """Sends a batch. The client chooses `id`, which names the batch on this connection until its `Done`."""

    id: int
    batch: tuple[Work, ...]


class Cancel(Struct, frozen=True, array_like=True, tag=1):
    """Cancels a batch. An unknown or finished one is no error, since the frames may cross."""

    id: int


class Ping(Struct, frozen=True, array_like=True, tag=2):
    """Asks whether the server is there. The answer is a `Pong`."""


class Done(Struct, frozen=True, array_like=True, tag=3):
    """Says how each request of a batch ended, in order, and how busy the replica is now."""

    id: int
    results: tuple[Answer | Failure, ...]
    load: LoadReport


class Pong(Struct, frozen=True, array_like=True, tag=4):
    """Says that the server is there, and how busy its replica is now."""

    load: LoadReport


class Draining(Struct, frozen=True, array_like=True, tag=5):
    """Asks for no new work: the server finishes what is under way, then closes."""

    load: LoadReport


class Progress(Struct, frozen=True, array_like=True, tag=6):
    """Passes on a delta of the answer to one request of a batch, by its place in it, before the batch's `Done`."""

    id: int
    place: int
    delta: Delta


ClientFrame: TypeAlias = Submit | Cancel | Ping
ServerFrame: TypeAlias = Done | Pong | Draining | Progress

_ENCODER: Final = Encoder()
_CLIENT_DECODER: Final[Decoder[ClientFrame]] = Decoder(ClientFrame)
_SERVER_DECODER: Final[Decoder[ServerFrame]] = Decoder(ServerFrame)


def append_frame(buffer: bytearray, frame: ClientFrame | ServerFrame) -> None:
    """Appends one frame to `buffer`, so that many frames leave in one write.

    Raises FrameTooLong, or ProtocolError for values that msgpack cannot encode (a lone surrogate, an integer beyond 64
    bits). The buffer is then unchanged.
    """
    start = len(buffer)
    buffer += _BLANK
    try:
        _ENCODER.encode_into(frame, buffer, start + _HEADER_BYTES)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        del buffer[start:]
        raise ProtocolError(f"a {type(frame).__name__} cannot be encoded ({type(error).__name__})") from error
    length = len(buffer) - start - _HEADER_BYTES
    if length > MAX_FRAME_BYTES:
        del buffer[start:]
        raise FrameTooLong(f"a {type(frame).__name__} of {length} bytes is longer than {MAX_FRAME_BYTES}")
    _LENGTH.pack_into(buffer, start, length)


FrameT = TypeVar("FrameT")


class FrameReader(Generic[FrameT]):
    """Finds the frames in a stream of bytes that arrives in any chunks. Holds at most one partial frame."""

    def __init__(self, decoder: Decoder[FrameT]) -> None:
        """Takes the decoder of the expected frames, as `client_frames` and `server_frames` do."""
        self._decoder = decoder
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[FrameT]:
        """Yields each frame that `data` completes, in order. Raises ProtocolError at the first malformed one.

        Exhaust or drop the iterator before the next call. After an error, feed no more: the frames' borders are lost.
        """
        buffer, start = self._buffer, 0
        buffer += data
        try:
            while len(buffer) - start >= _HEADER_BYTES:
                length: int = _LENGTH.unpack_from(buffer, start)[0]
                if length > MAX_FRAME_BYTES:
                    raise ProtocolError(f"a frame of {length} bytes is announced; {MAX_FRAME_BYTES} is the most")
                body = start + _HEADER_BYTES
                if len(buffer) < body + length:
                    return
                start = body + length
                yield self._decode(buffer[body:start])
        finally:
            del buffer[:start]

    def _decode(self, body: bytearray) -> FrameT:
        """Decodes one frame. Raises ProtocolError for msgspec's errors, bad UTF-8, and too deep nesting."""
        try:
            return self._decoder.decode(body)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"a malformed frame ({type(error).__name__})") from error


def client_frames() -> FrameReader[ClientFrame]:
    """Makes a reader of the frames that clients send, for the server."""
    return FrameReader(_CLIENT_DECODER)


def server_frames() -> FrameReader[ServerFrame]:
    """Makes a reader of the frames that servers send, for the client."""
    return FrameReader(_SERVER_DECODER)


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
