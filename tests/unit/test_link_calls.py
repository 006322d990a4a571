"""Calls over the link, on real sockets: every request gets its own answer, whatever the others do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from waiting import until

from deployments.link import MAX_FRAME_BYTES, Endpoint, LinkClient, LinkServer, ProtocolError, TcpAddress, UnixAddress
from gateway.model.messages import Answer, Failure, FailureKind, InputReport, LoadReport, ReplicaTimings, Work
from gateway.tasks.classify import ClassifyParameters, LabelScore

SECRET = b"a secret of the application"


def work(text: str, request_id: str = "r") -> Work:
    """One text to classify."""
    return Work("classify", (text,), ClassifyParameters(), remaining_s=1.0, strict=True, request_id=request_id)


def answer(text: str) -> Answer:
    """The echo's answer: the text is the label."""
    return Answer(((LabelScore(text, 1.0),),), InputReport(1, 1, False), ReplicaTimings(0.0, 0.0, 0.0, 1))


class SecretiveError(Exception):
    """What a handler raises with a text of the request in it."""


@dataclass
class Echo:
    """A handler that answers with the text; some texts are commands. It notes what it began and what was cancelled."""

    begun: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, work: Work) -> Answer | Failure:
        """Waits for the gate where the text begins with `wait`, fails where it says so, echoes the rest."""
        text = work.inputs[0]
        self.begun.append(text)
        try:
            if text.startswith("wait"):
                await self.gate.wait()
            elif text.startswith("after "):
                await asyncio.sleep(float(text.removeprefix("after ")))
        except asyncio.CancelledError:
            self.cancelled.append(text)
            raise
        if text == "raise":
            raise SecretiveError(f"could not read {text}")
        if text == "huge":
            return answer("x" * MAX_FRAME_BYTES)
        return Failure(FailureKind.TOO_LONG, tokens=9, limit=8) if text == "fail" else answer(text)

    def report(self) -> LoadReport:
        """A load to recognise."""
        return LoadReport(0.5, 3)


@dataclass
class Link:
    """A server, its handler, and clients that are closed with it."""

    echo: Echo
    server: LinkServer
    endpoint: Endpoint
    loads: list[LoadReport] = field(default_factory=list)
    clients: list[LinkClient] = field(default_factory=list)

    async def client(self, node_id: str = "here") -> LinkClient:
        """One more client, connected: over Unix from `here`, over TCP from anywhere else."""
        client = LinkClient(self.endpoint, SECRET, node_id, self.loads.append, random.Random(1))
        await client.connect()
        self.clients.append(client)
        return client


@asynccontextmanager
async def linked(directory: Path, max_in_flight: int = 4096) -> AsyncIterator[Link]:
    """A server on a socket file and on TCP."""
    echo = Echo()
    server = LinkServer(echo.handle, echo.report, SECRET, max_in_flight=max_in_flight)
    unix = UnixAddress(str(directory / "s"))
    await server.start(unix, TcpAddress("127.0.0.1", 0))
    link = Link(echo, server, Endpoint("replica", "here", unix, server.tcp))
    yield link
    for client in link.clients:
        await client.close()
    await server.close()
    assert not (directory / "s").exists()


@pytest.mark.asyncio
@pytest.mark.parametrize("node_id", ["here", "elsewhere"])
async def test_a_request_gets_its_answer_and_the_load(tmp_path: Path, node_id: str) -> None:
    """Over the socket file and over TCP alike: the answer comes back whole, and the load report with it."""
    async with linked(tmp_path) as link:
        client = await link.client(node_id)
        assert await client.submit(work("hello")) == answer("hello")
        assert await client.submit(work("fail")) == Failure(FailureKind.TOO_LONG, tokens=9, limit=8)
        assert link.loads == [LoadReport(0.5, 3)] * 3  # on opening, and with each answer


@pytest.mark.asyncio
@pytest.mark.parametrize("node_id", ["here", "elsewhere"])
async def test_a_thousand_at_once_each_get_their_own(tmp_path: Path, node_id: str) -> None:
    """Requests share a connection, never an answer."""
    async with linked(tmp_path) as link:
        client = await link.client(node_id)
        results = await asyncio.gather(*(client.submit(work(f"text {n}")) for n in range(1000)))
        assert results == [answer(f"text {n}") for n in range(1000)]
        assert link.server.in_flight == 0


@pytest.mark.asyncio
async def test_a_quick_answer_overtakes_a_slow_one(tmp_path: Path) -> None:
    """Answers come as they are ready, not as they were asked for."""
    async with linked(tmp_path) as link:
        client = await link.client()
        order: list[str] = []

        async def ask(text: str) -> None:
            await client.submit(work(text))
            order.append(text)

        await asyncio.gather(ask("after 0.06"), ask("after 0.03"), ask("now"))
        assert order == ["now", "after 0.03", "after 0.06"]


@pytest.mark.asyncio
async def test_cancelling_a_request_cancels_its_work_and_no_other(tmp_path: Path) -> None:
    """The handler hears of it, the server forgets it, and a request beside it is answered."""
    async with linked(tmp_path) as link:
        client = await link.client()
        leaving = asyncio.create_task(client.submit(work("wait: leaves")))
        staying = asyncio.create_task(client.submit(work("wait: stays")))
        await until(lambda: len(link.echo.begun) == 2)
        leaving.cancel()
        await until(lambda: link.echo.cancelled == ["wait: leaves"])
        await until(lambda: leaving.cancelled() and link.server.in_flight == 1)
        link.echo.gate.set()
        assert await staying == answer("wait: stays")
        assert await client.submit(work("next")) == answer("next")


@pytest.mark.asyncio
async def test_leaving_as_the_answer_arrives_disturbs_nobody(tmp_path: Path) -> None:
    """Requests cancelled at every stage, answered ones included, leave the reader and the rest unharmed."""
    async with linked(tmp_path) as link:
        client = await link.client()
        rng = random.Random(3)

        async def impatient(n: int) -> None:
            task = asyncio.create_task(client.submit(work(f"after {rng.random() / 50:.4f}")))
            await asyncio.sleep(rng.random() / 50)
            task.cancel()
            await asyncio.wait([task])

        patient = asyncio.gather(*(client.submit(work(f"text {n}")) for n in range(200)))
        await asyncio.gather(*(impatient(n) for n in range(300)))
        assert await patient == [answer(f"text {n}") for n in range(200)]
        assert client.connected and await client.submit(work("last")) == answer("last")
        await until(lambda: link.server.in_flight == 0)


@pytest.mark.asyncio
async def test_a_client_that_hangs_up_takes_only_its_own_requests(tmp_path: Path) -> None:
    """Its work is cancelled, its own pending calls end as UNAVAILABLE; another client's request goes on."""
    async with linked(tmp_path) as link:
        leaving, staying = await link.client(), await link.client("elsewhere")
        lost = asyncio.create_task(leaving.submit(work("wait: leaves")))
        kept = asyncio.create_task(staying.submit(work("wait: stays")))
        await until(lambda: len(link.echo.begun) == 2)
        await leaving.close()
        assert await lost == Failure(FailureKind.UNAVAILABLE, "the link was lost")
        await until(lambda: link.echo.cancelled == ["wait: leaves"])
        link.echo.gate.set()
        assert await kept == answer("wait: stays")
        assert (await leaving.submit(work("more"))) == Failure(FailureKind.UNAVAILABLE, "not connected")


@pytest.mark.asyncio
async def test_a_handler_that_raises_fails_one_request(tmp_path: Path) -> None:
    """The caller learns the type of the error and nothing of its text; the connection goes on."""
    async with linked(tmp_path) as link:
        client = await link.client()
        assert await client.submit(work("raise")) == Failure(FailureKind.ENGINE, "SecretiveError")
        assert await client.submit(work("next")) == answer("next")


@pytest.mark.asyncio
async def test_an_answer_too_long_to_send_fails_one_request(tmp_path: Path) -> None:
    """It is a failure of the engine's making, and the connection goes on."""
    async with linked(tmp_path) as link:
        client = await link.client()
        assert await client.submit(work("huge")) == Failure(FailureKind.ENGINE, "FrameTooLong")
        assert await client.submit(work("next")) == answer("next")


@pytest.mark.asyncio
async def test_work_that_cannot_be_sent_fails_alone(tmp_path: Path) -> None:
    """Too long is refused as such, unencodable is the caller's error; neither reaches the wire."""
    async with linked(tmp_path) as link:
        client = await link.client()
        refusal = await client.submit(work("x" * MAX_FRAME_BYTES))
        assert isinstance(refusal, Failure) and refusal.kind is FailureKind.TOO_LONG
        with pytest.raises(ProtocolError):
            await client.submit(work("\ud800"))
        assert await client.submit(work("next")) == answer("next")
        assert link.echo.begun == ["next"]


@pytest.mark.asyncio
async def test_requests_past_the_limit_are_refused(tmp_path: Path) -> None:
    """A connection holds so many requests and no more; a finished or cancelled one makes room."""
    async with linked(tmp_path, max_in_flight=2) as link:
        client = await link.client()
        held = [asyncio.create_task(client.submit(work(f"wait {n}"))) for n in range(2)]
        await until(lambda: len(link.echo.begun) == 2)
        refusal = await client.submit(work("one too many"))
        assert isinstance(refusal, Failure) and refusal.kind is FailureKind.QUEUE_FULL
        held[0].cancel()
        await until(lambda: link.server.in_flight == 1)
        assert await client.submit(work("fits")) == answer("fits")
        link.echo.gate.set()
        assert await held[1] == answer("wait 1")


@pytest.mark.asyncio
async def test_an_owner_that_raises_harms_no_request(tmp_path: Path) -> None:
    """A bug in who learns from load reports is logged by the loop; requests are answered as before."""
    reported: list[object] = []

    def buggy(load: LoadReport) -> None:
        raise KeyError(load)

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))
    async with linked(tmp_path) as link:
        client = LinkClient(link.endpoint, SECRET, "here", buggy, random.Random(1))
        link.clients.append(client)
        await client.connect()
        assert await client.submit(work("one")) == answer("one")
        assert await client.submit(work("two")) == answer("two")
        assert [type(error) for error in reported] == [KeyError] * 3  # on opening, and with each answer
