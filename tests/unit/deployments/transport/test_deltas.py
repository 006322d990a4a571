"""Deltas of answers over the transport: to which request they go, in which order, and until when."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from waiting import idle, until

from deployments.transport import MAX_FRAME_BYTES, Endpoint, TransportClient, TransportServer, UnixAddress
from gateway.model.messages import Answer, Delta, Emit, Failure, FailureKind, InputReport, ReplicaTimings, Work
from gateway.tasks.summarize import SummarizeParameters

ANSWER = Answer(("told",), InputReport(1, 1, False), ReplicaTimings(0.0, 0.0, 0.0, 1))
FIRST, SECOND = Delta(0, "The river"), Delta(1, " rose.")


def works(*texts: str) -> list[Work]:
    """A batch of streamed requests."""
    return [Work("summarize", (text,), SummarizeParameters(), 1.0, True, "r", streamed=True) for text in texts]


@dataclass
class Teller:
    """A handler that a test tells when to emit and when to end. `emits` has what each batch emits with."""

    emits: list[Emit] = field(default_factory=list)
    cancelled: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, batch: Sequence[Work], emit: Emit) -> Sequence[Answer]:
        """Waits for the gate, then answers."""
        assert all(work.streamed for work in batch)
        self.emits.append(emit)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return [ANSWER] * len(batch)


@dataclass
class Heard:
    """All that a batch is told, in order: deltas with the place of their request, then the results."""

    told: list[object] = field(default_factory=list)

    def emit(self, place: int, delta: Delta) -> None:
        """Takes a delta."""
        self.told.append((place, delta))

    def done(self, results: Sequence[Answer | Failure]) -> None:
        """Takes the results."""
        self.told.append(list(results))


@asynccontextmanager
async def connected(directory: Path, teller: Teller) -> AsyncIterator[tuple[TransportClient, TransportServer]]:
    """A client of a server with this handler."""
    address = UnixAddress(str(directory / "s"))
    server = TransportServer(teller.handle, idle)
    client = TransportClient(Endpoint("replica", "here", address), "here", lambda load: None, random.Random(1))
    await server.start(address)
    await client.connect()
    try:
        yield client, server
    finally:
        await client.close()
        await server.close()


async def emits_of(teller: Teller, client: TransportClient, batch: list[Work]) -> tuple[Heard, Callable[[], None]]:
    """Submits a batch, and waits until its handler has begun."""
    heard, before = Heard(), len(teller.emits)
    cancel = client.submit(batch, heard.done, heard.emit)
    await until(lambda: len(teller.emits) > before)
    return heard, cancel


@pytest.mark.asyncio
async def test_deltas_reach_their_request_in_order_before_the_results(tmp_path: Path) -> None:
    """Each delta reaches the request of its batch that it is of, in order, and all of them before the results."""
    teller = Teller()
    async with connected(tmp_path, teller) as (client, _):
        one, _ = await emits_of(teller, client, works("a", "b"))
        other, _ = await emits_of(teller, client, works("c"))
        teller.emits[0](1, FIRST)
        teller.emits[1](0, FIRST)
        teller.emits[0](0, SECOND)
        await until(lambda: len(one.told) == 2 and len(other.told) == 1)
        teller.emits[0](1, SECOND)
        teller.gate.set()
        await until(lambda: len(one.told) == 4 and len(other.told) == 2)
    assert one.told == [(1, FIRST), (0, SECOND), (1, SECOND), [ANSWER, ANSWER]]
    assert other.told == [(0, FIRST), [ANSWER]]


@pytest.mark.asyncio
async def test_deltas_of_a_batch_that_was_cancelled_are_dropped(tmp_path: Path) -> None:
    """After a batch is cancelled none of its deltas is taken, and those of others are."""
    teller = Teller()
    async with connected(tmp_path, teller) as (client, _):
        left, cancel = await emits_of(teller, client, works("a"))
        stays, _ = await emits_of(teller, client, works("b"))
        teller.emits[0](0, FIRST)
        cancel()
        await until(lambda: teller.cancelled == 1)
        teller.emits[0](0, SECOND)
        teller.emits[1](0, SECOND)
        await until(lambda: bool(stays.told))
    assert left.told == [] and stays.told[0] == (0, SECOND)


@pytest.mark.asyncio
async def test_a_delta_of_no_request_harms_nothing(tmp_path: Path) -> None:
    """A delta whose place is not in the batch is dropped, and one after the results is not sent."""
    teller = Teller()
    async with connected(tmp_path, teller) as (client, _):
        heard, _ = await emits_of(teller, client, works("a"))
        for place in (-1, 1, 2**40):
            teller.emits[0](place, FIRST)
        teller.gate.set()
        await until(lambda: bool(heard.told))
        teller.emits[0](0, SECOND)
        assert await emits_of(teller, client, works("b"))
        assert client.connected
    assert heard.told == [[ANSWER]]


@pytest.mark.asyncio
async def test_a_batch_in_several_frames_is_told_as_one(tmp_path: Path) -> None:
    """Of a batch that one frame cannot hold, each delta reaches its own request."""
    teller, long = Teller(), "x" * (MAX_FRAME_BYTES // 2)
    async with connected(tmp_path, teller) as (client, _):
        heard, _ = await emits_of(teller, client, works(long, long))
        await until(lambda: len(teller.emits) == 2)
        teller.emits[1](0, SECOND)
        teller.emits[0](0, FIRST)
        teller.gate.set()
        await until(lambda: len(heard.told) == 3)
    assert heard.told == [(1, SECOND), (0, FIRST), [ANSWER, ANSWER]]


@pytest.mark.asyncio
async def test_a_replica_that_is_lost_after_a_delta_ends_the_batch(tmp_path: Path) -> None:
    """A lost connection ends a batch of which deltas came as UNAVAILABLE, as it does any."""
    teller = Teller()
    async with connected(tmp_path, teller) as (client, server):
        heard, _ = await emits_of(teller, client, works("a"))
        teller.emits[0](0, FIRST)
        await until(lambda: bool(heard.told))
        await server.close()
        await until(lambda: len(heard.told) == 2)
    assert heard.told == [(0, FIRST), [Failure(FailureKind.UNAVAILABLE, "the connection was lost")]]
