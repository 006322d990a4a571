"""Compression of bodies, by `Content-Encoding` and `Accept-Encoding`: it bounds what it decodes, and knows no JSON."""

from __future__ import annotations

import gzip
import re
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
_WINDOW: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 23}  # 8 MiB, the most by RFC 9659
_UNCHANGED = ("", "identity")


_LEVEL = 6  # of gzip: what it has by default
_CODING = re.compile(r"\s*([^;\s]+)\s*(?:;\s*q=([0-9.]+)\s*)?")


class DecodedTooLong(Exception):
    """The body has more bytes than the limit once it is decoded."""


class _Decoder(Protocol):
    """Decodes one member of a body, a bounded part at a time. `zlib` and `zstd` have it so."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def decoded(body: bytes, encoding: str, limit: int) -> bytes:
    """Decodes a body of this `Content-Encoding`, of which no more than `limit` bytes ever exist.

    Raises DecodedTooLong, UnsupportedEncoding (415), and InvalidRequest (400) if the data are damaged.
    """
    name = encoding.strip().lower().removeprefix("x-")
    if name in _UNCHANGED:
        return body
    if name not in ACCEPTED:
        raise UnsupportedEncoding(ACCEPTED)
    try:
        return _inflated(body, limit, _decoder_of_zstd if name == "zstd" else _decoder_of_gzip)
    except (zlib.error, zstd.ZstdError, EOFError):
        raise _damaged(name) from None


def takes_gzip(accept_encoding: str) -> bool:
    """True if the client's `Accept-Encoding` has gzip, or all, with a weight above 0."""
    weights: dict[str, str] = {}
    for one in accept_encoding.lower().split(","):
        if match := _CODING.fullmatch(one):
            weights.setdefault(match[1], match[2] or "1")
    weight = weights.get("gzip", weights.get("*", "0"))
    return weight.strip("0.") != ""


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
    raise EOFError


def _damaged(name: str) -> InvalidRequest:
    return InvalidRequest(f"the body is not whole {name}, which Content-Encoding says it is", malformed=True)
