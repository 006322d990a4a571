"""HTTP/1.1 as RFC 9110 and RFC 9112 have it, on real sockets: framing, targets, versions, and the end of a connection.

The malformed requests are those of h1spec (github.com/uNetworking/h1spec) that a server may meet, and of their kind.
"""

from __future__ import annotations

import asyncio

import pytest
from served_app import BODY, CHUNKED, HEAD, WHOLE, Echo, is_problem, serving
from waiting import until
from worlds import OwnMetrics, world

from gateway.api import app
from gateway.api.access import Access
from gateway.api.connection import MAX_HEAD, Message, Receive, Send

UPGRADE = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"

MALFORMED = {
    "no version": b"GET / \r\n\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "text before the method": b"Extra lineGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a host of two words": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "two hosts in one header": b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "a host with a user": b"GET / HTTP/1.1\r\nHost: b@a\r\n\r\n",
    "a host whose port is none": b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
    "a host with a path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a whole URL with a user": b"GET http://b@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a header's name with brackets": b"GET / HTTP/1.1\r\nHost: a\r\nX[]: b\r\n\r\n",
    "a control character in a header": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x07\r\n\r\n",
    "a bare carriage return": b"GET / HTTP/1.1\r\nHost: a\r\n\rX: b\r\n\r\n",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "a length that is no number": HEAD + b"Content-Length: abc\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunks of another coding": CHUNKED.replace(b"chunked", b"gzip, chunked"),
    "two codings in two headers": CHUNKED.replace(b"chunked", b"gzip\r\nTransfer-Encoding: chunked"),
    "a chunk of 2 to the 64th bytes": CHUNKED.replace(b"5\r\n", b"10000000000000000\r\n"),
    "a chunk with a sign": CHUNKED.replace(b"5\r\n", b"+5\r\n"),
    "a chunk in another notation": CHUNKED.replace(b"5\r\n", b"0x5\r\n"),
    "a chunk that is longer than it says": CHUNKED.replace(b"hello", b"hello!"),
    "a chunk without its length": HEAD + b"Transfer-Encoding: chunked\r\n\r\nhello\r\n0\r\n\r\n",
    "half a head": b"GET / HTTP/1.1\r\nHost: a\r\n",
    "half a body": HEAD + b"Content-Length: 12\r\n\r\nhello",
    "half a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
    "a proxy's request": b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
}


@pytest.fixture
def echo() -> Echo:
    """An application that answers at once."""
    made = Echo()
    made.gate.set()
    return made


@pytest.mark.parametrize("request_", [WHOLE, CHUNKED, HEAD + b"\r\n"])
@pytest.mark.parametrize("in_parts", [False, True])
async def test_a_request_is_answered_however_it_is_cut(echo: Echo, request_: bytes, in_parts: bool) -> None:
    """A request has its answer and keeps its connection, whether it comes at once or byte by byte."""
    async with serving(echo) as served, served.client() as client:
        for _ in range(2):
            for part in [request_[at : at + 1] for at in range(len(request_))] if in_parts else [request_]:
                await client.send(part)
                if in_parts:
                    await asyncio.sleep(0)
            status, headers, body = await client.answer()
            assert status == 200 and body in (BODY, b"hello", b"") and "connection" not in headers


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("wish", [b"", UPGRADE])
async def test_what_is_not_http_is_a_problem(echo: Echo, name: str, wish: bytes) -> None:
    """Bytes that are no HTTP/1.1 request are a 400 in the contract's form, after which the connection ends.

    A wish to change the protocol, which is ignored, makes no difference.
    """
    async with serving(echo) as served, served.client() as client:
        await client.send(MALFORMED[name].replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\n" + wish))
        client.writer.write_eof()
        assert is_problem(await client.last_answer(), 400, "invalid_request")
        assert await client.ended() == b""
    assert served.refused == ["invalid_request"]


TOLD = {
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n", b"one Host header"),
    "a host that is none": (b"GET / HTTP/1.1\r\nHost: a b\r\n", b"no name or address"),
    "no host": (b"GET / HTTP/1.1\r\n", b"one Host header"),
    "another coding": (HEAD + b"Transfer-Encoding: gzip, chunked\r\n", b"chunked alone"),
    "a long header": (HEAD + b"X: " + b"a" * (MAX_HEAD + 1) + b"\r\n", b"target and headers"),
}


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.parametrize("wish", [b"", UPGRADE])
async def test_a_refused_head_is_told_what_is_wrong(echo: Echo, name: str, wish: bytes) -> None:
    """A head that the server refuses is told why, whether or not it wishes to change the protocol too."""
    head, why = TOLD[name]
    async with serving(echo) as served, served.client() as client:
        await client.send(head + wish + b"\r\n")
        status, _, body = await client.answer()
    assert status == (431 if "long" in name else 400) and why in body


@pytest.mark.parametrize("method", [b"MEET", b"get", b"\r\nFOO", b"M!", b"DESCRIBE"])
async def test_a_method_that_nobody_knows_is_a_501(echo: Echo, method: bytes) -> None:
    """A request of an unknown method is answered so, not as something that is no HTTP."""
    async with serving(echo) as served, served.client() as client:
        await client.send(method + b" /classify HTTP/1.1\r\nHost: a\r\n\r\n")
        assert is_problem(await client.answer(), 501, "method_not_implemented")
    assert served.refused == ["method_not_implemented"]


async def test_a_refused_request_is_told_apart_from_the_one_before_it(echo: Echo) -> None:
    """Bytes that are no HTTP are that, too, where a request comes before them in one piece."""
    async with serving(echo) as served, served.client() as client:
        await client.send(WHOLE + MALFORMED["another protocol"])
        assert (await client.answer())[0] == 200
        assert is_problem(await client.answer(), 400, "invalid_request")


ENDLESS = {
    "an extension of a chunk": b"5;a=" + b"b" * 2 * MAX_HEAD,
    "many extensions": b"5" + b";a=b" * MAX_HEAD,
    "zeros of a chunk's length": b"0" * 3 * MAX_HEAD,
    "a trailer": b"5\r\nhello\r\n0\r\nX: " + b"a" * 2 * MAX_HEAD,
    "many trailers": b"5\r\nhello\r\n0\r\n" + b"X: a\r\n" * MAX_HEAD,
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_what_stands_around_a_body_has_a_limit(echo: Echo, name: str) -> None:
    """A chunked body whose chunks say ever more of themselves, or whose trailers never end, is a 400."""
    sent = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + ENDLESS[name]
    async with serving(echo) as served, served.client() as client:
        for at in range(0, len(sent), 10_000):
            await client.send(sent[at : at + 10_000])
            await asyncio.sleep(0)
        assert is_problem(await client.answer(), 400, "invalid_request")


@pytest.mark.parametrize(
    "body",
    [
        b"5;a=" + b"b" * 2 * MAX_HEAD + b"\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\n" + b"X: a\r\n" * 10_000 + b"\r\n",
    ],
)
async def test_what_stands_around_a_body_has_its_limit_in_one_piece_too(echo: Echo, body: bytes) -> None:
    """A whole chunked body with much around its content is a 400 as well where all of it comes at once."""
    async with serving(echo) as served, served.client() as client:
        await client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        assert is_problem(await client.answer(), 400, "invalid_request")


async def test_a_body_of_the_smallest_chunks_is_read(echo: Echo) -> None:
    """A client that sends every byte as a chunk of its own, with an extension, has its answer."""
    body = b"a" * MAX_HEAD
    async with serving(echo) as served, served.client() as client:
        await client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(body), 1000):
            await client.send(b"1;a=b\r\na\r\n" * len(body[at : at + 1000]))
            await asyncio.sleep(0)
        await client.send(b"0\r\nX: a\r\n\r\n")
        assert (await client.answer())[::2] == (200, body)


@pytest.mark.parametrize(
    "host", [b"", b"a", b"A.b-c_d:80", b"a.:", b"127.0.0.1:8000", b"[::1]:8000", b"xn--4ca.example"]
)
async def test_a_host_of_any_form_reaches_the_application(echo: Echo, host: bytes) -> None:
    """A name or an address is a host, with a port, without one or with an empty one; so is none."""
    async with serving(echo) as served, served.client() as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        assert (await client.answer())[0] == 200


@pytest.mark.parametrize("version", ["0.9", "1.2", "2.0", "9.9"])
async def test_other_versions_are_not_supported(echo: Echo, version: str) -> None:
    """A request of another version of HTTP is a 505."""
    async with serving(echo) as served, served.client() as client:
        await client.send(b"GET / HTTP/" + version.encode() + b"\r\nHost: a\r\n\r\n")
        assert is_problem(await client.answer(), 505, "version_not_supported")
    assert served.refused == ["version_not_supported"]


@pytest.mark.parametrize("sent", [WHOLE, CHUNKED, WHOLE + CHUNKED, WHOLE.replace(b"1.1", b"1.0")])
async def test_a_half_closed_request_has_its_answer(echo: Echo, sent: bytes) -> None:
    """A client that has ended its side, as `nc -N` does, reads the answers of all that it has sent."""
    echo.gate.clear()
    async with serving(echo) as served, served.client() as client:
        await client.send(sent)
        client.writer.write_eof()
        await until(lambda: len(echo.scopes) == 1)
        echo.gate.set()
        for body in [one for one in (BODY, b"hello") if one in sent]:
            assert (await client.last_answer())[::2] == (200, body)
        assert await client.ended() == b""
        await until(lambda: served.server.connections == 0)
    assert echo.cancelled == 0 and served.refused == []


async def test_of_a_half_closed_connection_the_unfinished_request_alone_is_refused(echo: Echo) -> None:
    """A request that ends before it is whole is a 400; those before it are answered."""
    async with serving(echo) as served, served.client() as client:
        await client.send(WHOLE + WHOLE[:-3])
        client.writer.write_eof()
        assert (await client.last_answer())[::2] == (200, BODY)
        assert is_problem(await client.last_answer(), 400, "invalid_request")
        assert await client.ended() == b""


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * MAX_HEAD + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        HEAD + b"X: " + b"a" * MAX_HEAD + b"\r\n\r\n",
        HEAD + b"X: " + b"a" * 2 * MAX_HEAD,
        HEAD + b"X: " + b" " * 2 * MAX_HEAD + b"a\r\n\r\n",
    ],
)
@pytest.mark.parametrize("at_once", [10_000, 1_000_000])
async def test_a_head_over_the_limit_is_refused(echo: Echo, head: bytes, at_once: int) -> None:
    """Target and headers over the limit are a 431, also those that never end, however they are cut."""
    async with serving(echo) as served, served.client() as client:
        for at in range(0, len(head), at_once):
            await client.send(head[at : at + at_once])
            await asyncio.sleep(0)
        assert is_problem(await client.answer(), 431, "head_too_large")


@pytest.mark.parametrize("target", [b"*", b"http://gateway/a%20b?c=d", b"/a%20b?c=d#e"])
async def test_every_form_of_a_target_reaches_the_application(echo: Echo, target: bytes) -> None:
    """Path and query are found in a path, in a whole URL and in the asterisk of OPTIONS."""
    async with serving(echo) as served, served.client() as client:
        await client.send(b"OPTIONS " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer())[0] == 200
    (scope,) = echo.scopes
    assert (scope["path"], scope["query_string"]) in (("*", b""), ("/a b", b"c=d"))


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://other:8000/a?b=c", "/a", b"b=c"),
        (b"http://other:8000", "/", b""),
        (b"http://other:8000?b=/c", "/", b"b=/c"),
    ],
)
@pytest.mark.parametrize("head", [b" HTTP/1.1\r\nHost: gateway\r\n\r\n", b" HTTP/1.0\r\n\r\n"])
async def test_the_host_of_a_whole_url_replaces_the_header(
    echo: Echo, target: bytes, path: str, query: bytes, head: bytes
) -> None:
    """The application is told the authority of the target as the host, and no other (RFC 9112, section 3.2.2)."""
    async with serving(echo) as served, served.client() as client:
        await client.send(b"GET " + target + head)
        assert (await client.answer())[0] == 200
    (scope,) = echo.scopes
    assert [value for name, value in scope["headers"] if name == b"host"] == [b"other:8000"]
    assert (scope["path"], scope["query_string"]) == (path, query)


async def test_a_whole_url_of_no_host_is_refused(echo: Echo) -> None:
    """A URL without a host is a 400, and reaches no application."""
    async with serving(echo) as served, served.client() as client:
        await client.send(b"GET http:///a HTTP/1.1\r\nHost: gateway\r\n\r\n")
        assert is_problem(await client.answer(), 400, "invalid_request")
    assert not echo.scopes


async def test_a_whole_url_does_not_pass_for_an_allowed_host() -> None:
    """A gateway on loopback refuses the host of a whole URL, whatever the header says."""
    told = world()
    scrape, limits = OwnMetrics(told.catalog), told.catalog.limits
    application = app.build(told.service, scrape, limits, told.clock, access=Access.of("127.0.0.1", {}))
    async with serving(application) as served, served.client() as client:
        await client.send(b"GET http://evil.example/checkpoints HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.answer())[0] == 421
        await client.send(b"GET http://localhost/healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        assert (await client.answer())[0] == 200


async def test_an_upgrade_is_not_made(echo: Echo) -> None:
    """A request to change the protocol is answered in HTTP/1.1."""
    async with serving(echo) as served, served.client() as client:
        await client.send(HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 11\r\n\r\n" + BODY)
        assert (await client.answer())[::2] == (200, BODY)


@pytest.mark.parametrize("host", [b"", b"Host: a\r\n"])
async def test_an_upgrade_of_http_1_0_is_not_seen(host: bytes) -> None:
    """A request of HTTP/1.0 with such a wish is one of HTTP/1.0: no Host need be there, nothing comes in chunks."""

    async def parts(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"a" * 20, b"b" * 5):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with serving(parts) as served, served.client() as client:
        await client.send(b"POST / HTTP/1.0\r\n" + host + UPGRADE + b"Content-Length: 11\r\n\r\n" + BODY)
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close") and "transfer-encoding" not in headers
        assert await client.ended() == b"a" * 20 + b"b" * 5


@pytest.mark.parametrize("head", [b"POST / HTTP/1.0\r\n", HEAD + b"Connection: close\r\n"])
async def test_a_connection_ends_where_the_client_wants_it(echo: Echo, head: bytes) -> None:
    """HTTP/1.0, and `Connection: close`, end the connection after the answer."""
    async with serving(echo) as served, served.client() as client:
        await client.send(head + b"Content-Length: 11\r\n\r\n" + BODY)
        status, headers, body = await client.answer()
        assert (status, headers["connection"], body) == (200, "close", BODY)
        assert await client.ended() == b""


async def test_head_has_headers_only(echo: Echo) -> None:
    """A HEAD request is answered with the head of the answer."""
    async with serving(echo) as served, served.client() as client:
        await client.send(WHOLE.replace(b"POST", b"HEAD").replace(b"/ ", b"/ ", 1))
        await client.send(WHOLE.replace(b"POST", b"HEAD"))
        told = await client.reader.readuntil(b"\r\n\r\n") + await client.reader.readuntil(b"\r\n\r\n")
        assert told.count(b"HTTP/1.1 200 OK") == 2 and told.count(b"content-length: 11") == 2 and BODY not in told


@pytest.mark.parametrize("expects", [b"100-continue", b"100-Continue \t"])
async def test_expectations_are_answered_at_once(echo: Echo, expects: bytes) -> None:
    """A client that asks before it sends its body is told to go on at once."""
    async with serving(echo) as served, served.client() as client:
        await client.send(HEAD + b"Content-Length: 11\r\nExpect: " + expects + b"\r\n\r\n")
        assert (await client.answer())[0] == 100
        await client.send(BODY)
        assert (await client.answer())[::2] == (200, BODY)


async def test_http_1_0_has_no_expectations(echo: Echo) -> None:
    """A client of HTTP/1.0 gets no interim answer, whatever it expects (RFC 9110, sections 10.1.1 and 15.2)."""
    head = HEAD.replace(b"1.1", b"1.0") + b"Content-Length: 11\r\nExpect: 100-continue\r\n\r\n"
    async with serving(echo) as served, served.client() as client:
        await client.send(head + BODY)
        assert (await client.answer())[::2] == (200, BODY)
