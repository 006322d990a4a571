"""Compression of bodies: it bounds what it decodes, and knows no JSON."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Protocol

from backports import zstd

from gateway.model.errors import InvalidRequest, UnsupportedEncoding

ACCEPTED = ("gzip", "deflate", "zstd", "identity")
"""The encodings of a request's body that are read."""

MOST_MEMBERS = 16
"""Members of a gzip body, or frames of a zstd one, each of which may be compressed apart. Programs write one."""

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32  # by the header, which the data begin with
_WINDOW_LOG = 23  # 8 MiB, the most by RFC 9659
_WINDOW: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
_LIMITS = (
    ("too much memory", f"may have a window of at most {1 << _WINDOW_LOG >> 20} MiB (RFC 9659)"),
    ("Dictionary mismatch", "may not need a dictionary"),
    ("Error 2 ", "may not need a dictionary"),
)
"""What zstd and zlib say of data that may be whole and are not decoded, and the limit that those break."""

_UNCHANGED = ("", "identity")
_LEVEL = 6  # of gzip: what it has by default


class DecodedTooLong(Exception):
    """The body has more bytes than the limit once it is decoded."""


class _TooManyMembers(Exception):
    """The body has more members than are read."""


class _Decoder(Protocol):
    """Decodes one member of a body, a bounded part at a time. `zlib` and `zstd` have it so."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def decoded(body: bytes, encoding: str, limit: int) -> bytes:
    """Decodes a body of this `Content-Encoding`, of which no more than `limit` bytes ever exist.

    Raises DecodedTooLong, UnsupportedEncoding (415), and InvalidRequest (400) if the data are damaged, or are whole but
    break a limit.
    """
    name = checked(encoding)
    if name in _UNCHANGED:
        return body
    try:
        return _inflated(body, limit, _decoder_of_zstd if name == "zstd" else _decoder_of_gzip)
    except _TooManyMembers:
        raise _refused(f"a body whose Content-Encoding is {name} may have at most {MOST_MEMBERS} members") from None
    except (zlib.error, zstd.ZstdError, EOFError) as error:
        for told, limit_of_it in _LIMITS:
            if told in str(error):
                raise _refused(f"a body whose Content-Encoding is {name} {limit_of_it}") from None
        raise _refused(f"the body is not whole {name}, which Content-Encoding says it is") from None


def checked(encoding: str) -> str:
    """Returns the name of a body's encoding, without its old prefix. Raises UnsupportedEncoding (415)."""
    name = encoding.strip().lower().removeprefix("x-")
    if name not in (*ACCEPTED, *_UNCHANGED):
        raise UnsupportedEncoding(ACCEPTED)
    return name


def packed(content: bytes) -> bytes:
    """Compresses by gzip: equal content to equal bytes."""
    return gzip.compress(content, _LEVEL, mtime=0)


def _decoder_of_gzip() -> _Decoder:
    return zlib.decompressobj(_GZIP_OR_ZLIB)


def _decoder_of_zstd() -> _Decoder:
    return zstd.ZstdDecompressor(options=_WINDOW)


def _inflated(body: bytes, limit: int, decoder_of_a_member: Callable[[], _Decoder]) -> bytes:
    parts: list[bytes] = []
    left, room = body, limit
    for _ in range(MOST_MEMBERS):
        decoder = decoder_of_a_member()
        parts.append(decoder.decompress(left, room + 1))
        room -= len(parts[-1])
        if room < 0:
            raise DecodedTooLong
        if not decoder.eof:
            raise EOFError
        left = decoder.unused_data
        if not left:
            return b"".join(parts)
    raise _TooManyMembers


def _refused(detail: str) -> InvalidRequest:
    return InvalidRequest(detail, malformed=True)
