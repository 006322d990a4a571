"""Compression of bodies, by `Content-Encoding` and `Accept-Encoding`: it bounds what it decodes, and knows no JSON."""

from __future__ import annotations

import gzip
import re
import zlib

from gateway.model.errors import InvalidRequest, UnsupportedEncoding

ACCEPTED = ("gzip", "deflate", "identity")
"""The encodings of a request's body that are read; Python has no Zstandard before 3.14."""

MOST_MEMBERS = 16
"""Members of one gzip body, each of which may be compressed apart. Programs write one."""

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32  # by the header, which the data begin with
_UNCHANGED = ("", "identity")


_LEVEL = 6  # of gzip: what it has by default
_CODING = re.compile(r"\s*([^;\s]+)\s*(?:;\s*q=([0-9.]+)\s*)?")


class DecodedTooLong(Exception):
    """The body has more bytes than the limit once it is decoded."""


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
        return _inflated(body, limit)
    except zlib.error:
        raise _damaged(name) from None
    except EOFError:
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


def _inflated(body: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    left, room = body, limit
    for _ in range(MOST_MEMBERS):
        decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
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
