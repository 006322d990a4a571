"""Calls over the transport, on real sockets: every request gets its own answer, whatever the others do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from batches import one_by_one, result_of, results_of
from certificates import Authority
from virtual_time import passes
from waiting import Gate, until

from deployments.transport import (
    MAX_FRAME_BYTES,
    Certificates,
    Endpoint,
    TcpAddress,
    TransportClient,
    TransportServer,
    UnixAddress,
)
from gateway.model.messages import Answer, Failure, FailureKind, InputReport, LoadReport, ReplicaTimings, Work
from gateway.tasks.classify import ClassifyParameters


def work(text: str, request_id: str = "r") -> Work:
    """One text to classify."""
    return Work("classify", (text,), ClassifyParameters(), remaining_s=1.0, strict=True, request_id=request_id)


def answer(text: str) -> Answer:
    """The echo's answer: the text is the label."""
    return Answer(([{"label": text, "score": 1.0}],), InputReport(1, 1, False), ReplicaTimings(0.0, 0.0, 0.0, 1))


class SecretiveError(Exception):
    """An exception that carries a text of the request."""


@dataclass
class Echo:
    """A handler that answers with the text; some texts are commands. It notes what it began and what was cancelled."""

    begun: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, work: Work) -> Answer | Failure:
        """Waits for the gate or some virtual seconds, or fails, where the text says so; echoes the rest."""
        text = work.inputs[0]
        self.begun.append(text)
        try:
            if text.startswith("wait"):
                await self.gate.wait()
            elif text.startswith("after "):
                await passes(float(text.removeprefix("after ")))
        except asyncio.CancelledError:
            self.cancelled.append(text)
            raise
        if text == "raise":
            raise SecretiveError(f"could not read {text}")
        if text == "huge":
            return answer("x" * MAX_FRAME_BYTES)
        return Failure(FailureKind.TOO_LONG, tokens=9, limit=8) if text == "fail" else answer(text)

    def report(self) -> LoadReport:
        """A load report that a test can recognise."""
        return LoadReport(0.5, 3)


@dataclass
class Connected:
    """A server with its handler and its clients, which are closed with it."""

    echo: Echo
    server: TransportServer
    endpoint: Endpoint
    certificates: Certificates
    loads: list[LoadReport] = field(default_factory=list)
    clients: list[TransportClient] = field(default_factory=list)

    async def client(self, node_id: str = "here") -> TransportClient:
        """One more client, connected: over the socket file from `here`, over TLS from anywhere else."""
        client = TransportClient(
            self.endpoint, node_id, self.loads.append, random.Random(1), certificates=self.certificates
        )
        await client.connect()
        self.clients.append(client)
        return client


@asynccontextmanager
async def connected(directory: Path, max_in_flight: int = 4096) -> AsyncIterator[Connected]:
    """A server on a socket file and on TCP."""
    echo, certificates = Echo(), Authority.made().write(directory / "certificates")
    server = TransportServer(
        one_by_one(echo.handle), echo.report, certificates=certificates, max_in_flight=max_in_flight
    )
    unix = UnixAddress(str(directory / "s"))
    await server.start(unix, TcpAddress("127.0.0.1", 0))
    made = Connected(echo, server, Endpoint("replica", "here", unix, server.tcp), certificates)
    yield made
    for client in made.clients:
        await client.close()
    await server.close()
    assert not (directory / "s").exists()


@pytest.mark.asyncio
@pytest.mark.parametrize("node_id", ["here", "elsewhere"])
async def test_a_request_gets_its_answer_and_the_load(tmp_path: Path, node_id: str) -> None:
    """A request gets its answer unchanged, and the load report with it, over the socket file and over TLS."""
    async with connected(tmp_path) as made:
        client = await made.client(node_id)
        assert await result_of(client, work("hello")) == answer("hello")
        assert await result_of(client, work("fail")) == Failure(FailureKind.TOO_LONG, tokens=9, limit=8)
        assert made.loads == [LoadReport(0.5, 3)] * 3  # on opening, and with each answer


@pytest.mark.asyncio
@pytest.mark.parametrize("node_id", ["here", "elsewhere"])
async def test_a_thousand_at_once_each_get_their_own(tmp_path: Path, node_id: str) -> None:
    """A thousand requests at once share a connection and never an answer."""
    async with connected(tmp_path) as made:
        client = await made.client(node_id)
        results = await asyncio.gather(*(result_of(client, work(f"text {n}")) for n in range(1000)))
        assert results == [answer(f"text {n}") for n in range(1000)]
        assert made.server.in_flight == 0


@pytest.mark.virtual_time
async def test_a_quick_answer_overtakes_a_slow_one(tmp_path: Path) -> None:
    """An answer is sent as soon as it is ready, not in the order of the requests."""
    async with connected(tmp_path) as made:
        client = await made.client()
        order: list[str] = []

        async def ask(text: str) -> None:
            await result_of(client, work(text))
            order.append(text)

        slow = asyncio.create_task(ask("wait"))
        await until(lambda: made.echo.begun == ["wait"])
        await ask("now")
        made.echo.gate.set()
        await slow
        assert order == ["now", "wait"]


@pytest.mark.asyncio
@pytest.mark.parametrize("node_id", ["here", "elsewhere"])
async def test_cancelling_a_request_cancels_its_work_and_no_other(tmp_path: Path, node_id: str) -> None:
    """Cancelling a request cancels its work on the server and no other request."""
    async with connected(tmp_path) as made:
        client = await made.client(node_id)
        leaving = asyncio.create_task(result_of(client, work("wait: leaves")))
        staying = asyncio.create_task(result_of(client, work("wait: stays")))
        await until(lambda: len(made.echo.begun) == 2)
        leaving.cancel()
        await until(lambda: made.echo.cancelled == ["wait: leaves"])
        await until(lambda: leaving.cancelled() and made.server.in_flight == 1)
        made.echo.gate.set()
        assert await staying == answer("wait: stays")
        assert await result_of(client, work("next")) == answer("next")


@pytest.mark.virtual_time
async def test_leaving_as_the_answer_arrives_disturbs_nobody(tmp_path: Path) -> None:
    """Requests that are cancelled at any stage, even as the answer arrives, leave the connection and others intact."""
    async with connected(tmp_path) as made:
        client = await made.client()
        rng = random.Random(3)

        async def impatient(n: int) -> None:
            task = asyncio.create_task(result_of(client, work(f"after {rng.random() / 50:.4f}")))
            await passes(rng.random() / 50)
            task.cancel()
            await asyncio.wait([task])

        patient = asyncio.gather(*(result_of(client, work(f"text {n}")) for n in range(200)))
        await asyncio.gather(*(impatient(n) for n in range(300)))
        assert await patient == [answer(f"text {n}") for n in range(200)]
        assert client.connected and await result_of(client, work("last")) == answer("last")
        await until(lambda: made.server.in_flight == 0)


@pytest.mark.asyncio
async def test_a_client_that_hangs_up_takes_only_its_own_requests(tmp_path: Path) -> None:
    """A client that closes cancels its own work and calls, while another client's request goes on."""
    async with connected(tmp_path) as made:
        leaving, staying = await made.client(), await made.client("elsewhere")
        lost = asyncio.create_task(result_of(leaving, work("wait: leaves")))
        kept = asyncio.create_task(result_of(staying, work("wait: stays")))
        await until(lambda: len(made.echo.begun) == 2)
        await leaving.close()
        assert await lost == Failure(FailureKind.UNAVAILABLE, "the connection was lost")
        await until(lambda: made.echo.cancelled == ["wait: leaves"])
        made.echo.gate.set()
        assert await kept == answer("wait: stays")
        assert (await result_of(leaving, work("more"))) == Failure(FailureKind.UNAVAILABLE, "not connected")


@pytest.mark.asyncio
async def test_a_handler_that_raises_fails_one_request(tmp_path: Path) -> None:
    """A handler that raises fails one request: the caller learns the error's type, not its text."""
    async with connected(tmp_path) as made:
        client = await made.client()
        assert await result_of(client, work("raise")) == Failure(FailureKind.ENGINE, "SecretiveError")
        assert await result_of(client, work("next")) == answer("next")


@pytest.mark.asyncio
async def test_an_answer_too_long_to_send_fails_one_request(tmp_path: Path) -> None:
    """An answer too long to send fails its request as the engine's failure, and the connection goes on."""
    async with connected(tmp_path) as made:
        client = await made.client()
        assert await result_of(client, work("huge")) == Failure(FailureKind.ENGINE, "FrameTooLong")
        assert await result_of(client, work("next")) == answer("next")


@pytest.mark.asyncio
async def test_work_that_cannot_be_sent_fails_alone(tmp_path: Path) -> None:
    """Work that is too long or cannot be encoded fails its caller alone and is never sent."""
    async with connected(tmp_path) as made:
        client = await made.client()
        refusals = [await result_of(client, work(text)) for text in ("x" * MAX_FRAME_BYTES, "\ud800")]
        assert [one.kind for one in refusals if isinstance(one, Failure)] == [FailureKind.TOO_LONG, FailureKind.ENGINE]
        assert await result_of(client, work("next")) == answer("next")
        assert made.echo.begun == ["next"]


@pytest.mark.asyncio
async def test_batches_past_the_limit_are_refused(tmp_path: Path) -> None:
    """Batches over the limit of a connection are refused whole until one of them ends or is cancelled."""
    async with connected(tmp_path, max_in_flight=2) as made:
        client = await made.client()
        held = [asyncio.create_task(result_of(client, work(f"wait {n}"))) for n in range(2)]
        await until(lambda: len(made.echo.begun) == 2)
        refusals = await results_of(client, work("one"), work("too many"))
        assert [one.kind for one in refusals if isinstance(one, Failure)] == [FailureKind.QUEUE_FULL] * 2
        held[0].cancel()
        await until(lambda: made.server.in_flight == 1)
        assert await result_of(client, work("fits")) == answer("fits")
        made.echo.gate.set()
        assert await held[1] == answer("wait 1")


@pytest.mark.asyncio
async def test_an_owner_that_raises_harms_no_request(tmp_path: Path) -> None:
    """An owner that raises on a load report harms no request; the loop logs the error."""
    reported: list[object] = []

    def buggy(load: LoadReport) -> None:
        raise KeyError(load)

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))
    async with connected(tmp_path) as made:
        client = TransportClient(made.endpoint, "here", buggy, random.Random(1))
        made.clients.append(client)
        await client.connect()
        assert await result_of(client, work("one")) == answer("one")
        assert await result_of(client, work("two")) == answer("two")
        assert [type(error) for error in reported] == [KeyError] * 3  # on opening, and with each answer


@pytest.mark.asyncio
@pytest.mark.parametrize("node_id", ["here", "elsewhere"])
async def test_large_answers_come_back_whole(tmp_path: Path, node_id: str) -> None:
    """Large answers come back whole: ten of 0.5 to 0.75 MB share a connection."""
    async with connected(tmp_path) as made:
        client = await made.client(node_id)
        texts = [f"{n} " * 250_000 for n in range(0, 100, 10)]
        results = await asyncio.gather(*(result_of(client, work(text)) for text in texts))
        assert results == [answer(text) for text in texts]


@pytest.mark.asyncio
async def test_the_load_says_how_many_callers_there_are(tmp_path: Path) -> None:
    """Every client learns from the next load report how many clients there are, also after one has left.

    A connection without a handshake does not count. The count is never below one: the client that reads it.
    """
    gate, address = Gate(), UnixAddress(str(tmp_path / "s"))
    server = TransportServer(gate.handle, lambda: LoadReport(0.5, 3, sharing=2))
    await server.start(address)
    heard: list[list[LoadReport]] = [[], []]
    endpoint = Endpoint("replica", "here", address)
    first, second = (
        TransportClient(endpoint, "here", reports.append, random.Random(1), heartbeat_s=0.02) for reports in heard
    )
    _, stranger = await asyncio.open_unix_connection(address.path)
    await first.connect()
    await until(lambda: len(heard[0]) > 1)
    assert {report.callers for report in heard[0]} == {1}
    await second.connect()
    await until(lambda: heard[1:] != [[]] and heard[0][-1].callers == 2)
    assert heard[1][0] == LoadReport(0.5, 3, sharing=2, callers=2)
    await second.close()
    await until(lambda: heard[0][-1].callers == 1)
    stranger.close()
    await first.close()
    await server.close()
    assert LoadReport(0.0, 0).callers == 1
