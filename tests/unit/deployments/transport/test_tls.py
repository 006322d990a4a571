"""TLS over TCP with certificates made here: which peers are accepted, and what a refusal costs and logs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import resource
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from batches import result_of
from certificates import Authority
from msgspec.structs import replace
from waiting import ECHO, Gate, idle, until

from deployments.transport import (
    Backoff,
    Certificates,
    CertificatesError,
    Endpoint,
    HandshakeError,
    TcpAddress,
    TransportClient,
    TransportServer,
    UnixAddress,
)
from deployments.transport.connection import HELLO, UNSENT_LIMIT_BYTES, Done, Submit, append_frame, server_frames
from deployments.transport.tls import AUTHORITY, CERTIFICATE, KEY
from gateway.model.messages import Failure, Work
from gateway.tasks.classify import ClassifyParameters

WORK = Work("classify", ("hello",), ClassifyParameters(), remaining_s=1.0, strict=True, request_id="r")
HOST = "127.0.0.1"
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

Session = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Session], None]:
    """Runs a coroutine on either loop: gateway and replicas run on uvloop, whose TLS is its own."""

    def session(main: Session) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(main())

    return session


def descriptors() -> int:
    """How many files and sockets this process has open."""
    return len(os.listdir("/proc/self/fd"))


@asynccontextmanager
async def serving(
    folder: Path, certificates: Certificates, handshake_s: float = 30.0
) -> AsyncIterator[tuple[TransportServer, Gate, Endpoint]]:
    """A server on TCP with an open gate. At the end no connection, request or file descriptor is left behind."""
    gate, unix = Gate(), UnixAddress(str(folder / "s"))
    gate.gate.set()
    server = TransportServer(gate.handle, idle, certificates=certificates, handshake_s=handshake_s)
    await server.start(unix, TcpAddress(HOST, 0))
    files = descriptors()
    try:
        yield server, gate, Endpoint("replica", "there", unix, server.tcp)
        await until(lambda: server.connections == 0 and server.in_flight == 0 and descriptors() <= files)
    finally:
        await server.close()


def client_of(endpoint: Endpoint, certificates: Certificates | None) -> TransportClient:
    """A client on another node."""
    return TransportClient(
        endpoint, "here", lambda load: None, random.Random(1), certificates=certificates, backoff=Backoff(0.01, 0.02)
    )


async def is_served(endpoint: Endpoint, certificates: Certificates) -> None:
    """True if a client with these certificates is accepted and answered."""
    client = client_of(endpoint, certificates)
    await client.connect()
    assert await result_of(client, WORK) == ECHO
    await client.close()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings in the log."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@asynccontextmanager
async def raw(endpoint: Endpoint, context: ssl.SSLContext | None) -> AsyncIterator[tuple[Any, Any]]:
    """A raw connection, with TLS or without."""
    assert endpoint.tcp is not None
    reader, writer = await asyncio.open_connection(HOST, endpoint.tcp.port, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def hung_up(reader: asyncio.StreamReader) -> bool:
    """True if the server ends the connection without having sent anything that a client reads as its hello."""
    try:
        return HELLO not in await asyncio.wait_for(reader.read(), timeout=30.0)
    except OSError:
        return True


def test_certificates_of_one_authority_let_each_other_in(tmp_path: Path, run: Callable[[Session], None]) -> None:
    """Two processes accept each other if one authority signed both their certificates."""
    authority = Authority.made()
    ours, theirs = authority.write(tmp_path / "ours"), authority.write(tmp_path / "theirs")

    async def main() -> None:
        async with serving(tmp_path, ours) as (_, _, endpoint):
            await is_served(endpoint, theirs)

    run(main)


REFUSED = {
    "another authority": "unable to get local issuer certificate|self-signed certificate",
    "expired": "certificate has expired",
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_wrong_client_is_refused(
    tmp_path: Path, run: Callable[[Session], None], caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """A client whose certificate the server does not trust never counts as connected, and the server logs why."""
    authority = Authority.made()
    good = authority.write(tmp_path / "good")
    wrong = (Authority.made() if fault == "another authority" else authority).write(
        tmp_path / "wrong", expired=fault == "expired"
    )
    shutil.copy(good.folder / AUTHORITY, wrong.folder / AUTHORITY)

    async def main() -> None:
        async with serving(tmp_path, good) as (server, gate, endpoint):
            client = client_of(endpoint, wrong)
            with pytest.raises((HandshakeError, ConnectionError), match=r"hung up before its hello|reset"):
                await client.connect()
            assert not client.connected
            await until(lambda: server.connections == 0)
            await is_served(endpoint, good)
            assert gate.begun == 1

    run(main)
    [line] = warnings(caplog)
    assert line.startswith("transport: a connection from 127.0.0.1 is refused: the peer's certificate is refused: ")
    assert any(reason in line for reason in REFUSED[fault].split("|"))


@pytest.mark.parametrize("fault", REFUSED)
def test_a_wrong_server_is_refused(
    tmp_path: Path, run: Callable[[Session], None], caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """A server without a good certificate gets no work, and the client logs once why."""
    authority = Authority.made()
    good = authority.write(tmp_path / "good")
    wrong = (Authority.made() if fault == "another authority" else authority).write(
        tmp_path / "wrong", expired=fault == "expired"
    )

    async def main() -> None:
        async with serving(tmp_path, wrong) as (_, gate, endpoint):
            client = client_of(endpoint, good)
            with pytest.raises(HandshakeError, match=REFUSED[fault]):
                await client.connect()
            running = asyncio.create_task(client.run())
            await until(lambda: caplog.text.count("transport: replica: ") > 2)
            assert not client.connected and gate.begun == 0
            await client.close()
            await running

    caplog.set_level(logging.DEBUG)
    run(main)
    [line] = [line for line in warnings(caplog) if "transport: replica: " in line]
    assert line.startswith("transport: replica: the peer's certificate is refused: ")


def test_a_client_without_a_certificate_is_refused(
    tmp_path: Path, run: Callable[[Session], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A client without a certificate is refused, even if it trusts the server."""
    good = Authority.made().write(tmp_path / "good")
    context = ssl.create_default_context(cafile=str(good.folder / AUTHORITY))
    context.check_hostname = False

    async def main() -> None:
        async with serving(tmp_path, good) as (_, gate, endpoint), raw(endpoint, context) as (reader, _):
            assert await hung_up(reader)
            assert gate.begun == 0

    run(main)
    assert warnings(caplog) == ["transport: a connection from 127.0.0.1 is refused: the peer shows no certificate"]


PLAIN = {
    "an older version": b"PNL\x02" + bytes(32),
    "this version": HELLO + bytes(300),
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": bytes(64),
}


@pytest.mark.parametrize("said", PLAIN.values(), ids=PLAIN.keys())
def test_plain_text_is_refused(
    tmp_path: Path, run: Callable[[Session], None], caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    """A connection over TCP without TLS is refused, on loopback too, and logged in one line."""
    good = Authority.made().write(tmp_path / "good")

    async def main() -> None:
        async with serving(tmp_path, good) as (_, gate, endpoint):
            async with raw(endpoint, None) as (reader, writer):
                writer.write(said)
                assert await hung_up(reader)
            await is_served(endpoint, good)
            assert gate.begun == 1

    run(main)
    [line] = warnings(caplog)
    assert line == "transport: a connection from 127.0.0.1 is refused: the peer does not speak TLS"


def test_an_older_tls_is_refused(
    tmp_path: Path, run: Callable[[Session], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A client with TLS 1.2 is refused, even with a good certificate."""
    good = Authority.made().write(tmp_path / "good")
    context = good.client_context()
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2

    async def main() -> None:
        async with serving(tmp_path, good) as (_, _, endpoint):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                async with raw(endpoint, context):
                    raise AssertionError("it was let in")

    run(main)
    assert warnings(caplog) == ["transport: a connection from 127.0.0.1 is refused: TLS failed: unsupported protocol"]


def test_a_peer_that_stalls_in_its_handshake_is_dropped(
    tmp_path: Path, run: Callable[[Session], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A peer that stalls in its TLS handshake is dropped, while another client is served."""
    good = Authority.made().write(tmp_path / "good")

    async def main() -> None:
        async with serving(tmp_path, good, handshake_s=0.5) as (server, _, endpoint):
            for begun in (b"", b"\x16\x03\x01\x02\x00\x01"):
                async with raw(endpoint, None) as (reader, writer):
                    writer.write(begun)
                    await until(lambda: server.connections == 1)
                    assert await hung_up(reader)
            await is_served(endpoint, good)

    run(main)
    assert len(warnings(caplog)) == 2


def test_a_peer_that_stalls_before_its_hello_is_dropped(tmp_path: Path, run: Callable[[Session], None]) -> None:
    """A peer that stalls before its hello is dropped, even with a good certificate."""
    good = Authority.made().write(tmp_path / "good")

    async def main() -> None:
        async with (
            serving(tmp_path, good, handshake_s=0.5) as (server, _, endpoint),
            raw(endpoint, good.client_context()) as (reader, _),
        ):
            assert await asyncio.wait_for(reader.readexactly(len(HELLO)), timeout=30.0) == HELLO
            await until(lambda: server.connections == 0)

    run(main)


def test_hostile_bytes_inside_tls_end_one_connection(tmp_path: Path, run: Callable[[Session], None]) -> None:
    """A peer with a good certificate that breaks the protocol spoils its own connection alone."""
    good = Authority.made().write(tmp_path / "good")

    async def main() -> None:
        async with serving(tmp_path, good) as (server, gate, endpoint):
            beside = client_of(endpoint, good)
            await beside.connect()
            for said in (b"GET", HELLO + b"\xff\xff\xff\xff", HELLO + b"\x00\x00\x00\x01\xc1"):
                async with raw(endpoint, good.client_context()) as (reader, writer):
                    writer.write(said)
                    await asyncio.wait_for(asyncio.gather(reader.read(), return_exceptions=True), timeout=30.0)
                await until(lambda: server.connections == 1)
            assert await result_of(beside, WORK) == ECHO and gate.begun == 1
            await beside.close()

    run(main)


def test_many_requests_share_a_connection(tmp_path: Path, run: Callable[[Session], None]) -> None:
    """A thousand requests share a TLS connection: each gets its own answer, however large, unless it was cancelled."""
    good = Authority.made().write(tmp_path / "good")
    texts = [f"{n} " * (100_000 if n % 100 == 0 else 1) for n in range(1000)]

    async def main() -> None:
        async with serving(tmp_path, good) as (server, gate, endpoint):
            gate.gate.clear()
            client = client_of(endpoint, good)
            await client.connect()
            tasks = [asyncio.create_task(result_of(client, replace(WORK, inputs=(text,)))) for text in texts]
            await until(lambda: server.in_flight == 1000)
            for task in tasks[::2]:
                task.cancel()
            await until(lambda: server.in_flight == 500)
            gate.gate.set()
            kept = await asyncio.gather(*tasks[1::2])
            assert [answer.detail for answer in kept if isinstance(answer, Failure)] == [ECHO.detail] * 500
            assert all(task.cancelled() for task in tasks[::2])
            await client.close()

    run(main)


def test_a_client_that_does_not_read_is_not_read_from(tmp_path: Path, run: Callable[[Session], None]) -> None:
    """TLS buffers are bounded too: a client that reads late gets all its answers, of more than may wait."""
    good, count = Authority.made().write(tmp_path / "good"), 20_000
    assert count * len(ECHO.detail) > UNSENT_LIMIT_BYTES
    flood = bytearray(HELLO)
    for n in range(count):
        append_frame(flood, Submit(n, (replace(WORK, inputs=("hello " * 200,)),)))

    async def main() -> None:
        async with (
            serving(tmp_path, good) as (server, gate, endpoint),
            raw(endpoint, good.client_context()) as (reader, writer),
        ):
            writer.write(flood)
            await until(lambda: len(server._state.connections) == 1)
            (peer,) = server._state.connections  # nothing else shows if the server reads from it
            await until(lambda: peer._transport is not None and not peer._transport.is_reading())
            await until(lambda: server.in_flight == 0)
            assert gate.begun < count and peer.unsent_bytes < UNSENT_LIMIT_BYTES
            frames, ids = server_frames(), list[int]()
            assert await reader.readexactly(len(HELLO)) == HELLO
            while len(ids) < count:
                data = await asyncio.wait_for(reader.read(1 << 16), timeout=30.0)
                assert data
                ids += [frame.id for frame in frames.feed(data) if isinstance(frame, Done)]
            assert sorted(ids) == list(range(count))

    run(main)


def test_a_listener_without_file_descriptors_tries_again(
    tmp_path: Path, run: Callable[[Session], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A listener out of file descriptors says so, keeps listening, and accepts connections once there are some."""
    good = Authority.made().write(tmp_path / "good")
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main() -> None:
        async with serving(tmp_path, good) as (_, _, endpoint):
            assert endpoint.tcp is not None
            waiting, taken = socket.create_connection((HOST, endpoint.tcp.port)), list[int]()
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 50, allowed[1]))
                with contextlib.suppress(OSError):
                    while True:
                        taken.append(os.open("/dev/null", os.O_RDONLY))
                await until(lambda: "no connection can be accepted" in caplog.text)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, allowed)
                for file in taken:
                    os.close(file)
                waiting.close()
            await is_served(endpoint, good)

    run(main)


def test_closing_drops_those_that_still_shake_hands(tmp_path: Path, run: Callable[[Session], None]) -> None:
    """Closing a server drops the connections that are still in their handshake."""
    good = Authority.made().write(tmp_path / "good")

    async def main() -> None:
        async with serving(tmp_path, good) as (server, _, endpoint), raw(endpoint, None) as (reader, _):
            await until(lambda: server.connections == 1)
            await server.close()
            assert await hung_up(reader)

    run(main)


def test_a_renewed_certificate_is_used_by_the_next_connection(tmp_path: Path, run: Callable[[Session], None]) -> None:
    """A renewed certificate is used by the next connection at both ends, and an old authority is trusted no more."""
    old, new = Authority.made(), Authority.made()
    ours = old.write(tmp_path / "ours")
    former = old.write(tmp_path / "former")

    async def main() -> None:
        async with serving(tmp_path, ours) as (_, _, endpoint):
            client = client_of(endpoint, ours)
            await client.connect()
            new.write(tmp_path / "ours")
            assert await result_of(client, WORK) == ECHO, "what is connected stays connected"
            await is_served(endpoint, ours)
            with pytest.raises((HandshakeError, ConnectionError)):
                await client_of(endpoint, former).connect()
            await client.close()

    run(main)


def test_certificates_that_are_gone_refuse_the_next_connection_only(
    tmp_path: Path, run: Callable[[Session], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Lost certificate files refuse new connections only, with the reason in the log, until they are back."""
    good = Authority.made().write(tmp_path / "good")
    kept = (good.folder / KEY).read_bytes()
    client_side = Certificates(tmp_path / "client")
    shutil.copytree(good.folder, client_side.folder)

    async def main() -> None:
        async with serving(tmp_path, good) as (_, _, endpoint):
            client = client_of(endpoint, client_side)
            await client.connect()
            (good.folder / KEY).unlink()
            with pytest.raises((HandshakeError, ConnectionError)):
                await client_of(endpoint, client_side).connect()
            assert await result_of(client, WORK) == ECHO
            (good.folder / KEY).write_bytes(kept)
            await is_served(endpoint, client_side)
            await client.close()

    run(main)
    [line] = warnings(caplog)
    assert line.endswith("tls.key: No such file or directory")


def test_two_authorities_in_one_file_are_both_trusted(tmp_path: Path, run: Callable[[Session], None]) -> None:
    """Two authorities in one file are both trusted, so that an authority can be changed without an outage."""
    old, new = Authority.made(), Authority.made()
    ours, theirs = old.write(tmp_path / "ours"), new.write(tmp_path / "theirs")
    both = (ours.folder / AUTHORITY).read_bytes() + (theirs.folder / AUTHORITY).read_bytes()
    for one in (ours, theirs):
        (one.folder / AUTHORITY).write_bytes(both)

    async def main() -> None:
        async with serving(tmp_path, ours) as (_, _, endpoint):
            await is_served(endpoint, theirs)

    run(main)


async def test_tcp_without_certificates_is_refused(tmp_path: Path) -> None:
    """TCP without certificates is refused before anything listens, at both ends and on loopback too."""
    unix, tcp = UnixAddress(str(tmp_path / "s")), TcpAddress(HOST, 0)
    server = TransportServer(Gate().handle, idle)
    with pytest.raises(ValueError, match="TCP needs certificates"):
        await server.start(unix, tcp)
    assert server.tcp is None
    with pytest.raises(ValueError, match="replica r is reached over TCP, which needs certificates"):
        client_of(Endpoint("r", "there", unix, TcpAddress(HOST, 1)), None)


def test_files_that_cannot_work_are_named(tmp_path: Path) -> None:
    """`check` names the certificate file that cannot work, or what is wrong between several."""
    authority = Authority.made()
    authority.write(tmp_path / "good").check()
    for name in (AUTHORITY, CERTIFICATE, KEY):
        lacking = authority.write(tmp_path / f"without-{name}")
        (lacking.folder / name).unlink()
        with pytest.raises(CertificatesError, match=f"{name}: No such file or directory"):
            lacking.check()
    mixed = authority.write(tmp_path / "mixed")
    shutil.copy(tmp_path / "good" / KEY, mixed.folder / KEY)
    with pytest.raises(CertificatesError, match="mixed: KEY_VALUES_MISMATCH"):
        mixed.check()
    with pytest.raises(
        CertificatesError, match=r"tls\.crt: the peer's certificate is refused: certificate has expired"
    ):
        authority.write(tmp_path / "old", expired=True).check()
    foreign = Authority.made().write(tmp_path / "foreign")
    shutil.copy(tmp_path / "good" / AUTHORITY, foreign.folder / AUTHORITY)
    with pytest.raises(CertificatesError, match=r"tls\.crt: the peer's certificate is refused"):
        foreign.check()
    garbage = authority.write(tmp_path / "garbage")
    (garbage.folder / AUTHORITY).write_text("no certificate")
    with pytest.raises(CertificatesError, match="garbage: "):
        garbage.check()


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    """A key with a passphrase is refused without waiting for input, since a pod has no terminal."""
    from cryptography.hazmat.primitives import serialization

    locked = Authority.made().write(tmp_path / "locked")
    key = serialization.load_pem_private_key((locked.folder / KEY).read_bytes(), None)
    (locked.folder / KEY).write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"phrase"),
        )
    )
    with pytest.raises(CertificatesError, match="locked: "):
        locked.check()


async def test_no_key_is_in_a_message_or_a_setting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The content of key files appears in no log line and no representation."""
    good = Authority.made().write(tmp_path / "good")
    body = (good.folder / KEY).read_text().splitlines()[1]
    async with serving(tmp_path, good) as (_, _, endpoint):
        with pytest.raises(HandshakeError):
            await client_of(endpoint, Authority.made().write(tmp_path / "other")).connect()
    assert body not in caplog.text and body not in repr(good)
