"""Bodies that are compressed: decoded within the limits, or refused by what is wrong with them."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable

import pytest
from backports import zstd
from fakes import ANSWER, scripted
from served_app import serving
from worlds import SMALL, OwnMetrics, gateway, is_problem, world

from gateway.api import app
from gateway.api.encodings import MOST_MEMBERS, DecodedTooLong, decoded

pytestmark = pytest.mark.virtual_time

BODY = json.dumps({"inputs": "a good film"}).encode()
PACKED = gzip.compress(BODY, mtime=0)
PACKED_BY_ZSTD = zstd.compress(BODY)
DICTIONARY = zstd.train_dict([b"a good film %d" % at for at in range(999)], 999)


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
        ("zstd", zstd.compress(BODY)),
        ("zstd", zstd.compress(BODY[:9]) + zstd.compress(BODY[9:])),
    ],
)
async def test_a_compressed_body_is_read(encoding: str, content: bytes) -> None:
    """A body in an accepted encoding is answered as if it had come plain."""
    told, client = gateway(scripted(ANSWER))
    response = await client.post("/classify", content=content, headers={"Content-Encoding": encoding})
    assert response.status_code == 200 and told.backend.dispatches[0].work.inputs == ("a good film",)


@pytest.mark.parametrize("encoding", ["br", "compress", "gzip, gzip", "gzip, identity", "nonsense", "\u00e9"])
async def test_another_encoding_is_refused_with_those_that_are_read(encoding: str) -> None:
    """Another encoding is a 415 whose `Accept-Encoding` and members have those that are read."""
    _, client = gateway()
    response = await client.post("/classify", content=PACKED, headers={b"Content-Encoding": encoding.encode("latin-1")})
    assert is_problem(response, "unsupported_encoding", 415)
    assert response.headers["Accept-Encoding"] == "gzip, deflate, zstd, identity"
    assert response.json()["accepted"] == ["gzip", "deflate", "zstd", "identity"]


def of_a_wide_window() -> bytes:
    """A whole zstd body whose decoder would need 16 MiB, however little it says."""
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 24})
    return compressor.compress(BODY) + compressor.flush()


def damaged(whole: bytes) -> list[bytes]:
    """A compressed body, damaged in several ways."""
    return [b"", BODY, whole[:-1], whole[:12], whole + b"x", whole[:10] + b"\xff" * 20]


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        *(("gzip", one) for one in damaged(PACKED)),
        *(("zstd", one) for one in [*damaged(PACKED_BY_ZSTD), of_a_wide_window()]),
    ],
)
async def test_damaged_data_are_a_400(encoding: str, content: bytes) -> None:
    """Data that are not whole, or not of their encoding, or ask for more memory than HTTP allows, are a 400."""
    _, client = gateway()
    response = await client.post("/classify", content=content, headers={"Content-Encoding": encoding})
    assert is_problem(response, "invalid_request", 400)
    assert "Content-Encoding" in response.json()["detail"]


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
async def test_a_bomb_is_a_413(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    """A body that is over the limit once it is decoded is the same 413 as one that comes so."""
    _, client = gateway()
    bomb = compress(b'{"inputs": "' + b"a" * 800_000 + b'"}')
    assert len(bomb) < 1000
    response = await client.post("/classify", content=bomb, headers={"Content-Encoding": encoding})
    assert is_problem(response, "input_too_long", 413)
    assert (response.json()["limit"], response.json()["unit"]) == (1000, "bytes")


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
def test_no_more_than_the_limit_is_ever_decoded(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    """A body of exactly the limit is decoded, one byte more is refused, also when members add up to it."""
    assert decoded(compress(b"a" * 100), encoding, 100) == b"a" * 100
    for content in (compress(b"a" * 101), compress(b"a" * 60) * 2):
        with pytest.raises(DecodedTooLong):
            decoded(content, encoding, 100)


@pytest.mark.parametrize("members", [MOST_MEMBERS, MOST_MEMBERS + 1])
async def test_members_are_bounded(members: int) -> None:
    """A body of more gzip members than programs write is a 400, since each costs time of its own."""
    _, client = gateway()
    content = PACKED + gzip.compress(b"", mtime=0) * (members - 1)
    response = await client.post("/classify", content=content, headers={"Content-Encoding": "gzip"})
    assert response.status_code == (200 if members == MOST_MEMBERS else 400)
    if members > MOST_MEMBERS:
        assert f"at most {MOST_MEMBERS} members" in response.json()["detail"]


def needing_a_dictionary() -> bytes:
    """A whole zlib body that only a reader with the same dictionary can decode."""
    compressor = zlib.compressobj(zdict=b"a good film")
    return compressor.compress(BODY) + compressor.flush()


@pytest.mark.parametrize(
    ("encoding", "content", "limit"),
    [
        ("zstd", of_a_wide_window(), "a window of at most 8 MiB"),
        ("zstd", zstd.compress(BODY, zstd_dict=DICTIONARY), "not need a dictionary"),
        ("deflate", needing_a_dictionary(), "not need a dictionary"),
    ],
)
async def test_a_whole_body_is_told_the_limit_that_it_breaks(encoding: str, content: bytes, limit: str) -> None:
    """A body that is whole, and is refused for what its decoder would need, is not called broken."""
    _, client = gateway()
    response = await client.post("/classify", content=content, headers={"Content-Encoding": encoding})
    assert is_problem(response, "invalid_request", 400)
    assert limit in response.json()["detail"] and "whole" not in response.json()["detail"]


async def test_an_encoding_that_is_not_read_is_refused_before_the_body_is_sent() -> None:
    """A client that asks before it sends its body is told at once that its encoding is not read."""
    told, limits = world(), SMALL
    application = app.build(told.service, OwnMetrics(told.catalog), limits, told.clock)
    async with serving(application) as served, served.client() as client:
        await client.send(
            b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n"
            b"Expect: 100-continue\r\nContent-Encoding: br\r\n\r\n"
        )
        assert (await client.answer())[0] == 415
