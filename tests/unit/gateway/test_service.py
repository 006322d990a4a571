"""A request from arrival to end: each way it can end, what the client learns, and that nothing keeps running."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from fakes import ANSWER, EVEN, GRAND, SWIFT, TERMS, scripted
from virtual_time import passes
from waiting import until
from worlds import ended, strict, took, world

from gateway.catalogs.catalog import Limits
from gateway.model.errors import (
    CheckpointUnavailable,
    DeadlineExceeded,
    InferenceFailed,
    InputTooLong,
    Overloaded,
    Problem,
)
from gateway.model.messages import Answer, Failure, FailureKind, Work
from gateway.model.outcome import Outcome
from gateway.scheduling.policy import Verdict
from gateway.service import ATTEMPTS

pytestmark = pytest.mark.virtual_time

GONE = Failure(FailureKind.UNAVAILABLE, "the connection was lost")


async def test_an_answer_in_time_is_met_and_recorded_with_its_times() -> None:
    """A request with a sufficient budget is answered by the best checkpoint, and its record has times and counts."""
    told = world()
    told.backend.behaviour = took(told, 0.25)
    finished = await ended(told)
    assert finished.answer is ANSWER
    record = finished.record
    assert (record.outcome, record.met) == (Outcome.IN_TIME, True)
    assert (record.checkpoint, record.tier, record.reason) == (GRAND, "quality", "fits")
    assert record.latency_s == pytest.approx(0.25)
    assert (record.budget_s, record.route_s, record.attempts) == (1.0, 0.0, 1)
    assert (record.queueing_delay_s, record.service_time_s, record.batch_size) == (0.001, 0.002, 1)
    assert (record.inputs, record.tokens, record.kept, record.truncated, record.degraded) == (1, 4, 4, False, False)
    assert record.predicted_s == pytest.approx(0.050, rel=0.5)


async def test_the_record_says_what_was_asked_and_found() -> None:
    """The record has the client's terms, the verdicts and the price; the replica receives the trace."""
    told = world()
    trace = f"00-{7:032x}-{8:016x}-01"
    terms = replace(TERMS, budget_s=0.03, percentile=90.0, strict=True, traceparent=trace)
    record = (await ended(told, terms)).record
    assert (record.strict, record.percentile, record.price, record.traceparent) == (True, 90.0, 0.0, trace)
    found = {one.candidate.name: one.verdict for one in record.verdicts}
    assert (record.checkpoint, found[GRAND], found[EVEN]) == (EVEN, Verdict.TOO_SLOW, Verdict.FITS)
    assert [dispatch.work.traceparent for dispatch in told.backend.dispatches] == [trace]


async def test_a_refused_request_has_its_verdicts_and_one_that_was_not_decided_has_none() -> None:
    """A refused request has the verdicts of its candidates; a request for an unknown checkpoint has none."""
    told = world()
    refused = (await told.service.handle(told.request(strict(1e-6)))).record
    assert refused.checkpoint is None and {one.verdict for one in refused.verdicts} == {Verdict.TOO_SLOW}
    assert len(refused.verdicts) == 3
    unknown = (await told.service.handle(told.request(strict(pinned="nobody")))).record
    assert (unknown.verdicts, unknown.price, unknown.strict) == ((), None, True)


async def test_best_effort_is_answered_late_and_says_so() -> None:
    """A best-effort request is answered after its deadline, and its record says that it was late."""
    told = world()
    told.backend.behaviour = took(told, 1.5)
    finished = await ended(told)
    assert finished.answer is ANSWER
    assert (finished.record.outcome, finished.record.met) == (Outcome.LATE, False)


async def test_a_request_without_a_budget_gets_its_tasks_default() -> None:
    """A request without a budget gets its task's default, in the record and at the replica."""
    told = world()
    assert (await ended(told, replace(TERMS, budget_s=None))).record.budget_s == 1.0
    assert told.backend.dispatches[0].work.remaining_s == 1.0


@pytest.mark.parametrize(
    ("failure", "problem", "outcome", "status"),
    [
        (Failure(FailureKind.EXPIRED), DeadlineExceeded, Outcome.EXPIRED, 504),
        (Failure(FailureKind.CANCELLED), DeadlineExceeded, Outcome.EXPIRED, 504),
        (Failure(FailureKind.TOO_LONG, tokens=90, limit=64), InputTooLong, Outcome.TOO_LONG, 413),
        (Failure(FailureKind.QUEUE_FULL), Overloaded, Outcome.SHED, 429),
        (Failure(FailureKind.ENGINE, "ValueError"), InferenceFailed, Outcome.FAILED, 500),
        (GONE, CheckpointUnavailable, Outcome.UNAVAILABLE, 503),
    ],
)
async def test_each_failure_is_its_problem(
    failure: Failure, problem: type[Problem], outcome: Outcome, status: int
) -> None:
    """Each failure of a replica becomes one problem of the contract and one outcome."""
    finished = await ended(world(scripted(failure)))
    assert isinstance(finished.problem, problem)
    assert (finished.record.outcome, finished.problem.http_status) == (outcome, status)
    if failure.kind is FailureKind.TOO_LONG:
        assert (finished.problem.members["tokens"], finished.problem.members["limit"]) == (90, 64)


async def test_only_what_was_unavailable_is_tried_again() -> None:
    """Only work that failed as unavailable is dispatched again."""
    for kind in FailureKind:
        told = world(scripted(Failure(kind)))
        await ended(told)
        assert len(told.backend.dispatches) == (ATTEMPTS if kind is FailureKind.UNAVAILABLE else 1)


async def test_a_replica_that_dies_is_answered_for_by_another() -> None:
    """A request whose replica dies is answered by another, and the record counts the attempts."""
    told = world(scripted(GONE, GONE, ANSWER))
    finished = await ended(told)
    assert finished.answer is ANSWER
    assert (finished.record.outcome, finished.record.attempts) == (Outcome.IN_TIME, 3)


async def test_a_retry_gets_what_is_left_and_decides_anew() -> None:
    """Each attempt carries the remaining budget and goes to the checkpoint that fits it then."""
    told = world()

    def die_slowly(checkpoint: str, work: Work) -> Answer | Failure:
        told.clock.advance(0.4)
        told.down(checkpoint)
        return GONE if len(told.backend.dispatches) < ATTEMPTS else ANSWER

    told.backend.behaviour = die_slowly
    record = (await ended(told)).record
    assert [one.checkpoint for one in told.backend.dispatches] == [GRAND, EVEN, SWIFT]
    assert [one.work.remaining_s for one in told.backend.dispatches] == pytest.approx([1.0, 0.6, 0.2])
    assert (record.checkpoint, record.outcome) == (SWIFT, Outcome.LATE)


async def test_strict_work_is_stopped_at_its_deadline() -> None:
    """A strict request that misses its deadline is a 504, and its work is cancelled."""
    told = world(scripted(None))
    finished = await ended(told, strict(0.015))
    assert isinstance(finished.problem, DeadlineExceeded)
    assert finished.record.outcome is Outcome.EXPIRED
    assert told.backend.cancelled == 1
    assert told.backend.dispatches[0].work.strict


@pytest.mark.parametrize(("took_s", "said"), [(0.003, "could not be kept"), (0.6, "passed")])
async def test_a_504_says_whether_the_deadline_passed(took_s: float, said: str) -> None:
    """Work given up before its deadline is told so: a 504 says that a deadline passed only if it has."""
    told = world()
    told.backend.behaviour = took(told, took_s, Failure(FailureKind.EXPIRED))
    problem = (await ended(told, strict(0.5))).problem
    assert isinstance(problem, DeadlineExceeded) and f"the deadline {said}" in problem.detail
    assert f"after {1000 * took_s:.1f} ms of 500.0" in problem.detail
    assert problem.members == {"elapsed_ms": 1000 * took_s} and "passed" not in problem.title


async def test_best_effort_work_outlives_its_deadline() -> None:
    """A best-effort request is waited for after its deadline."""
    told = world(scripted(None))
    waiting = asyncio.create_task(told.service.handle(told.request(replace(TERMS, budget_s=0.001))))
    await passes(1.0)
    assert not waiting.done() and told.backend.cancelled == 0
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_a_client_that_leaves_is_recorded_once_and_its_work_stopped() -> None:
    """A client that leaves has one CANCELLED record; its work is cancelled and its place is free."""
    told = world(scripted(None), Limits(max_concurrent_requests=1))
    waiting = asyncio.create_task(told.service.handle(told.request()))
    await until(lambda: len(told.backend.dispatches) == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert told.kept.outcomes == [Outcome.CANCELLED] and told.backend.cancelled == 1
    told.backend.behaviour = scripted(ANSWER)
    assert (await told.service.handle(told.request())).answer is ANSWER
