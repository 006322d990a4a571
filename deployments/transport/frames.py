"""Defines the transport's frames and their bytes: a length of four bytes, big-endian, then one msgpack array.

Knows the types of `gateway.model.messages`, and nothing of sockets. Every size is checked before the body is read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, Generic, TypeAlias, TypeVar

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
