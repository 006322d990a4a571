"""Peers that passed the handshake and then break the rules: each spoils its own connection and no other."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from batches import result_of
from virtual_time import loop_clock, passes
from waiting import ECHO, Gate, idle, until

from deployments.transport import MAX_FRAME_BYTES, Endpoint, TransportClient, TransportServer, UnixAddress
from deployments.transport.connection import (
    HELLO,
    Done,
    FrameReader,
    Pong,
    ServerFrame,
    Submit,
    append_frame,
    server_frames,
)
from gateway.model.messages import Emit, Failure, FailureKind, Work
from gateway.tasks.classify import ClassifyParameters

WORK = Work("classify", ("hello " * 200,), ClassifyParameters(), remaining_s=1.0, strict=True, request_id="r")
LOST = Failure(FailureKind.UNAVAILABLE, "the connection was lost")
OFFENCES = {"too long": struct.pack(">I", MAX_FRAME_BYTES + 1), "malformed": b"\x00\x00\x00\x01\xc1"}


@dataclass
class RawClient:
    """A client that passes the handshake and then does as the test says; it reads only when asked to."""

    socket: socket.socket
    reader: FrameReader[ServerFrame] = field(default_factory=server_frames)

    @classmethod
    async def greet(cls, address: UnixAddress) -> RawClient:
        """Connects, sends the hello and takes the first load report."""
        raw, loop = cls(socket.socket(socket.AF_UNIX)), asyncio.get_running_loop()
        raw.socket.setblocking(False)
        await loop.sock_connect(raw.socket, address.path)
        assert await loop.sock_recv(raw.socket, len(HELLO)) == HELLO
        await raw.say(HELLO)
        assert [type(frame) for frame in await raw.hear() or []] == [Pong]
        return raw

    async def say(self, data: bytes | bytearray) -> None:
        """Sends these bytes, and waits until the server has accepted them."""
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def hear(self) -> list[ServerFrame] | None:
        """The frames that came next; None when the server has hung up. Raises TimeoutError if neither happens."""
        loop = asyncio.get_running_loop()
        try:
            data = await asyncio.wait_for(loop.sock_recv(self.socket, 1 << 16), timeout=60.0)
        except ConnectionError:
            data = b""
        if not data:
            self.socket.close()
        return list(self.reader.feed(data)) if data else None


def submits(count: int) -> bytearray:
    """That number of batches in a row, each of one request."""
    buffer = bytearray()
    for n in range(count):
        append_frame(buffer, Submit(n, (WORK,)))
    return buffer


@asynccontextmanager
async def serving(directory: Path, silence_s: float = 30.0) -> AsyncIterator[tuple[TransportServer, Gate, UnixAddress]]:
    """A server with a gated handler."""
    gate, address = Gate(), UnixAddress(str(directory / "s"))
    server = TransportServer(gate.handle, idle, silence_s=silence_s)
    await server.start(address)
    yield server, gate, address
    await server.close()


def client_at(address: UnixAddress) -> TransportClient:
    """A client that keeps the rules."""
    return TransportClient(Endpoint("replica", "here", address), "here", lambda load: None, random.Random(1))


@pytest.mark.asyncio
@pytest.mark.parametrize("offence", OFFENCES.values(), ids=OFFENCES.keys())
async def test_a_broken_frame_ends_one_connection(tmp_path: Path, offence: bytes) -> None:
    """A broken frame ends its connection and cancels its work; another client notices nothing."""
    async with serving(tmp_path) as (server, gate, address):
        client = client_at(address)
        await client.connect()
        beside = asyncio.create_task(result_of(client, WORK))
        raw = await RawClient.greet(address)
        await raw.say(submits(1))
        await until(lambda: gate.begun == 2)
        await raw.say(offence)
        assert await raw.hear() is None
        await until(lambda: server.in_flight == 1)
        gate.gate.set()
        assert await beside == ECHO
        await client.close()


@pytest.mark.asyncio
async def test_an_id_under_way_cannot_be_used_again(tmp_path: Path) -> None:
    """An id that is still under way cannot be used again: that is a breach of the protocol."""
    async with serving(tmp_path) as (_, _, address):
        raw = await RawClient.greet(address)
        await raw.say(submits(1) + submits(1))
        assert await raw.hear() is None


@pytest.mark.virtual_time
async def test_a_client_that_does_not_read_is_not_read_from(tmp_path: Path) -> None:
    """A server stops reading from a client that reads nothing; when the client reads, it gets all its answers."""
    count, ids = 3_000, list[int]()
    async with serving(tmp_path) as (server, gate, address):
        gate.gate.set()
        raw = await RawClient.greet(address)
        flood = asyncio.create_task(raw.say(submits(count)))
        (peer,) = server._state.connections  # nothing else shows if the server reads from it
        await until(lambda: peer._transport is not None and not peer._transport.is_reading())
        await until(lambda: server.in_flight == 0)
        begun = gate.begun
        assert peer.unsent_bytes < 1024 * 1024
        await passes(1.0)
        assert gate.begun == begun < count and not flood.done()
        while len(ids) < count:
            ids += [frame.id for frame in await raw.hear() or () if isinstance(frame, Done)]
        assert sorted(ids) == list(range(count))
        await flood
        raw.socket.close()


@pytest.mark.virtual_time
async def test_a_client_that_never_reads_again_is_given_up(tmp_path: Path) -> None:
    """A client that never reads again counts as silent, and its connection ends."""
    async with serving(tmp_path, silence_s=0.3) as (server, gate, address):
        gate.gate.set()
        raw = await RawClient.greet(address)
        began_s = loop_clock()()
        flood = asyncio.create_task(raw.say(submits(3_000)))
        await until(lambda: server.connections == 0)
        assert loop_clock()() - began_s >= 0.2
        with pytest.raises(ConnectionError):
            await flood
        raw.socket.close()


@pytest.mark.asyncio
async def test_answers_too_many_for_memory_end_the_connection(tmp_path: Path) -> None:
    """A client is given up when the answers to its requests exceed the memory for waiting ones."""

    async def large(batch: Sequence[Work], emit: Emit) -> Sequence[Failure]:
        return [Failure(FailureKind.ENGINE, "x" * (MAX_FRAME_BYTES // 2))] * len(batch)

    address = UnixAddress(str(tmp_path / "s"))
    server = TransportServer(large, idle)
    await server.start(address)
    raw = await RawClient.greet(address)
    await raw.say(submits(30))
    await until(lambda: server.connections == 0 and server.in_flight == 0)
    raw.socket.close()
    await server.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("offence", OFFENCES.values(), ids=OFFENCES.keys())
async def test_a_server_that_breaks_the_rules_is_left(tmp_path: Path, offence: bytes) -> None:
    """A client leaves a server that breaks the protocol, and its calls there are UNAVAILABLE, to be tried elsewhere."""

    async def offender(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HELLO)
        await reader.readexactly(len(HELLO) + 4)
        writer.write(offence)
        await reader.read()
        writer.close()

    address = UnixAddress(str(tmp_path / "s"))
    listener = await asyncio.start_unix_server(offender, address.path)
    client = client_at(address)
    await client.connect()
    assert await result_of(client, WORK) == LOST
    assert not client.connected
    listener.close()
    await client.close()
