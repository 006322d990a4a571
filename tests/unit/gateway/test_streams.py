"""Requests whose answers are streamed: what the service tells before the end, and what it may not do after that."""

from __future__ import annotations

import asyncio

import pytest
from fake_summaries import SUMMARY
from fakes import scripted
from virtual_time import turns
from worlds import World, strict, summarizing, took

from gateway.model.errors import CheckpointUnavailable, DeadlineExceeded
from gateway.model.messages import Delta, Failure, FailureKind
from gateway.model.outcome import Outcome
from gateway.service import Stream

pytestmark = pytest.mark.virtual_time

GONE = Failure(FailureKind.UNAVAILABLE, "the connection was lost")
DELTAS = (Delta(0, "In"), Delta(0, " short."))


def telling(*deltas: Delta) -> World:
    """A gateway whose replicas tell these deltas of each request that is streamed."""
    told = summarizing()
    told.backend.deltas = deltas
    return told


async def test_a_stream_has_the_deltas_and_the_decision_before_the_answer() -> None:
    """The reader has the deltas, and with the first of them the decision; the record says when that came."""
    told, stream = telling(*DELTAS), Stream()
    told.backend.behaviour = took(told, 0.25, SUMMARY)
    finished = await told.service.handle(told.page(), stream)
    assert finished.answer is SUMMARY and await stream.take() == list(DELTAS)
    record, begun = finished.record, stream.begun
    assert begun is not None and begun.checkpoint == record.checkpoint and begun.predicted_s == record.predicted_s
    assert record.first_delta_s == 0.0 and record.latency_s == 0.25 and told.kept.records == [record]


async def test_only_streamed_requests_ask_for_deltas() -> None:
    """A replica is told which requests somebody reads while they are written."""
    told = telling(*DELTAS)
    await told.service.handle(told.page())
    await told.service.handle(told.page(), Stream())
    assert [one.work.streamed for one in told.backend.dispatches] == [False, True]
    assert [one.first_delta_s is None for one in told.kept.records] == [True, False]


@pytest.mark.parametrize("deltas", [(), DELTAS])
async def test_what_was_told_is_not_told_by_another_replica(deltas: tuple[Delta, ...]) -> None:
    """A request that lost its replica is tried elsewhere, unless some of its answer was told already."""
    told, stream = telling(*deltas), Stream()
    told.backend.behaviour = scripted(GONE, SUMMARY)
    finished = await told.service.handle(told.page(), stream)
    assert len(told.backend.dispatches) == (1 if deltas else 2)
    if deltas:
        assert isinstance(finished.problem, CheckpointUnavailable)
        assert finished.record.outcome is Outcome.UNAVAILABLE and finished.record.attempts == 1
    else:
        assert finished.answer is SUMMARY


async def test_a_strict_answer_that_is_late_is_none_though_it_was_told() -> None:
    """Deltas change nothing of how a request ends: a late strict answer is a 504."""
    told, stream = telling(*DELTAS), Stream()
    told.backend.behaviour = took(told, 1.5, SUMMARY)
    finished = await told.service.handle(told.page(strict(1.0)), stream)
    assert isinstance(finished.problem, DeadlineExceeded) and finished.record.outcome is Outcome.EXPIRED
    assert await stream.take() == list(DELTAS)


async def test_a_reader_that_leaves_cancels_the_work() -> None:
    """A client that leaves after the first delta has one CANCELLED record, and its batch is cancelled."""
    told, stream = telling(*DELTAS), Stream()
    told.backend.behaviour = scripted(None)
    handling = asyncio.create_task(told.service.handle(told.page(), stream))
    await stream.ready()
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling
    assert told.kept.outcomes == [Outcome.CANCELLED] and told.backend.cancelled == 1
    assert told.kept.records[0].first_delta_s == 0.0


async def test_a_reader_takes_what_has_come_and_then_waits() -> None:
    """Each delta is taken once, with all that came meanwhile; at the end what is left, and then nothing."""
    stream = Stream()
    taking = asyncio.create_task(stream.take())
    await turns()
    stream.put(DELTAS[0])
    stream.put(DELTAS[1])
    assert await taking == list(DELTAS)
    taking = asyncio.create_task(stream.take())
    await turns()
    assert not taking.done()
    stream.put(DELTAS[0])
    stream.end()
    assert await taking == [DELTAS[0]] and await stream.take() == []
