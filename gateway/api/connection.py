"""One HTTP/1.1 connection: reads requests, has the application answer each in its turn, and writes the answers.

httptools, Node's parser, does the parsing. This module has what a parser leaves open: order, limits of time and size,
hang-ups, and closing without losing an answer. It speaks ASGI to the application and knows nothing of what that does.
"""

from __future__ import annotations

import asyncio
import http
import logging
import re
import socket
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv6Network
from math import inf
from typing import Any, TypeAlias, cast
from urllib.parse import unquote

import httptools
import msgspec

from gateway.api.headers import request_id_of
from gateway.catalogs.catalog import Limits
from gateway.model.deadline import Clock
from gateway.model.errors import (
    HeadTooLarge,
    InternalError,
    InvalidRequest,
    MethodNotImplemented,
    Problem,
    RequestTimeout,
    TooManyConnections,
    VersionNotSupported,
)
from gateway.model.request import REQUEST_ID

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Those of a request, as an ASGI scope has them."""
Application: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
"""An ASGI application that is a coroutine function."""

FIRST_BYTE = "punctual.first_byte_s"
"""Key of the ASGI scope: when the request's first byte was read, in seconds on the server's monotonic clock."""

IDLE = "punctual.idle"
"""Key of the message that begins an answer: bytes that may stand anywhere between two parts of its body, and mean
nothing there. They are written to see whether a client that has ended its side still reads."""

MAX_HEAD = 32 * 1024
"""Most bytes of a request's target and headers together; nginx takes 32 KiB, Node 16."""

PARSED_BYTES = 8 * 1024
"""Bytes that are parsed at once; then limits are looked at that the parser does not know. Set by hand: a part at the
beginning and one at the end of a head or body are not counted, so that about twice as much may be borne beyond a limit.
"""

FRAMING = 16
"""Bytes around each byte of a chunked body that are borne; a client that sends single bytes has five. Beyond that there
may be as many as in a head: else a body whose chunk has an endless extension, or endless trailers, would be read on."""

MOST_UNREAD = 256 * 1024
"""Bytes of a body that may wait for the application before reading pauses: as much as uvloop reads at once."""

MOST_QUEUED = 32
"""Requests that a client may send ahead of their answers before reading pauses."""

MOST_DROPPED = 64 * 1024 * 1024
"""Bytes that are read and dropped after a last answer, since a client that still sends does not read it yet."""

PROBE_S = 0.01
"""Seconds after which a client that has ended its side is first looked at again; a far one needs a round trip."""

MOST_PROBE_S = 0.5
"""Most seconds between two such looks."""

SHARED_BYTES = 64 * 1024
"""Bytes from which on a body is written as it is, not copied behind its head: the contract's, say. Set by hand."""

LEAST_READ = 16 * 1024
"""Bytes that a slow reader has to take of an answer within `body_timeout_s`, to have that time again. Set by hand."""

LINGER_S = 5.0
"""Seconds that a client has to close a connection after its last answer, as in nginx."""

_STATUS_LINES = {one.value: f"HTTP/1.1 {one.value} {one.phrase}\r\n".encode() for one in http.HTTPStatus}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
_OTHER_VERSIONS = ("Invalid HTTP version", "Pause on PRI/Upgrade")  # in llhttp's words
_OTHER_METHOD = "Invalid method for HTTP"  # likewise: RTSP's
_CLOSE = b"connection: close\r\n"
_WITHOUT_BODY = (204, 304)
_REQUEST = re.compile(rb"(?:\r?\n)*[\w!#$%&'*+.^`|~-]+ (?:/|\*|https?://)", re.ASCII)  # of any method (RFC 9110, 9.1)
_URL = re.compile(rb"[^/?#]*://([^/?#]*)")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[\w.~!$&'()*+,;=%-]*)(?::\d*)?", re.ASCII)  # RFC 3986, section 3.2.2

log = logging.getLogger("gateway.http")  # none of those that the access log shows: a traceback may quote a request


@dataclass
class Hub:
    """What the connections of one server share. `date` is the header line of that name; `empty`: none is open.

    `by_address` counts the open ones by their client. `refused` is told of each request that the server answers itself,
    and `told` gives more headers of that answer, for those of the request as far as they are read.
    """

    app: Application
    limits: Limits
    clock: Clock
    refused: Callable[[Problem], None] = lambda problem: None
    told: Callable[[Headers], Mapping[str, str]] = lambda headers: {}
    open: set[Connection] = field(default_factory=set)
    by_address: Counter[str] = field(default_factory=Counter)
    draining: bool = False
    date: bytes = b""
    empty: asyncio.Event = field(default_factory=asyncio.Event)


class Exchange:
    """One request and its answer: the `receive` and `send` that the application is called with.

    `keep_alive` is False for the last request of a connection. `whole` says that the request's last byte has come,
    `started` and `answered` that the head and the last byte of its answer are written. A `refusal` is the server's own
    answer, in place of the application's.
    """

    __slots__ = (
        "_body",
        "_chunked",
        "_connection",
        "_head",
        "_more",
        "answered",
        "expects_continue",
        "keep_alive",
        "refusal",
        "scope",
        "started",
        "task",
        "unread",
        "whole",
    )

    def __init__(self, connection: Connection, scope: MutableMapping[str, Any], *, keep_alive: bool) -> None:
        self.scope = scope
        self.keep_alive = keep_alive
        self.expects_continue = self.whole = self.started = self.answered = False
        self.unread = 0
        self.task: asyncio.Task[None] | None = None
        self.refusal: Problem | None = None
        self._connection = connection
        self._body: list[bytes] = []
        self._more: asyncio.Future[None] | None = None
        self._head: Message = {}
        self._chunked = False

    def feed(self, part: bytes) -> None:
        """Takes a part of the body, or drops it if the answer is written."""
        if not self.answered:
            self._body.append(part)
            self.unread += len(part)
            self._wake()

    def end(self) -> None:
        """Notes that the request is whole."""
        self.whole = True
        self._wake()

    async def receive(self) -> Message:
        """Waits for more of the body, and gives all that has come."""
        if self.expects_continue:
            self.expects_continue = False
            self._connection.write(_CONTINUE)
        while not self._body and not self.whole:
            self._connection.flow()
            self._more = asyncio.get_running_loop().create_future()
            await self._more
        body = b"".join(self._body)
        self._body, self.unread = [], 0
        return {"type": "http.request", "body": body, "more_body": not self.whole}

    def idle(self) -> None:
        """Writes bytes that mean nothing into an answer that has begun, if it has such."""
        if idle := self._head.get(IDLE):
            self._connection.write(b"%x\r\n%b\r\n" % (len(idle), idle) if self._chunked else idle)

    async def send(self, message: Message) -> None:
        """Writes the answer: its head together with the first part of its body."""
        if self.answered:
            return
        if message["type"] == "http.response.start":
            self._head = message
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        head = b"" if self.started else self._begun(self._head["status"], self._head.get("headers", ()), body, more)
        if self.scope["method"] == "HEAD":
            body = b""
        elif self._chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more else b"0\r\n\r\n")
        if len(body) < SHARED_BYTES:
            self._connection.write(head + body)
        else:
            self._connection.write_both(head, body)
        if not more:
            self.answered = True
            self._connection.answered(self)
        else:
            await self._connection.writable()

    def refuse(self, problem: Problem) -> None:
        """Answers with a problem of the server's own, the last answer of its connection."""
        identity = request_id_of(self.scope["headers"])
        content = msgspec.json.encode(problem.document())
        told = {
            "content-type": "application/problem+json",
            "content-length": str(len(content)),
            REQUEST_ID: identity,
            **problem.headers(),
            **self._connection.told(self.scope["headers"]),
        }
        headers = [(name.encode(), value.encode()) for name, value in told.items()]
        self.keep_alive = False
        self._connection.refused(problem)
        head = self._begun(problem.http_status, headers, content, more=False)
        self._connection.write(head if self.scope["method"] == "HEAD" else head + content)
        self.answered = True
        self._connection.answered(self)

    def _begun(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes, more: bool) -> bytes:
        """Makes the head. The length of a body without one is counted, or told in chunks as the body comes."""
        self.started = True
        lines = [_STATUS_LINES[status], self._connection.date]
        lines += [b"%b: %b\r\n" % header for header in headers]
        if status not in _WITHOUT_BODY and not any(name.lower() == b"content-length" for name, _ in headers):
            self._chunked = more and self.scope["http_version"] == "1.1"
            self.keep_alive = self.keep_alive and (self._chunked or not more)
            length = b"transfer-encoding: chunked\r\n" if self._chunked else b"content-length: %d\r\n" % len(body)
            lines.append(length if self._chunked or not more else b"")
        if self._connection.is_last(self):
            lines.append(_CLOSE)
        lines.append(b"\r\n")
        return b"".join(lines)

    def _wake(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)


class Connection(asyncio.Protocol):
    """One client's connection. `due_s` is when `expire` is to be called, on the hub's clock."""

    _transport: asyncio.Transport

    def __init__(self, hub: Hub) -> None:
        self.due_s = inf
        self._address = ""
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self._parser: Any = httptools.HttpRequestParser(self)
        self._exchanges: deque[Exchange] = deque()  # in their order; the first is being answered
        self._reading: Exchange | None = None  # whose body is being read
        self._in_head = False
        self._head_read = 0  # bytes that were read since the head began, besides its first
        self._framing = 0  # bytes of the body that were read beyond its content and what is borne around it
        self._read_s = self._first_byte_s = 0.0
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._ending = False  # no further request is read
        self._half_closed = False  # the client has ended its side
        self._dropped = 0
        self._paused = False
        self._writable: asyncio.Future[None] | None = None  # while the client reads too slowly
        self._read_by_s = inf  # by when it has to, then
        self._unread = 0  # bytes of answers that it had still to read when that was last looked at

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the connection, or tells the client that there are too many."""
        self._transport = cast(asyncio.Transport, transport)
        self._hub.open.add(self)
        self._hub.empty.clear()
        self.due_s = self._hub.clock() + self._hub.limits.idle_timeout_s
        self._address = _address_of(transport.get_extra_info("peername"))
        self._hub.by_address[self._address] += 1
        limits = self._hub.limits
        if len(self._hub.open) > limits.max_connections:
            self._refuse(TooManyConnections(limits.max_connections))
        elif self._hub.by_address[self._address] > limits.max_connections_per_address:
            self._refuse(TooManyConnections(limits.max_connections_per_address, " from this address"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels the work for a client that left."""
        self._hub.open.discard(self)
        self._hub.by_address[self._address] -= 1
        if not self._hub.by_address[self._address]:
            del self._hub.by_address[self._address]
        if not self._hub.open:
            self._hub.empty.set()
        for exchange in self._exchanges:
            if exchange.task is not None:
                exchange.task.cancel()
        self._exchanges.clear()
        self._parser = None  # it refers to this connection
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Parses what was read, some at a time, so that limits hold however much comes at once."""
        self._read_s = self._hub.clock()
        for start in range(0, len(data), PARSED_BYTES):
            self._take(data[start : start + PARSED_BYTES])
        self.flow()

    def eof_received(self) -> bool:
        """Answers what is under way for a client that has ended its side; without that the transport closes.

        Such a client may have left altogether, which TCP does not tell apart before something is written.
        """
        if self._ending and not self._exchanges:
            return False
        self._half_closed = True
        if self._in_head or self._reading is not None:
            self._refuse(_malformed("the request ends before it is whole"))
        if not self._exchanges:
            return False
        self._ending, self._exchanges[-1].keep_alive = True, False
        first = self._exchanges[0]
        if not first.started and first.scope["http_version"] == "1.1":
            self.write(_PROCESSING)
        elif first.started:
            first.idle()
        self._look_for_client(PROBE_S)
        return True

    def pause_writing(self) -> None:
        """Has further answers, and further parts of one, wait for a slow reader, who has as long as for a body."""
        self._writable = self._writable or self._loop.create_future()
        self._read_by_s = self._hub.clock() + self._hub.limits.body_timeout_s
        self._unread = self._transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        """Lets them go on."""
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)
        if self._exchanges:
            if self._exchanges[0].task is None and not self._exchanges[0].started:
                self._begin_first()
        elif self._ending:
            self.due_s = self._hub.clock() + LINGER_S
        else:
            self._await_request()

    # --- what httptools calls

    def on_message_begin(self) -> None:
        """Begins a request at the instant at which its first byte was read."""
        self._in_head, self._head_read = True, 0
        self._target, self._headers = b"", []
        self._first_byte_s = self._read_s
        if not self._exchanges and self._writable is None:
            self.due_s = self._read_s + self._hub.limits.header_timeout_s

    def on_url(self, part: bytes) -> None:
        """Takes a part of the request's target."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes a header; what comes behind a body is left out."""
        if self._in_head:
            self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Makes the request. Raises a Problem, which the parser hands on to `data_received`."""
        self._in_head = False
        method, version = self._parser.get_method(), self._parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise VersionNotSupported
        if method == b"CONNECT":
            raise _malformed("this is no proxy")
        if self._parser.should_upgrade():
            return  # `_parse` has the request parsed again
        authority, target = _divided(self._target)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "method": method.decode(),
            "scheme": "http",
            "headers": self._headers if authority is None else _with_host(self._headers, authority),
            **_split(target),
            FIRST_BYTE: self._first_byte_s,
        }
        keep_alive = version == "1.1" and self._parser.should_keep_alive()
        exchange = self._reading = Exchange(self, scope, keep_alive=keep_alive)
        self._framing = 0
        self._check_head(exchange, version)
        self._exchanges.append(exchange)
        if len(self._exchanges) == 1:
            self._begin_first()

    def on_body(self, part: bytes) -> None:
        """Takes a part of a body."""
        self._framing -= len(part) * (1 + FRAMING)
        if self._reading is not None:
            self._reading.feed(part)

    def on_message_complete(self) -> None:
        """Ends a request. After the last of a connection nothing more is read."""
        exchange, self._reading = self._reading, None
        if exchange is None:
            return
        exchange.end()
        if not exchange.keep_alive:
            self._ending = True
        if self._exchanges and exchange is self._exchanges[0] and (exchange.task or exchange.started):
            self.due_s = inf  # it is the application's turn
            if exchange.answered:
                self._next()

    # --- what exchanges call

    @property
    def date(self) -> bytes:
        """The line of the `Date` header."""
        return self._hub.date

    def is_last(self, exchange: Exchange) -> bool:
        """True if no request after this one is answered, which its answer then says."""
        if self._hub.draining or not (exchange.whole or self._can_skip(exchange)):
            exchange.keep_alive = False
        return not exchange.keep_alive

    def write(self, data: bytes) -> None:
        """Writes, unless the client has left."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def write_both(self, head: bytes, body: bytes) -> None:
        """Writes a head and a large body, which is not copied, unless the client has left."""
        if not self._transport.is_closing():
            self._transport.writelines((head, body))

    async def writable(self) -> None:
        """Waits for a slow reader, who has as long as for a body."""
        if self._writable is not None:
            self.due_s = self._hub.clock() + self._hub.limits.body_timeout_s
            await self._writable
            self.due_s = inf

    def answered(self, exchange: Exchange) -> None:
        """Goes on to the next request, once this one is whole."""
        if not self._exchanges or exchange is not self._exchanges[0]:
            return
        if exchange.whole or not exchange.keep_alive:
            self._next()
        else:
            self.due_s = self._hub.clock() + self._hub.limits.body_timeout_s
            self.flow()

    def told(self, headers: Headers) -> Mapping[str, str]:
        """More headers of an answer of the server's own."""
        return self._hub.told(headers)

    def refused(self, problem: Problem) -> None:
        """Notes an answer of the server's own."""
        self._hub.refused(problem)

    def flow(self) -> None:
        """Pauses reading from a client that is too far ahead, and resumes."""
        if self._half_closed:
            return
        unread = self._reading.unread if self._reading else 0
        pause = not self._ending and (unread > MOST_UNREAD or len(self._exchanges) > MOST_QUEUED)
        if pause != self._paused and not self._transport.is_closing():
            self._paused = pause
            (self._transport.pause_reading if pause else self._transport.resume_reading)()

    # --- what the server calls

    @property
    def idle(self) -> bool:
        """True if no request is under way or being read."""
        return not self._exchanges and not self._in_head

    def expire(self) -> None:
        """Ends a connection whose client took too long, with a 408 if it waits for an answer.

        One that reads a long answer slowly, but reads, has its time again.
        """
        unread = self._transport.get_write_buffer_size()
        if self._writable is not None and self._unread - unread >= LEAST_READ:
            self._unread = unread
            self.due_s = self._read_by_s = self._hub.clock() + self._hub.limits.body_timeout_s
            return
        waits = self._in_head or self._reading is not None
        if waits and self._writable is None and not self._ending and not (self._reading and self._reading.answered):
            self._refuse(RequestTimeout())
        else:
            self._transport.abort()

    def stop(self, problem: Problem | None) -> None:
        """Ends the connection; a request under way is answered with the problem.

        An answer that has begun is cancelled, and may say so in its own way before its connection ends.
        """
        under_way = self._exchanges[0] if self._exchanges else None
        if under_way is None or problem is None:
            self._transport.close()
        elif not under_way.started:
            self._supersede(under_way, problem)
        elif under_way.task is None or under_way.task.done():
            self._transport.close()
        else:
            under_way.task.add_done_callback(lambda task: self._transport.close())
            under_way.task.cancel()

    # --- its own

    def _take(self, data: bytes) -> None:
        """Parses a part of what was read, or drops it after the last request."""
        if self._ending:
            self._dropped += len(data)
            if self._dropped > MOST_DROPPED:
                self._transport.abort()
            return
        self._head_read += len(data)
        reading, idle = self._reading, self.idle
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            if not self._ending:
                self._refuse(_problem_of(error, data if idle and not self._exchanges else b""))
        if self._in_head and self._head_read > MAX_HEAD:
            self._refuse(HeadTooLarge(MAX_HEAD))
        if reading is not None and reading is self._reading and not self._ending:
            self._framing += len(data)
            if self._framing > MAX_HEAD:
                self._refuse(_malformed("the chunks of the body have too much around their content"))

    def _parse(self, data: bytes) -> None:
        """Parses. A request to change the protocol is parsed again without that wish, which may be ignored."""
        try:
            self._parser.feed_data(data)
            return
        except httptools.HttpParserUpgrade as upgrade:
            version = self._parser.get_http_version().encode()
            lines = [b"%b %b HTTP/%b\r\n" % (self._parser.get_method(), self._target, version)]
            lines += [b"%b: %b\r\n" % header for header in self._headers if header[0] != b"upgrade"]
            again = b"".join(lines) + b"\r\n" + data[upgrade.args[0] :]
        self._parser = httptools.HttpRequestParser(self)
        self._parse(again)  # not within `except`, where the wish would hide what is wrong

    def _check_head(self, exchange: Exchange, version: str) -> None:
        """Notes what the headers say of the body. Raises HeadTooLarge and InvalidRequest."""
        size = len(self._target) + sum(len(name) + len(value) for name, value in self._headers)
        if size > MAX_HEAD:
            raise HeadTooLarge(MAX_HEAD)
        names = [name for name, _ in self._headers]
        hosts = names.count(b"host")
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            raise _malformed("there must be one Host header")
        for name, value in self._headers:
            if name == b"host" and not _HOST.fullmatch(value.strip()):
                raise _malformed("the Host header is no name or address, with or without a port")
            if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
                raise _malformed("Transfer-Encoding may be chunked alone; a body is compressed by Content-Encoding")
        if b"expect" in names and version == "1.1":
            exchange.expects_continue = (b"expect", b"100-continue") in (
                (name, value.lower()) for name, value in self._headers
            )

    def _can_skip(self, exchange: Exchange) -> bool:
        """True if the rest of a body is worth reading to keep the connection: it surely comes, and is not too long."""
        length = next((value for name, value in exchange.scope["headers"] if name == b"content-length"), b"")
        short = length.isdigit() and len(length) < 16 and int(length) <= self._hub.limits.max_body_bytes
        return short and not exchange.expects_continue

    def _begin(self, exchange: Exchange) -> None:
        """Has the application answer a request, or refuses it."""
        if exchange.refusal is not None:
            exchange.refuse(exchange.refusal)
            return
        call = self._hub.app(exchange.scope, exchange.receive, exchange.send)
        task = self._loop.create_task(cast(Coroutine[Any, Any, None], call))
        task.add_done_callback(partial(self._called, exchange))
        exchange.task = task

    def _called(self, exchange: Exchange, task: asyncio.Task[None]) -> None:
        """Looks after a call of the application that gave no answer, or failed with one."""
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.error("the application failed", exc_info=error)
        if exchange.started and not exchange.answered:
            self._transport.abort()
        elif not exchange.answered and exchange in self._exchanges:
            exchange.refuse(InternalError())

    def _next(self) -> None:
        """Begins the next request, waits for one, or ends the connection."""
        done = self._exchanges.popleft()
        if not done.keep_alive:
            self._linger()
        elif self._exchanges:
            self._begin_first()
        else:
            self._await_request()
        self.flow()

    def _begin_first(self) -> None:
        """Begins the first request that waits, unless the answer before it is still to be read by the client."""
        if self._writable is not None:
            self.due_s = self._read_by_s
            return
        first = self._exchanges[0]
        self.due_s = inf if first.whole else self._hub.clock() + self._hub.limits.body_timeout_s
        self._begin(first)

    def _await_request(self) -> None:
        """Gives the client its time to send the next request, or to read the answer before it."""
        limits = self._hub.limits
        wait_s = limits.header_timeout_s if self._in_head else limits.idle_timeout_s
        self.due_s = self._hub.clock() + wait_s if self._writable is None else self._read_by_s

    def _refuse(self, problem: Problem) -> None:
        """Answers in the application's place, after the requests before, and ends the connection."""
        self._ending, self._in_head = True, False
        exchange = self._reading
        if exchange is None or exchange not in self._exchanges:
            exchange = Exchange(self, {"method": "", "headers": self._headers, "http_version": ""}, keep_alive=False)
            self._exchanges.append(exchange)
        self._supersede(exchange, problem)

    def _supersede(self, exchange: Exchange, problem: Problem) -> None:
        """Answers a request with a problem, whatever the application was doing for it."""
        exchange.refusal = problem
        if exchange.task is not None:
            exchange.task.cancel()
        if exchange.answered or exchange.started:
            self._transport.abort()
        elif exchange is self._exchanges[0]:
            exchange.refuse(problem)

    def _look_for_client(self, again_s: float) -> None:
        """Ends the connection if the client has left: its side answers what was written to it with a reset."""
        if self._exchanges and not self._transport.is_closing():
            if self._transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._transport.abort()
            else:
                self._loop.call_later(again_s, self._look_for_client, min(2 * again_s, MOST_PROBE_S))

    def _linger(self) -> None:
        """Ends the connection without losing its last answer.

        To close at once would reset it under a client that still sends, and that client might never read the answer.
        So this side ends, reads on, and waits for the client to close.
        """
        self._ending = True
        self._exchanges.clear()
        self.due_s = self._hub.clock() + LINGER_S if self._writable is None else self._read_by_s
        if self._half_closed:
            self._transport.close()
        elif not self._transport.is_closing():
            self._transport.write_eof()


def _problem_of(error: httptools.HttpParserError, begin: bytes) -> Problem:
    """The problem of what the parser refused, or of what its callback raised. `begin` begins a request, or is empty."""
    told = error.__context__
    if isinstance(told, Problem):
        return told
    of_method = isinstance(error, httptools.HttpParserInvalidMethodError) or str(error).startswith(_OTHER_METHOD)
    if of_method and _REQUEST.match(begin):
        return MethodNotImplemented()
    return VersionNotSupported() if str(error) in _OTHER_VERSIONS else _malformed("the request is not HTTP/1.1")


def _malformed(detail: str) -> InvalidRequest:
    return InvalidRequest(detail, malformed=True)


def _address_of(peer: tuple[Any, ...] | str | None) -> str:
    """A client's address; of IPv6 its network of 64 bits, all of which one client usually has."""
    host = str(peer[0]).partition("%")[0] if isinstance(peer, tuple) else ""
    return str(IPv6Network((host, 64), strict=False)) if ":" in host else host


def _divided(target: bytes) -> tuple[bytes | None, bytes]:
    """The authority of a request's target if that is a whole URL, and the rest. Raises InvalidRequest for no host."""
    whole = None if target.startswith(b"/") else _URL.match(target)
    if whole is None:
        return None, target
    if not whole[1] or not _HOST.fullmatch(whole[1]):
        raise _malformed("the target names no valid host")
    rest = target[whole.end() :]
    return whole[1], rest if rest.startswith(b"/") else b"/" + rest


def _with_host(headers: Sequence[tuple[bytes, bytes]], authority: bytes) -> list[tuple[bytes, bytes]]:
    """The headers with the authority of the target in place of Host (RFC 9112, section 3.2.2)."""
    return [(b"host", authority), *(header for header in headers if header[0] != b"host")]


def _split(target: bytes) -> dict[str, Any]:
    """Path and query of a request's target: a path, an authority or `*`."""
    raw, _, query = target.partition(b"#")[0].partition(b"?")
    path = raw.decode("latin-1")
    return {"path": unquote(path) if "%" in path else path, "raw_path": raw, "query_string": query, "root_path": ""}
