"""Answers that take long to be written, on real sockets: their bytes, readers that are slow, and readers that leave."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import struct
from dataclasses import dataclass, field

import pytest
from fake_summaries import SUMMARY
from fakes import scripted
from served_app import WHOLE, Client, serving
from waiting import until
from worlds import OwnMetrics, World, summarizing

from gateway.api import app
from gateway.api.connection import IDLE, Application, Message, Receive, Send
from gateway.catalogs.catalog import Limits
from gateway.model.messages import Delta
from gateway.model.outcome import Outcome

BODY = json.dumps({"inputs": "The river rose. The bridge was closed for hours.", "stream": True}).encode()
ASKED = b"POST /summarize HTTP/1.1\r\nHost: gateway\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
FIRST = b'data: {"index":0,"text":"In"}\n\n'
DELTAS = (Delta(0, "In"), Delta(0, " short."))
MORE_THAN_BUFFERS = 64_000_000
"""Bytes that the kernel does not take at once, whatever its buffers."""


@dataclass
class Endless:
    """An application that writes a part whenever its gate opens, until it is cancelled."""

    part: bytes = b"part"
    gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    parts: int = 0
    cancelled: bool = False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Write on and on."""
        await send({"type": "http.response.start", "status": 200, "headers": [], IDLE: b":\n"})
        try:
            while True:
                await self.gate.acquire()
                await send({"type": "http.response.body", "body": self.part, "more_body": True})
                self.parts += 1
        except asyncio.CancelledError:
            self.cancelled = True
            raise


def application(told: World) -> Application:
    """The application over a world, as a server calls it."""
    return app.build(told.service, OwnMetrics(told.catalog), told.catalog.limits, told.clock)


async def chunks(client: Client, last: bytes) -> bytes:
    """Read the head and the chunks of an answer until one that ends so; the bytes within the chunks."""
    async with asyncio.timeout(60):
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"\r\ntransfer-encoding: chunked\r\n" in head, head
        body = b""
        while not body.endswith(last):
            size = int(await client.reader.readuntil(b"\r\n"), 16)
            body += (await client.reader.readexactly(size + 2))[:-2]
            if not size:
                break
    return body


async def test_events_come_in_chunks_and_the_connection_goes_on() -> None:
    """A streamed answer is read as it comes, ends, and leaves its connection to the next request."""
    told = summarizing()
    told.backend.deltas = DELTAS
    async with serving(application(told)) as served, served.client() as client:
        for _ in range(2):
            await client.send(ASKED)
            body = await chunks(client, b"nothing ends so")
            first, second, done, rest = body.split(b"\n\n")
            assert (first + b"\n\n", second) == (FIRST, b'data: {"index":0,"text":" short."}') and rest == b""
            name, data = done.split(b"\n")
            assert name == b"event: done" and json.loads(data.removeprefix(b"data: "))["finish_reason"] == "stop"


async def test_a_client_of_http_1_0_reads_events_until_the_connection_ends() -> None:
    """HTTP/1.0 has no chunks: the events stand bare, and the end of the connection is theirs."""
    told = summarizing()
    told.backend.deltas = DELTAS
    async with serving(application(told)) as served, served.client() as client:
        await client.send(ASKED.replace(b"HTTP/1.1", b"HTTP/1.0"))
        head, _, body = (await client.ended()).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head and body.startswith(FIRST) and b"event: done" in body


@pytest.mark.parametrize("reset", [True, False])
async def test_a_reader_that_hangs_up_cancels_its_request(reset: bool) -> None:
    """A client that leaves amid the events, by a reset or in peace, has its work stopped though nothing is told."""
    told = summarizing(scripted(None))
    told.backend.deltas = DELTAS[:1]
    async with serving(application(told)) as served, served.client() as client:
        await client.send(ASKED)
        assert await chunks(client, FIRST) == FIRST
        if reset:
            peer: socket.socket = client.writer.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.writer.close()
        await until(lambda: told.backend.cancelled == 1)
        await until(lambda: served.server.connections == 0)
    assert told.kept.outcomes == [Outcome.CANCELLED]


async def test_a_reader_that_only_ends_its_side_reads_on() -> None:
    """A client that has no more to say reads the events to their end; what is written to look for it is no event."""
    told = summarizing(scripted(None, SUMMARY))
    told.backend.deltas = DELTAS
    endless = Endless()
    async with serving(endless) as served, served.client() as client:
        await client.send(WHOLE)
        endless.gate.release()
        assert await chunks(client, b"part") == b"part"
        client.writer.write_eof()
        assert await client.reader.readexactly(7) == b"2\r\n:\n\r\n"
        endless.gate.release()
        assert await client.reader.readexactly(9) == b"4\r\npart\r\n"
        assert not endless.cancelled


async def test_a_reader_that_stops_reading_is_let_go() -> None:
    """Writing waits for a client that does not read, as long as for a body, and then ends its connection."""
    endless = Endless(bytes(MORE_THAN_BUFFERS))
    async with serving(endless, Limits(body_timeout_s=30.0)) as served, served.client() as client:
        await client.send(WHOLE)
        endless.gate.release()
        await until(lambda: served.server.connections == 1)
        (connection,) = served.server._hub.open
        await until(lambda: connection.due_s < math.inf and connection._writable is not None)
        assert connection.due_s == served.clock() + 30.0 and not endless.parts

        def let_go() -> bool:
            served.clock.advance(31.0)  # again and again: the kernel may still take some, though nobody reads
            return endless.cancelled

        await until(let_go)
        assert served.server.connections == 0


async def test_a_reader_that_reads_again_has_all_the_time_that_the_answer_takes() -> None:
    """Once a slow client has read what was written, no limit of the server ends the answer."""
    endless = Endless(bytes(MORE_THAN_BUFFERS))
    async with serving(endless) as served, served.client() as client:
        await client.send(WHOLE)
        endless.gate.release()
        await until(lambda: served.server.connections == 1)
        (connection,) = served.server._hub.open
        await until(lambda: connection._writable is not None)
        await client.reader.readuntil(b"\r\n\r\n")
        await client.reader.readexactly(len(b"%x\r\n" % MORE_THAN_BUFFERS) + MORE_THAN_BUFFERS + 2)
        await until(lambda: endless.parts == 1)
        assert connection.due_s == math.inf


async def test_a_process_that_ends_says_so_in_the_last_event() -> None:
    """Events under way when a process has no more time end with an event, and the work for them is stopped."""
    told = summarizing(scripted(None))
    told.backend.deltas = DELTAS[:1]
    async with serving(application(told)) as served, served.client() as client:
        await client.send(ASKED)
        assert await chunks(client, FIRST) == FIRST
        await served.server.drain(0.0, 0.0)
        rest = await client.ended()
        assert b"event: error" in rest and b'"code":"stopping"' in rest and rest.endswith(b"0\r\n\r\n")
    assert told.kept.outcomes == [Outcome.CANCELLED] and told.backend.cancelled == 1
