"""Any header with any bytes: an answer of the contract, and never a fault of the gateway."""

from __future__ import annotations

import json

import pytest
from fakes import ANSWER
from served_app import Client, serving
from starlette.types import ASGIApp
from worlds import OwnMetrics, World, world

from gateway.api import app
from gateway.api.headers import KNOWN
from gateway.model.request import REQUEST_ID, TRACEPARENT, TRACESTATE

BODY = b'{"inputs": "a good film"}'
VALUES = (
    b"",
    b" ",
    b"\xe9",
    b"\xff\xfe",
    b"a b",
    b"a\tb",
    b"<script>",
    b"\xf0\x9f\x98\x80",
    b"0",
    b"-1",
    b"[",
    b"http://[",
    b"%",
    b"*",
    b"gzip;q=x",
    b"bytes=0-",
    b'W/"',
    b"x" * 5000,
)
NAMES = (
    *KNOWN.values(),
    *(REQUEST_ID, TRACEPARENT, TRACESTATE),
    *("Host", "Accept", "Accept-Encoding", "Content-Encoding", "Content-Type", "Expect", "Origin", "Referer", "Cookie"),
    *("If-None-Match", "Range", "Authorization", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "Connection"),
    *("Access-Control-Request-Method", "Access-Control-Request-Headers", "Upgrade", "TE", "Trailer", "Via", "Date"),
)
IDENTITY = frozenset((REQUEST_ID, TRACEPARENT, TRACESTATE))
NO_IDS = (
    *(b"", b"a b", b"\xe9", b"\xff", b"x" * 129, b"x" * 5000, b"<script>", b"a\tb", b"'", b'"', b"a\\b", b"`id`"),
    "\u00e9".encode(),
)


def application(told: World) -> ASGIApp:
    """Return the application over this world, which counts its records."""
    told.service.observers = (told.kept,)
    return app.build(told.service, OwnMetrics(told.catalog), told.catalog.limits, told.clock)


async def ask(client: Client, method: bytes, path: bytes, *headers: tuple[str, bytes]) -> tuple[int, dict[str, str]]:
    """Return the status and the headers of an answer, after checking that an error is a problem."""
    host = b"" if any(name == "Host" for name, _ in headers) else b"Host: gateway\r\n"
    lines = b"".join(b"%b: %b\r\n" % (name.encode(), value) for name, value in headers)
    length = b"Content-Length: %d\r\n" % len(BODY) if method == b"POST" else b""
    await client.send(b"%b %b HTTP/1.1\r\n%b%b%b\r\n" % (method, path, host, lines, length))
    await client.send(BODY if method == b"POST" else b"")
    status, told, body = await client.answer()
    if status == 100:
        status, told, body = await client.answer()
    if status >= 400:
        assert told["content-type"] == "application/problem+json"
        assert json.loads(body)["status"] == status
    return status, told


@pytest.mark.parametrize("name", NAMES)
async def test_any_header_is_answered(name: str) -> None:
    """Any bytes in any header are answered, or refused by a problem with an id; identity is never refused."""
    told = world(lambda checkpoint, work: ANSWER)
    async with serving(application(told)) as served:
        for value in VALUES:
            for method, path in ((b"POST", b"/classify"), (b"GET", b"/checkpoints"), (b"GET", b"/")):
                async with served.client() as client:
                    status, headers = await ask(client, method, path, (name, value))
                assert status < 500, (method, path, value)
                assert headers["x-request-id"].isascii()
                assert status == 200 or name not in IDENTITY


async def test_options_of_the_whole_server_are_answered() -> None:
    """`OPTIONS *` is answered with the methods there are."""
    async with serving(application(world())) as served, served.client() as client:
        status, headers = await ask(client, b"OPTIONS", b"*")
    assert (status, headers["allow"], len(headers["x-request-id"])) == (204, "GET, HEAD, OPTIONS, POST", 32)


@pytest.mark.parametrize("value", NO_IDS)
async def test_an_id_that_cannot_be_used_is_replaced(value: bytes) -> None:
    """An id that is not 1 to 128 harmless characters is replaced on every path, in the record too."""
    told = world(lambda checkpoint, work: ANSWER)
    async with serving(application(told)) as served, served.client() as client:
        for method, path in ((b"GET", b"/healthz"), (b"GET", b"/nowhere"), (b"POST", b"/classify"), (b"POST", b"/")):
            _, headers = await ask(client, method, path, (REQUEST_ID, value))
            made = headers["x-request-id"]
            assert len(made) == 32 and made.isalnum()
            if path == b"/classify":
                assert told.kept.records[-1].request_id == made


async def test_two_ids_are_no_id() -> None:
    """Two ids that differ are replaced by one; two that are equal are one."""
    told = world(lambda checkpoint, work: ANSWER)
    async with serving(application(told)) as served, served.client() as client:
        for other, kept in ((b"a", True), (b"b", False)):
            _, headers = await ask(client, b"POST", b"/classify", (REQUEST_ID, b"a"), (REQUEST_ID, other))
            assert (headers["x-request-id"] == "a") is kept
