"""The HTTP server on real sockets: framing, limits of time and size, hang-ups, and its end."""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import AsyncExitStack, suppress

import pytest
from served_app import BODY, CHUNKED, HEAD, WHOLE, Client, Echo, Served, answer, is_problem, refuse, serving
from waiting import until

from gateway.api.connection import FIRST_BYTE, LEAST_READ, Message, Receive, Send, _address_of
from gateway.api.server import AT_ONCE, HttpServer, _ignore_new
from gateway.catalogs.catalog import Limits


@pytest.fixture
def echo() -> Echo:
    """An application that answers at once."""
    made = Echo()
    made.gate.set()
    return made


async def test_requests_sent_ahead_are_answered_in_their_order(echo: Echo) -> None:
    """A client that does not wait for answers has them all, in the order of its requests."""
    bodies = [b"%d" % number for number in range(100)]
    async with serving(echo) as served, served.client() as client:
        await client.send(b"".join(HEAD + b"Content-Length: %d\r\n\r\n" % len(one) + one for one in bodies))
        assert [(await client.answer())[2] for _ in bodies] == bodies


async def test_a_broken_request_does_not_cost_the_one_before_its_answer(echo: Echo) -> None:
    """A request under way is answered before the one behind it is refused."""
    echo.gate.clear()
    async with serving(echo) as served, served.client() as client:
        await client.send(WHOLE + HEAD.replace(b"gateway", b"a\r\nHost: b") + b"\r\n")
        await until(lambda: len(echo.scopes) == 1)
        echo.gate.set()
        assert (await client.answer())[::2] == (200, BODY)
        assert is_problem(await client.answer(), 400, "invalid_request")


async def test_a_body_that_is_refused_beforehand_is_never_sent() -> None:
    """A client that asks before it sends its body is refused at once, and the connection ends."""
    async with serving(refuse) as served, served.client() as client:
        await client.send(HEAD + b"Content-Length: 11000000\r\nExpect: 100-continue\r\n\r\n")
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (413, "close")


@pytest.mark.parametrize("length", [1_000, 8_000_000])
async def test_a_refusal_is_read_by_a_client_that_sends_first(length: int) -> None:
    """A client that reads only when its whole body is sent reads the refusal; a short body keeps the connection."""
    async with serving(refuse) as served, served.client() as client:
        for _ in range(2 if length == 1_000 else 1):
            await client.send(HEAD + b"Content-Length: %d\r\n\r\n" % length)
            await asyncio.sleep(0)
            await client.send(b"a" * length)
            status, headers, body = await client.answer()
            assert (status, body) == (413, b"too long")
            assert headers.get("connection") == (None if length == 1_000 else "close")


async def test_a_client_that_hangs_up_cancels_its_request(echo: Echo) -> None:
    """The work for a client that leaves is cancelled, within its body and after it."""
    echo.gate.clear()
    async with serving(echo) as served:
        for number, sent in enumerate((WHOLE, WHOLE[:-3]), start=1):
            async with served.client() as client:
                await client.send(sent)
                await until(lambda number=number: len(echo.scopes) == number)  # type: ignore[misc]
            await until(lambda number=number: echo.cancelled == number)  # type: ignore[misc]
        await until(lambda: served.server.connections == 0)


async def test_the_kernel_takes_little_of_an_answer_that_nobody_reads() -> None:
    """Of two large answers to a slow reader the second is not begun before the first is read; others have theirs."""
    begun: list[str] = []
    large = bytes(range(256)) * 2048

    async def told(scope: Message, receive: Receive, send: Send) -> None:
        begun.append(scope["path"])
        await answer(send, 200, BODY if scope["path"] == "/other" else large)

    loop = asyncio.get_running_loop()
    async with serving(told) as served, served.client() as other:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.setblocking(False)
            await loop.sock_connect(slow, ("127.0.0.1", served.server.port))
            await loop.sock_sendall(slow, b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % one for one in (1, 2)))
            await until(lambda: begun == ["/1"])
            await other.send(b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await other.answer())[2] == BODY and begun == ["/1", "/other"]
            read = b""
            async with asyncio.timeout(60):
                while read.count(large) < 2:
                    read += await loop.sock_recv(slow, 1 << 20)
        assert begun == ["/1", "/other", "/2"] and read.endswith(large)


async def test_a_slow_reader_that_reads_has_its_time_again() -> None:
    """A client that takes a long answer part by part keeps its connection; once it stops, it is let go."""

    async def told(scope: Message, receive: Receive, send: Send) -> None:
        await answer(send, 200, bytes(8 << 20))

    loop = asyncio.get_running_loop()
    async with serving(told) as served:
        with socket.socket() as slow:
            slow.setblocking(False)
            await loop.sock_connect(slow, ("127.0.0.1", served.server.port))
            await loop.sock_sendall(slow, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            await until(lambda: any(one._writable is not None for one in served.server._hub.open))
            (connection,) = served.server._hub.open
            for _ in range(3):
                left = connection._transport.get_write_buffer_size() - LEAST_READ
                while connection._transport.get_write_buffer_size() > left:
                    await loop.sock_recv(slow, 1 << 16)
                served.clock.advance(31.0)
                await until(lambda: connection.due_s > served.clock())
                assert served.server.connections == 1

            def let_go() -> bool:
                served.clock.advance(31.0)
                return served.server.connections == 0

            await until(let_go)


def waiting(served: Served) -> int:
    """The requests of all connections that are read and not answered."""
    return sum(len(one._exchanges) for one in served.server._hub.open)


async def test_a_reader_of_nothing_is_not_answered_request_by_request() -> None:
    """A client that sends one request after the other and reads no answer has one begun, and is let go in time."""
    begun: list[str] = []

    async def told(scope: Message, receive: Receive, send: Send) -> None:
        begun.append(scope["path"])
        await answer(send, 200, bytes(1 << 20))

    loop = asyncio.get_running_loop()
    async with serving(told) as served:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.setblocking(False)
            await loop.sock_connect(slow, ("127.0.0.1", served.server.port))
            for number in range(20):
                await loop.sock_sendall(slow, b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
                await until(lambda number=number: bool(begun) and waiting(served) == number)  # type: ignore[misc]
            assert begun == ["/0"]
            served.clock.advance(31.0)
            await until(lambda: served.server.connections == 0)
        assert begun == ["/0"]


async def test_a_request_begins_with_its_first_byte(echo: Echo) -> None:
    """The scope says when the request's first byte was read, however late the rest comes."""
    async with serving(echo) as served, served.client() as client:
        await client.send(WHOLE[:1])
        await until(lambda: busy(served))
        served.clock.advance(2.0)
        await client.send(WHOLE[1:])
        await client.answer()
        served.clock.advance(100.0)
        await client.send(WHOLE)
        await client.answer()
    assert [scope[FIRST_BYTE] for scope in echo.scopes] == [1000.0, 1102.0]


def busy(served: Served) -> bool:
    """True if a connection has begun to read a request."""
    return any(not connection.idle for connection in served.server._hub.open)


@pytest.mark.parametrize(
    ("sent", "seconds", "code"),
    [
        (b"", 76.0, None),
        (WHOLE[:9], 11.0, "request_timeout"),
        (WHOLE[:-3], 31.0, "request_timeout"),
        (CHUNKED[:-9], 31.0, "request_timeout"),
    ],
)
async def test_a_slow_client_is_told_and_let_go(echo: Echo, sent: bytes, seconds: float, code: str | None) -> None:
    """A client that is slow with its head or body has a 408; one that sends nothing is let go without a word."""
    async with serving(echo) as served, served.client() as client:
        await client.send(sent)
        await until(lambda: served.server.connections == 1 and busy(served) == bool(sent))
        served.clock.advance(seconds)
        if code is not None:
            assert is_problem(await client.answer(), 408, code)
        else:
            assert await client.ended() == b""
    assert echo.cancelled == (1 if len(sent) > 40 else 0)


@pytest.mark.parametrize("kept", [True, False])
async def test_a_client_may_wait_between_two_requests(echo: Echo, kept: bool) -> None:
    """A connection without a request stays open for `idle_timeout_s`, and no longer."""
    async with serving(echo, Limits(idle_timeout_s=75.0)) as served, served.client() as client:
        await client.send(WHOLE)
        await client.answer()
        served.clock.advance(74.0 if kept else 76.0)
        if kept:
            await client.send(WHOLE)
            assert (await client.answer())[0] == 200
        else:
            assert await client.ended() == b""


async def test_a_crowd_that_comes_or_ends_at_once_leaves_requests_their_turn(echo: Echo) -> None:
    """Of many connections that wait, or whose time is over, some are taken and some ended before other work goes on."""
    crowd = 3 * AT_ONCE
    async with serving(echo, Limits(header_timeout_s=10.0)) as served, AsyncExitStack() as open_ones:
        server = served.server
        for _ in range(crowd):
            waiting = open_ones.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            waiting.sendall(WHOLE[:20])
        server._accept(server._listeners[0])
        assert len(server._accepting) == AT_ONCE
        await until(lambda: sum(one._in_head for one in server._hub.open) == crowd)
        served.clock.advance(11.0)
        server._look()
        assert sum(one._ending for one in server._hub.open) == AT_ONCE
        await until(lambda: all(one._ending for one in server._hub.open))


async def test_work_takes_as_long_as_it_takes(echo: Echo) -> None:
    """No time limit of the server ends a request that is whole: its budget does."""
    echo.gate.clear()
    async with serving(echo) as served, served.client() as client:
        await client.send(WHOLE)
        await until(lambda: len(echo.scopes) == 1)
        served.clock.advance(100_000.0)
        for _ in range(2):
            latest = served.server._looking
            await until(lambda latest=latest: served.server._looking is not latest)  # type: ignore[misc]
        echo.gate.set()
        assert (await client.answer())[0] == 200


async def test_one_connection_too_many_is_told_so(echo: Echo) -> None:
    """A connection over the limit is a 503, and those before it are served on."""
    async with serving(echo, Limits(max_connections=1)) as served, served.client() as first:
        await until(lambda: served.server.connections == 1)
        async with served.client() as second:
            await second.send(WHOLE)
            told = await second.answer()
            assert is_problem(told, 503, "too_many_connections") and told[1]["retry-after"] == "1"
        await first.send(WHOLE)
        assert (await first.answer())[0] == 200


async def test_one_address_does_not_lock_out_the_others(echo: Echo) -> None:
    """A connection over the limit of its address is a 503, other addresses are served, and a place is free again."""
    async with serving(echo, Limits(max_connections_per_address=2)) as served:
        async with served.client() as one, served.client() as two:
            await until(lambda: served.server.connections == 2)
            async with served.client() as third, served.client("127.0.0.2") as other:
                await third.send(WHOLE)
                told = await third.answer()
                assert is_problem(told, 503, "too_many_connections") and b"from this address" in told[2]
                for client in (one, two, other):
                    await client.send(WHOLE)
                    assert (await client.answer())[0] == 200
        await until(lambda: served.server.connections == 0)
        assert not served.server._hub.by_address
        async with served.client() as again:
            await again.send(WHOLE)
            assert (await again.answer())[0] == 200


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (("127.0.0.1", 80), "127.0.0.1"),
        (("2001:db8::1", 80, 0, 0), "2001:db8::/64"),
        (("2001:db8::ffff:1", 80, 0, 0), "2001:db8::/64"),
        (("fe80::1%eth0", 80, 0, 2), "fe80::/64"),
        (None, ""),
        ("", ""),
    ],
)
def test_a_client_of_ipv6_is_its_network(peer: tuple[str, int] | None, address: str) -> None:
    """An address of IPv6 counts by its first 64 bits, which one client has to itself."""
    assert _address_of(peer) == address


async def test_draining_finishes_what_is_under_way(echo: Echo) -> None:
    """A drain answers what is under way and what is sent meanwhile, says that each answer is the last, and ends."""
    echo.gate.clear()
    async with serving(echo) as served, served.client() as busy, served.client() as idle, served.client() as late:
        await busy.send(WHOLE)
        await until(lambda: len(echo.scopes) == 1 and served.server.connections == 3)
        draining = asyncio.create_task(served.server.drain(0.5, 60.0))
        await until(lambda: served.server.draining)
        await late.send(WHOLE)
        await until(lambda: len(echo.scopes) == 2)
        assert await idle.ended() == b""
        echo.gate.set()
        for client in (busy, late):
            status, headers, body = await client.answer()
            assert (status, headers["connection"], body) == (200, "close", BODY)
            client.writer.close()
        await draining


async def test_a_client_that_reads_no_answer_gets_no_more_work_and_is_let_go(echo: Echo) -> None:
    """Requests of a client that reads no answers wait; it is let go after `body_timeout_s`, or served if it reads."""
    long = HEAD + b"Content-Length: 1000000\r\n\r\n" + b"a" * 1_000_000
    for reads in (True, False):
        echo.scopes.clear()
        async with serving(echo) as served, served.client() as client:
            sending = asyncio.create_task(client.send(long * 30))
            await until(lambda: any(one._writable is not None for one in served.server._hub.open))
            assert len(echo.scopes) < 30

            def let_go() -> bool:
                served.clock.advance(31.0)  # again and again: the kernel may still take some, though nobody reads
                return served.server.connections == 0

            if reads:
                for _ in range(30):
                    assert len((await client.answer())[2]) == 1_000_000
                await sending
            else:
                await until(let_go)
                assert len(echo.scopes) < 30
                sending.cancel()
                with suppress(ConnectionError, asyncio.CancelledError):
                    await sending


async def test_what_comes_behind_a_body_is_no_header(echo: Echo) -> None:
    """Trailers do not become headers of the request."""
    async with serving(echo) as served, served.client() as client:
        await client.send(CHUNKED[:-2] + b"X-Checkpoint: a\r\n\r\n")
        assert (await client.answer())[::2] == (200, b"hello")
    (scope,) = echo.scopes
    assert [name for name, _ in scope["headers"]] == [b"host", b"transfer-encoding"]


async def test_what_cannot_be_finished_is_told(echo: Echo) -> None:
    """A request that is not answered at the end of the drain has a 503, and its work is cancelled."""
    echo.gate.clear()
    async with serving(echo) as served, served.client() as client:
        await client.send(WHOLE)
        await until(lambda: len(echo.scopes) == 1)
        draining = asyncio.create_task(served.server.drain(0.0, 0.0))
        assert is_problem(await client.answer(), 503, "stopping")
        client.writer.close()
        await draining
    assert echo.cancelled == 1


async def test_two_servers_share_a_port_and_one_takes_over(echo: Echo) -> None:
    """Two servers listen on one port; while one ends, every new connection is answered."""
    other = Echo(gate=echo.gate)
    async with serving(echo) as served:
        second = HttpServer(other, Limits(), served.clock)
        await second.start("127.0.0.1", served.server.port)
        statuses: list[int] = []

        async def ask() -> None:
            async with served.client() as client:
                await client.send(WHOLE)
                statuses.append((await client.answer())[0])

        while not (echo.scopes and other.scopes):
            await ask()
        before = len(other.scopes)
        ending = asyncio.create_task(second.drain(0.0, 60.0))
        await asyncio.gather(*(ask() for _ in range(200)))
        await ending
        await ask()
        assert set(statuses) == {200}
        assert len(echo.scopes) + len(other.scopes) == len(statuses) and len(other.scopes) < before + 200


async def test_connections_that_wait_are_accepted_before_the_end(echo: Echo) -> None:
    """A connection that the kernel made before the port was closed is served."""
    async with serving(echo) as served:
        with socket.create_connection(("127.0.0.1", served.server.port)) as waiting:  # before the loop's next turn
            await served.server._close_listeners()
            waiting.setblocking(False)
            client = Client(*await asyncio.open_connection(sock=waiting))
            await client.send(WHOLE)
            assert (await client.answer())[0] == 200
            client.writer.close()


async def test_a_connection_that_begins_while_a_port_is_closed_reaches_the_next_server(echo: Echo) -> None:
    """A client that connects to a server that ends is neither refused nor reset: the server beside it answers."""
    async with serving(echo) as served:
        first = HttpServer(Echo(), Limits(), served.clock)
        await first.start("127.0.0.1", 0)
        port = first.port
        _ignore_new(first._listeners[0])
        connecting = socket.socket()
        connecting.setblocking(False)
        assert connecting.connect_ex(("127.0.0.1", port)) == errno.EINPROGRESS
        with pytest.raises(OSError, match="not connected"):
            connecting.getpeername()
        await served.server.start("127.0.0.1", port)
        await first.drain(0.0, 60.0)
        await asyncio.get_running_loop().sock_sendall(connecting, WHOLE)
        client = Client(*await asyncio.open_connection(sock=connecting))
        assert (await client.answer())[::2] == (200, BODY)
        client.writer.close()


async def test_an_application_that_fails_is_a_problem() -> None:
    """A fault of the application, or no answer at all, is a 500; a fault within an answer ends the connection."""

    async def faulty(scope: Message, receive: Receive, send: Send) -> None:
        if scope["path"] == "/within":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
        if scope["path"] != "/silent":
            raise ZeroDivisionError

    async with serving(faulty) as served:
        for path in (b"/", b"/silent"):
            async with served.client() as client:
                await client.send(WHOLE.replace(b"/ ", path + b" ", 1))
                assert is_problem(await client.answer(), 500, "internal_error")
        async with served.client() as client:
            await client.send(WHOLE.replace(b"/ ", b"/within ", 1))
            assert (await client.answer())[0] == 200
            assert not (await client.ended()).endswith(b"0\r\n\r\n")


async def test_an_answer_in_parts_is_chunked() -> None:
    """An answer whose length is not known beforehand comes in chunks, and the connection stays."""

    async def parts(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"a" * 20, b"", b"b" * 5):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with serving(parts) as served, served.client() as client:
        for _ in range(2):
            await client.send(WHOLE)
            told = await client.reader.readuntil(b"0\r\n\r\n")
            assert b"transfer-encoding: chunked" in told and told.endswith(b"5\r\nbbbbb\r\n0\r\n\r\n")


async def test_a_length_that_is_not_given_is_counted() -> None:
    """A whole answer without a length has one."""

    async def plain(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"abc"})

    async with serving(plain) as served, served.client() as client:
        await client.send(WHOLE)
        assert (await client.answer())[::2] == (200, b"abc")


async def test_an_identity_is_repeated_in_a_refusal(echo: Echo) -> None:
    """A refusal of the server's own has the request's id."""
    async with serving(echo) as served, served.client() as client:
        await client.send(b"GET / HTTP/1.1\r\nX-Request-Id: mine\r\n\r\n")
        status, headers, _ = await client.answer()
        assert (status, headers["x-request-id"]) == (400, "mine")


async def test_a_taken_port_is_an_error(echo: Echo) -> None:
    """A port that another program listens on is not shared with it."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = HttpServer(echo, Limits(), lambda: 0.0)
        with pytest.raises(OSError, match="in use"):
            await server.start("127.0.0.1", other.getsockname()[1])
        await server.drain(0.0, 0.0)


async def test_ipv6_is_served(echo: Echo) -> None:
    """A host may be an IPv6 address."""
    server = HttpServer(echo, Limits(), lambda: 0.0)
    try:
        await server.start("::1", 0)
    except OSError:
        pytest.skip("this machine has no IPv6")
    client = Client(*await asyncio.open_connection("::1", server.port))
    await client.send(WHOLE)
    assert (await client.answer())[0] == 200
    client.writer.close()
    await server.drain(0.0, 0.0)


async def test_answers_name_the_date(echo: Echo) -> None:
    """Each answer has the date, as RFC 9110 asks of a server with a clock."""
    async with serving(echo) as served, served.client() as client:
        await client.send(WHOLE)
        assert (await client.answer())[1]["date"].endswith(" GMT")
