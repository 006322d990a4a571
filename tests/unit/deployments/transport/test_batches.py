"""Batches over the transport: one result for each request, whichever is at fault, and one end for each batch."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from batches import one_by_one, result_of, results_of
from virtual_time import turns
from waiting import idle, until

from deployments.transport import MAX_FRAME_BYTES, Endpoint, Handler, TransportClient, TransportServer, UnixAddress
from deployments.transport.connection import (
    HELLO,
    Cancel,
    ClientFrame,
    Done,
    ServerFrame,
    Submit,
    append_frame,
    client_frames,
)
from gateway.model.messages import Answer, Emit, Failure, FailureKind, InputReport, LoadReport, ReplicaTimings, Work
from gateway.tasks.classify import ClassifyParameters

LONG = "x" * (MAX_FRAME_BYTES // 2)
"""A text of which one frame holds one, not two."""


def work(text: str) -> Work:
    """One text to classify."""
    return Work("classify", (text,), ClassifyParameters(), remaining_s=1.0, strict=True, request_id="r")


def answer(text: str) -> Answer:
    """The answer to that text."""
    return Answer((text,), InputReport(1, 1, False), ReplicaTimings(0.0, 0.0, 0.0, 1))


def batch(*texts: str) -> list[Work]:
    """A batch of these texts."""
    return [work(text) for text in texts]


@dataclass
class Echo:
    """Answers each text with itself, `fail` with a failure, and `huge` with more than a frame holds.

    `batches` has the texts of each batch.
    """

    batches: list[list[str]] = field(default_factory=list)

    async def handle(self, batch: Sequence[Work], emit: Emit) -> Sequence[Answer | Failure]:
        """Answers a batch."""
        self.batches.append([work.inputs[0] for work in batch])
        return [self._answered(work.inputs[0]) for work in batch]

    def _answered(self, text: str) -> Answer | Failure:
        if text == "huge":
            return answer("x" * MAX_FRAME_BYTES)
        return Failure(FailureKind.TOO_LONG, tokens=9, limit=8) if text == "fail" else answer(text)


@asynccontextmanager
async def serving(directory: Path, handler: Handler) -> AsyncIterator[TransportClient]:
    """A client of a server with this handler."""
    address = UnixAddress(str(directory / "s"))
    server, client = TransportServer(handler, idle), client_at(address)
    await server.start(address)
    await client.connect()
    yield client
    assert client.connected
    await client.close()
    await server.close()


def client_at(address: UnixAddress) -> TransportClient:
    """A client that is not connected yet."""
    return TransportClient(Endpoint("replica", "here", address), "here", lambda load: None, random.Random(1))


@pytest.mark.asyncio
async def test_a_batch_arrives_whole_and_ends_with_a_result_for_each_request(tmp_path: Path) -> None:
    """The handler gets the batch as it was sent, and each request gets its own result, an answer or a failure."""
    echo = Echo()
    async with serving(tmp_path, echo.handle) as client:
        results = await results_of(client, *batch("one", "fail", "three"))
    assert results == [answer("one"), Failure(FailureKind.TOO_LONG, tokens=9, limit=8), answer("three")]
    assert echo.batches == [["one", "fail", "three"]]


@pytest.mark.asyncio
async def test_a_handler_that_raises_fails_its_batch_alone(tmp_path: Path) -> None:
    """A handler that raises fails every request of its batch, and no request of another."""

    async def raises(work: Work) -> Answer:
        if work.inputs == ("raise",):
            raise ArithmeticError("a secret")
        return answer(work.inputs[0])

    async def handler(batch: Sequence[Work], emit: Emit) -> Sequence[Answer]:
        return [await raises(work) for work in batch]

    async with serving(tmp_path, handler) as client:
        failed, well = await asyncio.gather(
            results_of(client, *batch("one", "raise")), results_of(client, *batch("two", "three"))
        )
    assert failed == [Failure(FailureKind.ENGINE, "ArithmeticError")] * 2
    assert well == [answer("two"), answer("three")]


@pytest.mark.asyncio
@pytest.mark.parametrize("short_of", [-1, 1, 3])
async def test_a_wrong_number_of_results_is_the_failure_of_the_replica(tmp_path: Path, short_of: int) -> None:
    """A handler that returns too few results or too many fails its whole batch: nobody gets another's answer."""

    async def miscounting(batch: Sequence[Work], emit: Emit) -> Sequence[Answer]:
        texts = [work.inputs[0] for work in batch]
        if "right" in texts:
            return [answer(text) for text in texts]
        return [answer("of somebody")] * (len(batch) - short_of)

    async with serving(tmp_path, miscounting) as client:
        results = await results_of(client, *batch("one", "two", "three"))
        assert results == [Failure(FailureKind.ENGINE, f"{3 - short_of} results for 3 requests")] * 3
        assert await result_of(client, work("right")) == answer("right")


@pytest.mark.asyncio
async def test_a_batch_too_long_for_a_frame_is_sent_request_by_request(tmp_path: Path) -> None:
    """A batch that no frame can hold is sent in a frame for each request, and ends as one, in order."""
    echo = Echo()
    async with serving(tmp_path, echo.handle) as client:
        texts = [LONG + str(place) for place in range(3)]
        assert await results_of(client, *batch(*texts)) == [answer(text) for text in texts]
    assert echo.batches == [[text] for text in texts]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("faulty", "kind"), [("x" * MAX_FRAME_BYTES, FailureKind.TOO_LONG), ("\ud800", FailureKind.ENGINE)]
)
async def test_a_request_that_cannot_be_sent_fails_alone(tmp_path: Path, faulty: str, kind: FailureKind) -> None:
    """A request that is too long or cannot be encoded fails alone, and the others of its batch are answered."""
    echo = Echo()
    async with serving(tmp_path, echo.handle) as client:
        first, failed, last = await results_of(client, *batch("one", faulty, "three"))
    assert (first, last) == (answer("one"), answer("three"))
    assert isinstance(failed, Failure) and failed.kind is kind
    assert echo.batches == [["one"], ["three"]]


@pytest.mark.asyncio
async def test_an_answer_too_long_to_send_fails_its_request_alone(tmp_path: Path) -> None:
    """An answer that no frame can hold is the failure of its own request, and not of its batch."""
    async with serving(tmp_path, Echo().handle) as client:
        results = await results_of(client, *batch("one", "huge", "three"))
        too_long = Failure(FailureKind.ENGINE, "FrameTooLong")
        assert results == [answer("one"), too_long, answer("three")]
        assert await results_of(client, *batch("huge", "two", "huge")) == [too_long, answer("two"), too_long]


@pytest.mark.asyncio
async def test_a_lost_connection_ends_every_batch_once(tmp_path: Path) -> None:
    """When the connection is lost, every request of every batch is UNAVAILABLE, also of one that was sent in parts."""

    async def hang(work: Work) -> Answer:
        await asyncio.Event().wait()
        return answer("")

    address = UnixAddress(str(tmp_path / "s"))
    server, client = TransportServer(one_by_one(hang), idle), client_at(address)
    await server.start(address)
    await client.connect()
    ends: list[tuple[str, Sequence[Answer | Failure]]] = []
    client.submit(batch("one", "two"), lambda results: ends.append(("whole", results)))
    client.submit(batch(LONG, LONG), lambda results: ends.append(("in parts", results)))
    cancel = client.submit(batch("three"), lambda results: ends.append(("cancelled", results)))
    await until(lambda: server.in_flight == 4)
    cancel()
    await server.close()
    await until(lambda: len(ends) == 2)
    lost = Failure(FailureKind.UNAVAILABLE, "the connection was lost")
    assert [(name, list(results)) for name, results in ends] == [("whole", [lost] * 2), ("in parts", [lost] * 2)]
    await client.close()
    assert len(ends) == 2


@dataclass
class Recorder:
    """A server that keeps the frames of its one client, and sends what the test says."""

    frames: list[ClientFrame] = field(default_factory=list)
    ended: bool = False

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Greets, then reads to the end."""
        self.writer = writer
        writer.write(HELLO)
        assert await reader.readexactly(len(HELLO)) == HELLO
        frames = client_frames()
        while data := await reader.read(1 << 20):
            self.frames += frames.feed(data)
        self.ended = True
        writer.close()

    def say(self, *frames: ServerFrame) -> None:
        """Sends these frames."""
        buffer = bytearray()
        for frame in frames:
            append_frame(buffer, frame)
        self.writer.write(buffer)

    def answer(self, *texts: str) -> None:
        """Ends the latest batch with answers to these texts."""
        sent = [frame for frame in self.frames if isinstance(frame, Submit)]
        self.say(Done(sent[-1].id, tuple(answer(text) for text in texts), LoadReport(0.0, 0)))

    @property
    def submitted(self) -> list[int]:
        """The ids of the batches that came."""
        return [frame.id for frame in self.frames if isinstance(frame, Submit)]

    @property
    def cancelled(self) -> list[int]:
        """The ids of the batches that were cancelled, as often as they were."""
        return [frame.id for frame in self.frames if isinstance(frame, Cancel)]


@asynccontextmanager
async def recorded(directory: Path) -> AsyncIterator[tuple[TransportClient, Recorder]]:
    """A client of a server that keeps its frames. At the end the server has read them all."""
    recorder, address = Recorder(), UnixAddress(str(directory / "s"))
    listener = await asyncio.start_unix_server(recorder.converse, address.path)
    client = client_at(address)
    await client.connect()
    yield client, recorder
    await client.close()
    await until(lambda: recorder.ended)
    listener.close()


def never(results: Sequence[Answer | Failure]) -> None:
    """Takes the results of a batch that must not have any."""
    raise AssertionError("the batch was cancelled")


@pytest.mark.asyncio
async def test_a_batch_is_cancelled_with_one_frame(tmp_path: Path) -> None:
    """Cancelling a batch tells the replica once, however often it is cancelled; each part of a split batch once."""
    async with recorded(tmp_path) as (client, recorder):
        cancels = [client.submit(batch("one", "two"), never), client.submit(batch(LONG, LONG), never)]
        await until(lambda: len(recorder.submitted) == 3)
        for cancel in (*cancels, *cancels):
            cancel()
        await until(lambda: len(recorder.cancelled) == 3)
        assert await _echoed(client, recorder) == [answer("last")]
    assert recorder.cancelled == recorder.submitted[:3]


@pytest.mark.asyncio
async def test_a_batch_that_has_ended_is_not_cancelled(tmp_path: Path) -> None:
    """Cancelling a batch after its results sends nothing."""
    async with recorded(tmp_path) as (client, recorder):
        ends: list[Sequence[Answer | Failure]] = []
        cancel = client.submit(batch("one"), ends.append)
        await until(lambda: len(recorder.submitted) == 1)
        recorder.answer("one")
        await until(lambda: len(ends) == 1)
        cancel()
        assert await _echoed(client, recorder) == [answer("last")]
    assert recorder.cancelled == []


@pytest.mark.asyncio
async def test_cancelling_what_has_ended_in_part_cancels_the_rest(tmp_path: Path) -> None:
    """Of a batch that was sent in parts, cancelling cancels those that still run, and none of it gets results."""
    async with recorded(tmp_path) as (client, recorder):
        cancel = client.submit(batch(LONG, LONG + "!"), never)
        await until(lambda: len(recorder.submitted) == 2)
        recorder.answer(LONG + "!")
        assert await _echoed(client, recorder) == [answer("last")]
        cancel()
        await until(lambda: len(recorder.cancelled) == 1)
    assert recorder.cancelled == recorder.submitted[:1]


@pytest.mark.asyncio
async def test_results_that_cross_a_cancel_are_dropped(tmp_path: Path) -> None:
    """Results that are on their way while the batch is cancelled reach nobody, and the next batch gets its own."""
    async with recorded(tmp_path) as (client, recorder):
        cancel = client.submit(batch("one"), never)
        await until(lambda: len(recorder.submitted) == 1)
        recorder.answer("one")
        cancel()
        assert await _echoed(client, recorder) == [answer("last")]


async def _echoed(client: TransportClient, recorder: Recorder) -> list[Answer | Failure]:
    """Sends one more batch and answers it: when its result is there, all earlier frames have been read."""
    count = len(recorder.submitted)
    last = asyncio.create_task(results_of(client, work("last")))
    await until(lambda: len(recorder.submitted) > count)
    recorder.answer("last")
    return await last


FAULTY = {
    "too long": ["x" * MAX_FRAME_BYTES],
    "too long among others": ["one", "x" * MAX_FRAME_BYTES],
    "unsendable": ["\ud800"],
    "all unsendable": ["\ud800", "\ud800"],
}


@pytest.mark.asyncio
@pytest.mark.parametrize("texts", FAULTY.values(), ids=FAULTY.keys())
@pytest.mark.parametrize("cancelled", [False, True])
async def test_what_fails_before_it_is_sent_ends_later(tmp_path: Path, texts: list[str], cancelled: bool) -> None:
    """Results never come within `submit`, even if nothing is sent; nor after the batch was cancelled."""
    async with serving(tmp_path, Echo().handle) as client:
        await _ends_later(client, batch(*texts), cancelled)


@pytest.mark.asyncio
@pytest.mark.parametrize("was_connected", [False, True])
@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_batch_without_a_connection_ends_later(tmp_path: Path, was_connected: bool, cancelled: bool) -> None:
    """Without a connection every request is UNAVAILABLE, once, in a later turn of the loop, unless it was cancelled."""
    async with recorded(tmp_path) as (client, _):
        if was_connected:
            await client.close()
        else:
            client = client_at(UnixAddress(str(tmp_path / "nobody")))
        results = await _ends_later(client, batch("one", "two"), cancelled)
    assert cancelled or list(results) == [Failure(FailureKind.UNAVAILABLE, "not connected")] * 2


async def _ends_later(client: TransportClient, works: list[Work], cancelled: bool) -> Sequence[Answer | Failure]:
    """Submits a batch, and checks that its results come once, after `submit`; or never, if it is cancelled."""
    ends: list[Sequence[Answer | Failure]] = []
    cancel = client.submit(works, ends.append)
    assert ends == []
    if cancelled:
        cancel()
    else:
        await until(lambda: len(ends) == 1)
    await turns()
    assert len(ends) == (not cancelled) and all(len(results) == len(works) for results in ends)
    return ends[0] if ends else ()
