"""The handshake, first as bytes in and bytes out, then on real sockets against strangers."""

from __future__ import annotations

import asyncio
import logging
import random
from pathlib import Path

import pytest
from waiting import idle

from deployments.link import Endpoint, HandshakeError, LinkClient, LinkServer, UnixAddress
from deployments.link.handshake import NONCE_BYTES, Handshake, Role
from gateway.model.messages import Failure, FailureKind, Work
from gateway.tasks.classify import ClassifyParameters

SECRET = b"a secret of the application"
OTHER = b"another secret, as long a one"
ONE, TWO = bytes([1]) * NONCE_BYTES, bytes([2]) * NONCE_BYTES


def shake(client: Handshake, server: Handshake) -> None:
    """Carries bytes to and fro until both are done or one refuses."""
    to_server = client.opening
    while not (client.done and server.done):
        to_server = client.feed(server.feed(to_server))


def test_two_who_hold_the_secret_trust_each_other() -> None:
    """Both ends are done, with nothing left over."""
    client, server = Handshake(Role.CLIENT, SECRET, ONE), Handshake(Role.SERVER, SECRET, TWO)
    shake(client, server)
    assert (client.leftover, server.leftover) == (b"", b"")


def test_a_server_proves_nothing_to_one_who_has_not() -> None:
    """A client with another secret is refused before the server has shown a proof to work on."""
    client, server = Handshake(Role.CLIENT, OTHER, ONE), Handshake(Role.SERVER, SECRET, TWO)
    proof = client.feed(server.feed(client.opening))
    with pytest.raises(HandshakeError, match="client holds another secret"):
        server.feed(proof)


def test_a_client_refuses_a_server_that_takes_anyone() -> None:
    """A listener that answers a proof with a guess is no replica, even if it lets the client in."""
    client = Handshake(Role.CLIENT, SECRET, ONE)
    client.feed(Handshake(Role.SERVER, OTHER, TWO).feed(client.opening))
    with pytest.raises(HandshakeError, match="server holds another secret"):
        client.feed(bytes(32))


def test_a_proof_cannot_be_reflected() -> None:
    """A peer that only echoes what it hears is refused: a proof is for one role."""
    client = Handshake(Role.CLIENT, SECRET, ONE)
    proof = client.feed(client.opening)
    with pytest.raises(HandshakeError):
        client.feed(proof)


def test_a_proof_cannot_be_replayed() -> None:
    """What convinced one server convinces no other connection: the nonce is the server's own and fresh."""
    client, server = Handshake(Role.CLIENT, SECRET, ONE), Handshake(Role.SERVER, SECRET, TWO)
    proof = client.feed(server.feed(client.opening))
    again = Handshake(Role.SERVER, SECRET, bytes([3]) * NONCE_BYTES)
    again.feed(client.opening)
    with pytest.raises(HandshakeError):
        again.feed(proof)


def test_another_version_is_named() -> None:
    """Two releases that do not fit say so; they do not misread each other."""
    with pytest.raises(HandshakeError, match="version 9 of the link, this side 2"):
        Handshake(Role.SERVER, SECRET, TWO).feed(b"PNL\x09" + ONE)


def test_a_stranger_is_refused_at_its_first_wrong_byte() -> None:
    """Who speaks HTTP here is not waited for."""
    with pytest.raises(HandshakeError, match="does not speak"):
        Handshake(Role.SERVER, SECRET, TWO).feed(b"GET")


def test_a_short_secret_is_refused() -> None:
    """A secret that can be guessed is an error where it is given."""
    with pytest.raises(ValueError, match="16 bytes"):
        Handshake(Role.CLIENT, b"short", ONE)


async def never(work: Work) -> Failure:
    """A handler that must not be reached."""
    raise AssertionError(work)


def client_at(address: UnixAddress, secret: bytes) -> LinkClient:
    """A client of whoever listens there."""
    return LinkClient(Endpoint("r", "n", address), secret, "n", lambda load: None, random.Random(1))


@pytest.mark.asyncio
async def test_a_wrong_secret_is_refused_and_never_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither end connects, the client hears why it may be, and no secret stands in an error or a log."""
    caplog.set_level(logging.DEBUG)
    address = UnixAddress(str(tmp_path / "s"))
    server, client = LinkServer(never, idle, SECRET), client_at(address, OTHER)
    await server.start(address)
    with pytest.raises(HandshakeError, match="another secret") as refusal:
        await client.connect()
    assert not client.connected
    told = str(refusal.value) + caplog.text
    assert "another secret" in caplog.text
    assert SECRET.decode() not in told and OTHER.decode() not in told
    await client.close()
    await server.close()


@pytest.mark.asyncio
async def test_a_client_hangs_up_on_an_impostor(tmp_path: Path) -> None:
    """A listener without the secret gets no work, even if it plays along."""
    address, asked = UnixAddress(str(tmp_path / "s")), bytearray()

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handshake = Handshake(Role.SERVER, OTHER, TWO)
        writer.write(handshake.feed(await reader.readexactly(36)))
        await reader.readexactly(32)
        writer.write(bytes(32))
        asked.extend(await reader.read())
        writer.close()

    listener = await asyncio.start_unix_server(impostor, address.path)
    client = client_at(address, SECRET)
    with pytest.raises(HandshakeError, match="server holds another secret"):
        await client.connect()
    work = Work("classify", ("x",), ClassifyParameters(), remaining_s=1.0, strict=True, request_id="r")
    assert await client.submit(work) == Failure(FailureKind.UNAVAILABLE, "not connected")
    listener.close()
    assert not asked


@pytest.mark.asyncio
async def test_a_peer_that_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    """The time for a handshake is bounded: a silent stranger is hung up on."""
    address = UnixAddress(str(tmp_path / "s"))
    server = LinkServer(never, idle, SECRET, handshake_s=0.05)
    await server.start(address)
    reader, writer = await asyncio.open_unix_connection(address.path)
    assert await asyncio.wait_for(reader.read(), timeout=1.0) == b""
    writer.close()
    await server.close()
