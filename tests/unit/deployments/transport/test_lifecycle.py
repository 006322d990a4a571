"""How connections begin and end: killed and silent replicas, reconnecting, draining."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from batches import result_of
from certificates import Authority
from virtual_time import loop_clock, passes
from waiting import ECHO, Gate, idle, until

from deployments.transport import (
    Backoff,
    Certificates,
    Endpoint,
    TcpAddress,
    TransportClient,
    TransportServer,
    UnixAddress,
)
from deployments.transport.connection import HELLO
from gateway.model.messages import Failure, FailureKind, LoadReport, Work
from gateway.tasks.classify import ClassifyParameters

WORK = Work("classify", ("hello",), ClassifyParameters(), remaining_s=1.0, strict=True, request_id="r")
LOST = Failure(FailureKind.UNAVAILABLE, "the connection was lost")
QUICK = Backoff(first_s=0.01, cap_s=0.05)

HANGING_SERVER = """
import asyncio, sys
from deployments.transport import TransportServer, UnixAddress
from gateway.model.messages import LoadReport

async def hang(batch, emit):
    print("begun", flush=True)
    await asyncio.Event().wait()

async def main():
    await TransportServer(hang, lambda: LoadReport(0.0, 0)).start(UnixAddress(sys.argv[1]))
    print("listening", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def client_of(
    endpoint: Endpoint,
    heard: list[LoadReport],
    losses: list[str],
    heartbeat_s: float = 1.0,
    node_id: str = "here",
    certificates: Certificates | None = None,
) -> TransportClient:
    """A client that retries quickly and notes the reports it gets."""
    return TransportClient(
        endpoint,
        node_id,
        heard.append,
        random.Random(1),
        certificates=certificates,
        on_disconnect=lambda: losses.append("lost"),
        heartbeat_s=heartbeat_s,
        backoff=QUICK,
    )


@asynccontextmanager
async def serving(directory: Path, silence_s: float = 30.0) -> AsyncIterator[tuple[TransportServer, Gate, Endpoint]]:
    """A server with a gated handler."""
    gate, address = Gate(), UnixAddress(str(directory / "s"))
    server = TransportServer(gate.handle, idle, silence_s=silence_s)
    await server.start(address)
    yield server, gate, Endpoint("replica", "here", address)
    await server.close()


@pytest.mark.asyncio
async def test_a_killed_replica_fails_its_requests_at_once_and_is_found_again(tmp_path: Path) -> None:
    """Requests on a killed replica are UNAVAILABLE at once, and a successor at the address is connected."""
    address, losses, heard = UnixAddress(str(tmp_path / "s")), list[str](), list[LoadReport]()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HANGING_SERVER, address.path, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"listening\n"
    client = client_of(Endpoint("replica", "here", address), heard, losses, heartbeat_s=600.0)
    running = asyncio.create_task(client.run())
    await until(lambda: client.connected)
    pending = asyncio.gather(*(result_of(client, WORK) for _ in range(10)))
    assert [await process.stdout.readline() for _ in range(10)] == [b"begun\n"] * 10
    process.kill()
    assert await asyncio.wait_for(pending, timeout=60.0) == [LOST] * 10  # no heartbeat is missed so early
    assert losses == ["lost"] and not client.connected
    assert (await result_of(client, WORK)) == Failure(FailureKind.UNAVAILABLE, "not connected")
    await process.wait()

    async with serving(tmp_path) as (_, gate, _):
        gate.gate.set()
        await until(lambda: client.connected)
        assert await result_of(client, WORK) == ECHO
        await client.close()
        await running
    assert losses == ["lost"]


@pytest.mark.virtual_time
async def test_a_client_waits_for_a_replica_that_is_not_there_yet(tmp_path: Path) -> None:
    """A client keeps trying until a replica listens, or until `close`."""
    endpoint = Endpoint("replica", "here", UnixAddress(str(tmp_path / "s")))
    client, late = client_of(endpoint, [], []), client_of(endpoint, [], [])
    with pytest.raises(FileNotFoundError):
        await client.connect()
    running = asyncio.create_task(client.run())
    await passes(1.0)
    assert not client.connected
    async with serving(tmp_path):
        await until(lambda: client.connected)
        began_s = loop_clock()()
        await client.close()
        await running
        assert loop_clock()() == began_s
        await late.close()
        await late.run()
        assert not late.connected


@pytest.mark.asyncio
async def test_cancelling_run_leaves_nothing_broken(tmp_path: Path) -> None:
    """Cancelling `run` leaves the connection intact until `close`."""
    async with serving(tmp_path) as (_, gate, endpoint):
        gate.gate.set()
        client = client_of(endpoint, [], [])
        running = asyncio.create_task(client.run())
        await until(lambda: client.connected)
        running.cancel()
        await asyncio.wait([running])
        assert await result_of(client, WORK) == ECHO
        await client.close()


@pytest.mark.virtual_time
async def test_a_silent_peer_is_given_up(tmp_path: Path) -> None:
    """A peer that is silent without hanging up, such as a dead node, is lost after three heartbeats, over TLS too."""

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HELLO)
        await reader.read()
        writer.close()

    certificates = Authority.made().write(tmp_path / "certificates")
    listener = await asyncio.start_server(mute, "127.0.0.1", 0, ssl=certificates.server_context())
    tcp, losses = TcpAddress(*listener.sockets[0].getsockname()[:2]), list[str]()
    endpoint = Endpoint("replica", "elsewhere", UnixAddress("/nowhere"), tcp)
    client = client_of(endpoint, [], losses, 0.03, "there", certificates)
    await client.connect()
    began_s = loop_clock()()
    assert await result_of(client, WORK) == LOST
    assert loop_clock()() - began_s <= 4 * 0.03
    assert losses == ["lost"]
    listener.close()
    await client.close()


@pytest.mark.virtual_time
async def test_a_living_peer_with_nothing_to_say_is_kept(tmp_path: Path) -> None:
    """Heartbeats keep an idle connection at both ends, and carry the load meanwhile."""
    async with serving(tmp_path, silence_s=0.3) as (_, gate, endpoint):
        heard, losses = list[LoadReport](), list[str]()
        client = client_of(endpoint, heard, losses, heartbeat_s=0.04)
        await client.connect()
        slow = asyncio.create_task(result_of(client, WORK))
        await passes(3.0)
        gate.gate.set()
        assert await slow == ECHO and not losses
        assert len(heard) > 60
        await client.close()


@pytest.mark.asyncio
async def test_draining_finishes_what_was_begun_and_takes_no_more(tmp_path: Path) -> None:
    """A draining server answers what is under way, tells every client, and lets late requests be tried elsewhere."""
    async with serving(tmp_path) as (server, gate, endpoint):
        heard: list[LoadReport] = []
        client = client_of(endpoint, heard, [])
        await client.connect()
        begun = asyncio.create_task(result_of(client, WORK))
        await until(lambda: gate.begun == 1)
        drained = asyncio.create_task(server.drain(grace_s=5.0))
        await until(lambda: LoadReport(0.0, 0, draining=True) in heard)
        assert await result_of(client, WORK) == Failure(FailureKind.UNAVAILABLE, "draining")
        gate.gate.set()
        assert await begun == ECHO
        assert await drained == 0
        await client.close()


@pytest.mark.virtual_time
async def test_grace_ends(tmp_path: Path) -> None:
    """Requests not finished within the grace are reported, and are UNAVAILABLE when the server closes."""
    async with serving(tmp_path) as (server, gate, endpoint):
        client = client_of(endpoint, [], [])
        await client.connect()
        endless = asyncio.create_task(result_of(client, WORK))
        await until(lambda: gate.begun == 1)
        began_s = loop_clock()()
        assert await server.drain(grace_s=5.0) == 1
        assert loop_clock()() - began_s == pytest.approx(5.0)
        await server.close()
        assert await endless == LOST
        await client.close()


@pytest.mark.asyncio
async def test_who_connects_to_a_draining_server_is_told(tmp_path: Path) -> None:
    """A client that connects to a draining server learns of the drain before it sends work."""
    async with serving(tmp_path) as (server, _, endpoint):
        await server.drain(grace_s=0.0)
        heard: list[LoadReport] = []
        client = client_of(endpoint, heard, [])
        await client.connect()
        await until(lambda: heard == [LoadReport(0.0, 0, draining=True)])
        await client.close()
