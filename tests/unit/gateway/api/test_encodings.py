"""Bodies that are compressed: decoded within the limits, or refused by what is wrong with them."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest
from fakes import ANSWER, scripted
from worlds import gateway, is_problem

from gateway.api.encodings import MOST_MEMBERS, DecodedTooLong, decoded

pytestmark = pytest.mark.virtual_time

BODY = json.dumps({"inputs": "a good film"}).encode()
PACKED = gzip.compress(BODY, mtime=0)


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("", BODY),
        ("identity", BODY),
        ("gzip", PACKED),
        ("GZIP ", PACKED),
        ("x-gzip", PACKED),
        ("deflate", zlib.compress(BODY)),
        ("gzip", gzip.compress(BODY[:9], mtime=0) + gzip.compress(BODY[9:], mtime=0)),
    ],
)
async def test_a_compressed_body_is_read(encoding: str, content: bytes) -> None:
    """A body in an accepted encoding is answered as if it had come plain."""
    told, client = gateway(scripted(ANSWER))
    response = await client.post("/classify", content=content, headers={"Content-Encoding": encoding})
    assert response.status_code == 200 and told.backend.dispatches[0].work.inputs == ("a good film",)


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "gzip, identity", "nonsense", "\u00e9"])
async def test_another_encoding_is_refused_with_those_that_are_read(encoding: str) -> None:
    """Another encoding is a 415 whose `Accept-Encoding` and members have those that are read."""
    _, client = gateway()
    response = await client.post("/classify", content=PACKED, headers={b"Content-Encoding": encoding.encode("latin-1")})
    assert is_problem(response, "unsupported_encoding", 415)
    assert response.headers["Accept-Encoding"] == "gzip, deflate, identity"
    assert response.json()["accepted"] == ["gzip", "deflate", "identity"]


@pytest.mark.parametrize("content", [b"", BODY, PACKED[:-1], PACKED[:12], PACKED + b"x", PACKED[:10] + b"\xff" * 20])
async def test_damaged_data_are_a_400(content: bytes) -> None:
    """Data that are not whole, or not of their encoding, are a 400 that says so."""
    _, client = gateway()
    response = await client.post("/classify", content=content, headers={"Content-Encoding": "gzip"})
    assert is_problem(response, "invalid_request", 400)
    assert "Content-Encoding" in response.json()["detail"]


async def test_a_bomb_is_a_413() -> None:
    """A body that is over the limit once it is decoded is the same 413 as one that comes so."""
    _, client = gateway()
    bomb = gzip.compress(b'{"inputs": "' + b"a" * 800_000 + b'"}', mtime=0)
    assert len(bomb) < 1000
    response = await client.post("/classify", content=bomb, headers={"Content-Encoding": "gzip"})
    assert is_problem(response, "input_too_long", 413)
    assert (response.json()["limit"], response.json()["unit"]) == (1000, "bytes")


def test_no_more_than_the_limit_is_ever_decoded() -> None:
    """A body of exactly the limit is decoded, one byte more is refused, also when members add up to it."""
    assert decoded(gzip.compress(b"a" * 100, mtime=0), "gzip", 100) == b"a" * 100
    for content in (gzip.compress(b"a" * 101, mtime=0), gzip.compress(b"a" * 60, mtime=0) * 2):
        with pytest.raises(DecodedTooLong):
            decoded(content, "gzip", 100)


@pytest.mark.parametrize("members", [MOST_MEMBERS, MOST_MEMBERS + 1])
async def test_members_are_bounded(members: int) -> None:
    """A body of more gzip members than programs write is a 400, since each costs time of its own."""
    _, client = gateway()
    content = PACKED + gzip.compress(b"", mtime=0) * (members - 1)
    response = await client.post("/classify", content=content, headers={"Content-Encoding": "gzip"})
    assert response.status_code == (200 if members == MOST_MEMBERS else 400)
