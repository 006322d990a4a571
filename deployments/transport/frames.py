"""The frames of the transport and how they become bytes: four bytes of length, big-endian, then one msgpack array.

Knows the nouns of `gateway.model.messages` and nothing of sockets. Every size is bounded before a byte of the body is
looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, Generic, TypeAlias, TypeVar

from msgspec import Struct
from msgspec.msgpack import Decoder, Encoder

from gateway.model.messages import Answer, Failure, LoadReport, Work

MAX_FRAME_BYTES: Final = 4 * 1024 * 1024
"""The longest body of one frame. A request of 4 MiB of text is far past what any checkpoint reads."""

_LENGTH: Final = struct.Struct(">I")
_HEADER_BYTES: Final = _LENGTH.size
_BLANK: Final = bytes(_HEADER_BYTES)


class ProtocolError(Exception):
    """What was received, or was to be sent, is no frame. It ends the connection it came by, and only that."""


class FrameTooLong(ProtocolError):
    """A frame to be sent is longer than `MAX_FRAME_BYTES`; nothing of it was written."""


class Submit(Struct, frozen=True, array_like=True, tag=0):
    """Do this work. The client chooses `id`; it names the request on this connection until its `Done`."""

    id: int
    work: Work


class Cancel(Struct, frozen=True, array_like=True, tag=1):
    """Nobody waits for this request any more. Cancelling what is unknown or finished is no error: the two may cross."""

    id: int


class Ping(Struct, frozen=True, array_like=True, tag=2):
    """Are you there? A `Pong` is the answer."""


class Done(Struct, frozen=True, array_like=True, tag=3):
    """How a request ended, and how busy the replica is now."""

    id: int
    result: Answer | Failure
    load: LoadReport


class Pong(Struct, frozen=True, array_like=True, tag=4):
    """I am here, and this busy."""

    load: LoadReport


class Draining(Struct, frozen=True, array_like=True, tag=5):
    """No new work, please: what is under way will be finished, then this side closes."""

    load: LoadReport


ClientFrame: TypeAlias = Submit | Cancel | Ping
ServerFrame: TypeAlias = Done | Pong | Draining

_ENCODER: Final = Encoder()
_CLIENT_DECODER: Final[Decoder[ClientFrame]] = Decoder(ClientFrame)
_SERVER_DECODER: Final[Decoder[ServerFrame]] = Decoder(ServerFrame)


def append_frame(buffer: bytearray, frame: ClientFrame | ServerFrame) -> None:
    """Writes one frame behind what `buffer` holds, so that many frames leave in one write.

    Raises FrameTooLong, or ProtocolError for values that msgpack cannot carry (a lone surrogate, an integer past 64
    bits); the buffer is then as it was.
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
    """Finds the frames in a stream of bytes, however it was cut into chunks. Holds at most one partial frame."""

    def __init__(self, decoder: Decoder[FrameT]) -> None:
        """Takes the decoder of the frames this side expects; `client_frames` and `server_frames` know which."""
        self._decoder = decoder
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[FrameT]:
        """Yields each frame that `data` completes, in order. Raises ProtocolError at the first that is none.

        Exhaust or drop the iterator before the next call. After an error the stream has lost its place: feed no more.
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
        """One typed frame. ValueError: msgspec's own errors and bad UTF-8; RecursionError: nesting past the stack."""
        try:
            return self._decoder.decode(body)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"a malformed frame ({type(error).__name__})") from error


def client_frames() -> FrameReader[ClientFrame]:
    """A reader of what clients send: the server's ear."""
    return FrameReader(_CLIENT_DECODER)


def server_frames() -> FrameReader[ServerFrame]:
    """A reader of what servers send: the client's ear."""
    return FrameReader(_SERVER_DECODER)
