"""The handshake's hello, first as bytes, then on real sockets with strangers and other versions."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from virtual_time import loop_clock
from waiting import idle, until

from deployments.transport import Endpoint, HandshakeError, TransportClient, TransportServer, UnixAddress
from deployments.transport.connection import HELLO, VERSION, hello_received
from gateway.model.messages import Emit, Failure, Work


def test_a_hello_is_waited_for_byte_by_byte() -> None:
    """Part of a hello is waited on, and bytes after it are left alone."""
    assert [hello_received(HELLO[:size]) for size in range(len(HELLO) + 1)] == [False] * len(HELLO) + [True]
    assert hello_received(HELLO + b"anything")


def test_another_version_is_named() -> None:
    """A hello of another version is an error that names both versions."""
    with pytest.raises(HandshakeError, match=f"version 2 of the transport, this side {VERSION}"):
        hello_received(b"PNL\x02" + bytes(32))


def test_a_stranger_is_refused_at_its_first_wrong_byte() -> None:
    """A peer that speaks HTTP is refused at its first wrong byte."""
    with pytest.raises(HandshakeError, match="does not speak"):
        hello_received(b"G")


async def never(batch: Sequence[Work], emit: Emit) -> Sequence[Failure]:
    """A handler that must not be called."""
    raise AssertionError(batch)


def client_at(address: UnixAddress) -> TransportClient:
    """A client of the server at that address."""
    return TransportClient(Endpoint("r", "n", address), "n", lambda load: None, random.Random(1))


@pytest.mark.asyncio
async def test_a_client_of_another_version_is_refused_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A server drops a client of another version without doing its work, and logs both versions in one line."""
    address = UnixAddress(str(tmp_path / "s"))
    server = TransportServer(never, idle)
    await server.start(address)
    reader, writer = await asyncio.open_unix_connection(address.path)
    writer.write(b"PNL\x02" + bytes(32))
    assert await asyncio.wait_for(reader.read(), timeout=30.0) in (b"", HELLO)
    await until(lambda: server.connections == 0)
    [line] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert f"speaks version 2 of the transport, this side {VERSION}" in line
    writer.close()
    await server.close()


@pytest.mark.asyncio
async def test_a_client_hangs_up_on_a_server_of_another_version(tmp_path: Path) -> None:
    """A client drops a server of another version without sending work, and names both versions."""
    address, asked = UnixAddress(str(tmp_path / "s")), bytearray()

    async def older(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"PNL\x02" + bytes(32))
        asked.extend(await reader.read())
        writer.close()

    listener = await asyncio.start_unix_server(older, address.path)
    client = client_at(address)
    with pytest.raises(HandshakeError, match="speaks version 2"):
        await client.connect()
    assert not client.connected
    await until(lambda: bytes(asked) == HELLO)
    listener.close()


@pytest.mark.virtual_time
async def test_a_peer_that_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    """A peer that sends nothing is dropped when the time for a hello is over."""
    address = UnixAddress(str(tmp_path / "s"))
    server = TransportServer(never, idle, handshake_s=0.05)
    await server.start(address)
    reader, writer = await asyncio.open_unix_connection(address.path)
    began_s = loop_clock()()
    assert await reader.read() == HELLO
    assert loop_clock()() - began_s <= 0.05
    writer.close()
    await server.close()


@pytest.mark.asyncio
async def test_a_client_calls_nobody_in_a_folder_that_others_may_enter(tmp_path: Path) -> None:
    """A client refuses a socket in a folder that others may enter, as the server does."""
    address = UnixAddress(str(tmp_path / "s"))
    server, client = TransportServer(never, idle), client_at(address)
    await server.start(address)
    os.chmod(tmp_path, 0o755)
    with pytest.raises(PermissionError, match="0700"):
        await client.connect()
    assert server.connections == 0
    os.chmod(tmp_path, 0o700)
    await client.connect()
    await client.close()
    await server.close()
