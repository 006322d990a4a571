"""Every case of h1spec (github.com/uNetworking/h1spec, its list of October 2024), by its name, on a real socket.

h1spec itself is a script for Deno, which no registry has: so its requests are here, and what it accepts for an answer.
Against a gateway that runs, `deno run --allow-net http_test.ts 127.0.0.1 8000` sends the same.
"""

from __future__ import annotations

import asyncio

import pytest
from served_app import Echo, serving

GET = "GET / HTTP/1.1\r\nHost: example.com\r\n"
POST = "POST / HTTP/1.1\r\nHost: example.com\r\n"
WHOLE = "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKS = "Transfer-Encoding: chunked\r\n\r\nc\r\nHellO world1\r\n0\r\n\r\n"

WAITS = {
    "Fragmented method": "G",
    "Fragmented URL 1": "GET ",
    "Fragmented URL 2": "GET /hello",
    "Fragmented URL 3": "GET /hello ",
    "Fragmented HTTP version": "GET /hello HTTP",
    "Fragmented request line": "GET /hello HTTP/1.1",
    "Fragmented request line newline 1": "GET /hello HTTP/1.1\r",
    "Fragmented request line newline 2": "GET /hello HTTP/1.1\r\n",
    "Fragmented field name": "GET /hello HTTP/1.1\r\nHos",
    "Fragmented field value 1": "GET /hello HTTP/1.1\r\nHost:",
    "Fragmented field value 2": "GET /hello HTTP/1.1\r\nHost: ",
    "Fragmented field value 3": "GET /hello HTTP/1.1\r\nHost: localhost",
    "Fragmented field value 4": "GET /hello HTTP/1.1\r\nHost: localhost\r",
    "Fragmented request": "GET /hello HTTP/1.1\r\nHost: localhost\r\n",
    "Fragmented request termination": "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r",
}
"""The beginnings of a request, for whose end a server waits."""

ANSWERED = {
    "Request with Expect header": (f"{GET}Expect: 100-continue\r\n\r\n", {100, 200}, None),
    "Valid GET request": (f"{GET}\r\n", {200}, None),
    "Valid GET request with edge cases": ("GET / HTTP/1.1\r\nhoSt:\texample.com\r\nempty:\r\n\r\n", {200}, None),
    "Empty header value": (f"{GET}X-Empty-Header: \r\n\r\n", {200}, None),
    "Valid POST request with body": (f"{POST}Content-Length: 5\r\n\r\nhello", {200}, b"hello"),
    "Chunked Transfer-Encoding": (f"{POST}{CHUNKS}", {200}, b"HellO world1"),
    "Request without HTTP version": ("GET / \r\n\r\n", {400}, None),
    "Invalid header characters": (f"{GET}X-Invalid[]: test\r\n\r\n", {400}, None),
    "Missing Host header": ("GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", {400}, None),
    "Multiple Host headers": (f"{GET}Host: example.org\r\n\r\n", {400}, None),
    "Overflowing negative Content-Length header": (f"{GET}Content-Length: -{'123456789' * 3}\r\n\r\n", {400}, None),
    "Negative Content-Length header": (f"{GET}Content-Length: -1234\r\n\r\n", {400}, None),
    "Non-numeric Content-Length header": (f"{GET}Content-Length: abc\r\n\r\n", {400}, None),
    "Header containing invalid control character": (f"{GET}X-Bad-Control-Char: test\x07\r\n\r\n", {400}, None),
    "Invalid HTTP version": ("GET / HTTP/9.9\r\nHost: example.com\r\n\r\n", {505}, None),
    "Invalid prefix of request": (f"Extra line{GET}\r\n", {400}, None),
    "Invalid line ending": (f"{GET}\rSome-Header: Test\r\n\r\n", {400}, None),
    "Conflicting Transfer-Encoding and Content-Length in varying case": (
        f"{POST}content-LengtH: 5\r\nTransFer-Encoding: chunked\r\n\r\nc\r\nHellO world1\r\n0\r\n\r\n",
        {400},
        None,
    ),
}
"""Requests, the statuses that each may have here (h1spec accepts more), and the body where it asks for one."""


@pytest.fixture
def echo() -> Echo:
    """An application that answers with the body, as h1spec wants it."""
    made = Echo()
    made.gate.set()
    return made


@pytest.mark.parametrize("name", WAITS)
async def test_a_beginning_is_waited_for(echo: Echo, name: str) -> None:
    """A part of a request has no answer; with the rest it has one."""
    begun = WAITS[name].encode()
    async with serving(echo) as served, served.client() as client:
        await client.send(begun)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not echo.scopes and not served.refused
        await client.send(WHOLE.encode()[len(begun) :])
        assert (await client.answer())[0] == 200
    assert [scope["path"] for scope in echo.scopes] == ["/hello"]


@pytest.mark.parametrize("name", ANSWERED)
async def test_a_request_has_the_status_that_h1spec_expects(echo: Echo, name: str) -> None:
    """A valid request is answered, with its body; one that is not valid is refused."""
    request, expected, echoed = ANSWERED[name]
    async with serving(echo) as served, served.client() as client:
        await client.send(request.encode())
        status, _, body = await client.answer()
    assert status in expected
    assert echoed in (None, body)


def test_no_case_is_left_out() -> None:
    """h1spec has 33 cases."""
    assert len(WAITS) + len(ANSWERED) == 33
