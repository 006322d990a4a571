"""The gateway's HTTP server over an application that a test writes, on a port of loopback, and a client that is raw."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fakes import FakeClock

from gateway.api.connection import Application, Headers, Message, Receive, Send
from gateway.api.server import HttpServer
from gateway.catalogs.catalog import Limits

HEAD = b"POST / HTTP/1.1\r\nHost: gateway\r\n"
BODY = b"a good film"
WHOLE = HEAD + b"Content-Length: 11\r\n\r\n" + BODY
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


@dataclass
class Echo:
    """An application that answers with the body, once its gate is open, and keeps the scopes that it was given.

    `cancelled` counts its calls that were cancelled.
    """

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    scopes: list[Message] = field(default_factory=list)
    cancelled: int = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        self.scopes.append(scope)
        try:
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message["body"], message["more_body"]
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        await answer(send, 200, body)


async def refuse(scope: Message, receive: Receive, send: Send) -> None:
    """Answer before anything of the body is read."""
    await answer(send, 413, b"too long")


async def answer(send: Send, status: int, body: bytes) -> None:
    """Send a whole answer."""
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def is_problem(told: tuple[int, dict[str, str], bytes], status: int, code: str) -> bool:
    """Return whether the answer is that problem, with an id that was made for it, and the last of its connection."""
    got, headers, body = told
    assert (got, json.loads(body)["code"], json.loads(body)["status"]) == (status, code, status), told
    assert headers["content-type"] == "application/problem+json" and headers["connection"] == "close"
    return len(headers["x-request-id"]) == 32


@dataclass
class Client:
    """A connection that sends what it is given, byte by byte as it stands."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one answer: status, headers by their names in lower case, and body."""
        async with asyncio.timeout(60):
            first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(first.split(" ")[1]), headers, body

    async def last_answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one answer as `answer` does, and what is said before it while it is worked on."""
        told = await self.answer()
        return await self.answer() if told[0] == 102 else told

    async def ended(self) -> bytes:
        """Read until the server ends the connection, and return what came."""
        async with asyncio.timeout(60):
            return await self.reader.read()


@dataclass
class Served:
    """A server that runs, its clock, which stands, and the codes of the errors that it answered itself."""

    server: HttpServer
    clock: FakeClock
    refused: list[str]

    @asynccontextmanager
    async def client(self, address: str = "127.0.0.1") -> AsyncIterator[Client]:
        """Connect a client from an address of loopback."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port, local_addr=(address, 0))
        try:
            yield Client(reader, writer)
        finally:
            writer.close()


@asynccontextmanager
async def serving(
    app: Application,
    limits: Limits | None = None,
    told: Callable[[Headers], Mapping[str, str]] = lambda headers: {},
) -> AsyncIterator[Served]:
    """Serve an application on a free port; `told` gives more headers of the server's own answers."""
    clock = FakeClock()
    refused: list[str] = []
    server = HttpServer(app, limits or Limits(), clock, lambda problem: refused.append(problem.code), told)
    await server.start("127.0.0.1", 0)
    try:
        yield Served(server, clock, refused)
    finally:
        await server.drain(0.0, 0.0)
