"""How links begin and end: killed and silent replicas, reconnecting, draining."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from waiting import ECHO, Gate, idle, until

from deployments.link import Backoff, Endpoint, LinkClient, LinkServer, TcpAddress, UnixAddress
from deployments.link.handshake import NONCE_BYTES, Handshake, Role
from gateway.model.messages import Failure, FailureKind, LoadReport, Work
from gateway.tasks.classify import ClassifyParameters

SECRET = b"a secret of the application"
WORK = Work("classify", ("hello",), ClassifyParameters(), remaining_s=1.0, strict=True, request_id="r")
LOST = Failure(FailureKind.UNAVAILABLE, "the link was lost")
QUICK = Backoff(first_s=0.01, cap_s=0.05)

HANGING_SERVER = """
import asyncio, sys
from deployments.link import LinkServer, UnixAddress
from gateway.model.messages import LoadReport

async def hang(work):
    await asyncio.sleep(60)

async def main():
    await LinkServer(hang, lambda: LoadReport(0.0, 0), sys.argv[2].encode()).start(UnixAddress(sys.argv[1]))
    print("listening", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def client_of(
    endpoint: Endpoint, heard: list[LoadReport], losses: list[str], heartbeat_s: float = 1.0, node_id: str = "here"
) -> LinkClient:
    """A client that tries again quickly and notes what it is told."""
    return LinkClient(
        endpoint,
        SECRET,
        node_id,
        heard.append,
        random.Random(1),
        on_disconnect=lambda: losses.append("lost"),
        heartbeat_s=heartbeat_s,
        backoff=QUICK,
    )


@asynccontextmanager
async def serving(directory: Path, silence_s: float = 30.0) -> AsyncIterator[tuple[LinkServer, Gate, Endpoint]]:
    """A server with a gated handler."""
    gate, address = Gate(), UnixAddress(str(directory / "s"))
    server = LinkServer(gate.handle, idle, SECRET, silence_s=silence_s)
    await server.start(address)
    yield server, gate, Endpoint("replica", "here", address)
    await server.close()


@pytest.mark.asyncio
async def test_a_killed_replica_fails_its_requests_at_once_and_is_found_again(tmp_path: Path) -> None:
    """After SIGKILL all that is pending ends as UNAVAILABLE at once; a successor at the address is connected to."""
    address, losses, heard = UnixAddress(str(tmp_path / "s")), list[str](), list[LoadReport]()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HANGING_SERVER, address.path, SECRET.decode(), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"listening\n"
    client = client_of(Endpoint("replica", "here", address), heard, losses, heartbeat_s=30.0)
    running = asyncio.create_task(client.run())
    await until(lambda: client.connected)
    pending = asyncio.gather(*(client.submit(WORK) for _ in range(10)))
    await asyncio.sleep(0.05)
    process.kill()
    assert await asyncio.wait_for(pending, timeout=2.0) == [LOST] * 10
    assert losses == ["lost"] and not client.connected
    assert (await client.submit(WORK)) == Failure(FailureKind.UNAVAILABLE, "not connected")
    await process.wait()

    async with serving(tmp_path) as (_, gate, _):
        gate.gate.set()
        await until(lambda: client.connected)
        assert await client.submit(WORK) == ECHO
        await client.close()
        await asyncio.wait_for(running, timeout=1.0)
    assert losses == ["lost"]


@pytest.mark.asyncio
async def test_a_client_waits_for_a_replica_that_is_not_there_yet(tmp_path: Path) -> None:
    """Failed attempts end nothing: the client is connected once somebody listens, and `close` ends its trying."""
    endpoint = Endpoint("replica", "here", UnixAddress(str(tmp_path / "s")))
    client, late = client_of(endpoint, [], []), client_of(endpoint, [], [])
    with pytest.raises(FileNotFoundError):
        await client.connect()
    running = asyncio.create_task(client.run())
    await asyncio.sleep(0.05)
    async with serving(tmp_path):
        await until(lambda: client.connected)
        await client.close()
        await asyncio.wait_for(running, timeout=1.0)
        await late.close()
        await late.run()
        assert not late.connected


@pytest.mark.asyncio
async def test_cancelling_run_leaves_nothing_broken(tmp_path: Path) -> None:
    """The owner may end the supervision; the connection lasts until `close`."""
    async with serving(tmp_path) as (_, gate, endpoint):
        gate.gate.set()
        client = client_of(endpoint, [], [])
        running = asyncio.create_task(client.run())
        await until(lambda: client.connected)
        running.cancel()
        await asyncio.wait([running])
        assert await client.submit(WORK) == ECHO
        await client.close()


@pytest.mark.asyncio
async def test_a_silent_peer_is_given_up(tmp_path: Path) -> None:
    """A TCP peer that neither speaks nor hangs up, as a dead node, is lost after three heartbeats."""

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handshake = Handshake(Role.SERVER, SECRET, bytes(NONCE_BYTES))
        writer.write(handshake.feed(await reader.readexactly(36)))
        writer.write(handshake.feed(await reader.readexactly(32)))
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(mute, "127.0.0.1", 0)
    tcp, losses = TcpAddress(*listener.sockets[0].getsockname()[:2]), list[str]()
    endpoint = Endpoint("replica", "elsewhere", UnixAddress("/nowhere"), tcp)
    client = client_of(endpoint, [], losses, heartbeat_s=0.03)
    await client.connect()
    assert await asyncio.wait_for(client.submit(WORK), timeout=2.0) == LOST
    assert losses == ["lost"]
    listener.close()
    await client.close()


@pytest.mark.asyncio
async def test_a_living_peer_with_nothing_to_say_is_kept(tmp_path: Path) -> None:
    """Heartbeats keep an idle link, at both ends, and bring the load meanwhile."""
    async with serving(tmp_path, silence_s=0.3) as (_, gate, endpoint):
        heard, losses = list[LoadReport](), list[str]()
        client = client_of(endpoint, heard, losses, heartbeat_s=0.04)
        await client.connect()
        slow = asyncio.create_task(client.submit(WORK))
        await asyncio.sleep(0.7)
        gate.gate.set()
        assert await slow == ECHO and not losses
        assert len(heard) > 3
        await client.close()


@pytest.mark.asyncio
async def test_draining_finishes_what_was_begun_and_takes_no_more(tmp_path: Path) -> None:
    """Every client is told, a late request may be tried elsewhere, and what was under way is answered."""
    async with serving(tmp_path) as (server, gate, endpoint):
        heard: list[LoadReport] = []
        client = client_of(endpoint, heard, [])
        await client.connect()
        begun = asyncio.create_task(client.submit(WORK))
        await until(lambda: gate.begun == 1)
        drained = asyncio.create_task(server.drain(grace_s=5.0))
        await until(lambda: LoadReport(0.0, 0, draining=True) in heard)
        assert await client.submit(WORK) == Failure(FailureKind.UNAVAILABLE, "draining")
        gate.gate.set()
        assert await begun == ECHO
        assert await drained == 0
        await client.close()


@pytest.mark.asyncio
async def test_grace_ends(tmp_path: Path) -> None:
    """What is not done within the grace is reported, and ends as UNAVAILABLE when the server closes."""
    async with serving(tmp_path) as (server, gate, endpoint):
        client = client_of(endpoint, [], [])
        await client.connect()
        endless = asyncio.create_task(client.submit(WORK))
        await until(lambda: gate.begun == 1)
        assert await server.drain(grace_s=0.05) == 1
        await server.close()
        assert await endless == LOST
        await client.close()


@pytest.mark.asyncio
async def test_who_connects_to_a_draining_server_is_told(tmp_path: Path) -> None:
    """A client that arrives during the drain learns of it before it asks."""
    async with serving(tmp_path) as (server, _, endpoint):
        await server.drain(grace_s=0.0)
        heard: list[LoadReport] = []
        client = client_of(endpoint, heard, [])
        await client.connect()
        await until(lambda: heard == [LoadReport(0.0, 0, draining=True)])
        await client.close()
