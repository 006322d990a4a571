"""Requests that lose time or a replica: which problem ends them, and what is recorded."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import ANSWER, EVEN, GRAND, SWIFT, TERMS, scripted
from worlds import ended, strict, took, world

from gateway.model.errors import CheckpointUnavailable, DeadlineExceeded, InputTooLong, UnknownTask
from gateway.model.messages import Failure, FailureKind, Work
from gateway.model.outcome import Outcome

pytestmark = pytest.mark.virtual_time

GONE = Failure(FailureKind.UNAVAILABLE, "the connection was lost")


async def test_time_lost_to_a_dead_replica_is_not_the_clients_fault() -> None:
    """An admitted strict request whose replica died too late for a retry is a 504, not infeasible."""
    told = world()
    told.backend.behaviour = took(told, 0.099, GONE)
    finished = await ended(told, strict(0.1))
    assert isinstance(finished.problem, DeadlineExceeded)
    assert finished.problem.members["elapsed_ms"] == pytest.approx(99.0)
    assert (finished.record.outcome, finished.record.attempts) == (Outcome.EXPIRED, 1)


async def test_a_lost_checkpoint_that_nothing_can_replace_is_an_outage() -> None:
    """If the remaining checkpoints never fitted the budget, the problem names the lost checkpoint."""
    told = world()

    def die(checkpoint: str, work: Work) -> Failure:
        told.down(checkpoint)
        return GONE

    told.backend.behaviour = die
    told.down(EVEN)
    finished = await ended(told, strict(0.012))
    assert isinstance(finished.problem, CheckpointUnavailable)
    assert finished.problem.members["checkpoints"] == [SWIFT]
    assert finished.record.outcome is Outcome.UNAVAILABLE


async def test_a_lost_checkpoint_behind_which_all_are_busy_is_an_outage() -> None:
    """If the remaining checkpoints are busy, a request that lost its checkpoint is a 503, not overloaded."""
    told = world()

    def die(checkpoint: str, work: Work) -> Failure:
        told.down(checkpoint)
        return GONE

    told.backend.behaviour = die
    told.up(SWIFT, backlog_s=5.0)
    told.up(EVEN, backlog_s=5.0)
    finished = await ended(told, strict(1.0))
    assert isinstance(finished.problem, CheckpointUnavailable)
    assert finished.problem.members["checkpoints"] == [GRAND]


async def test_with_every_replica_lost_the_client_is_told_which() -> None:
    """When every replica is lost during a request, the problem names all checkpoints that could have answered."""
    told = world()

    def die(checkpoint: str, work: Work) -> Failure:
        for name in (SWIFT, EVEN, GRAND):
            told.down(name)
        return GONE

    told.backend.behaviour = die
    for terms in (TERMS, strict()):
        for name in (SWIFT, EVEN, GRAND):
            told.up(name)
        told.kept.records.clear()
        finished = await ended(told, terms)
        assert isinstance(finished.problem, CheckpointUnavailable)
        assert finished.problem.members["checkpoints"] == [GRAND, EVEN, SWIFT]


@pytest.mark.parametrize(("behaviour", "attempts"), [(scripted(ANSWER), 1), (scripted(GONE, ANSWER), 2)])
async def test_attempts_are_dispatches(behaviour: object, attempts: int) -> None:
    """The attempts in a record are the dispatches to replicas; a refused request has none."""
    told = world(behaviour)  # type: ignore[arg-type]  # a parameter's type is lost to pytest
    assert (await ended(told)).record.attempts == len(told.backend.dispatches) == attempts
    told.kept.records.clear()
    assert (await ended(told, strict(0.001))).record.attempts == 0


async def test_a_strict_answer_past_its_deadline_is_none() -> None:
    """A strict answer that arrives late is a 504 with the outcome EXPIRED, and its record still has the times."""
    told = world()
    told.backend.behaviour = took(told, 1.5)
    finished = await ended(told, strict(1.0))
    assert isinstance(finished.problem, DeadlineExceeded)
    assert finished.problem.members["elapsed_ms"] == pytest.approx(1500.0)
    record = finished.record
    assert (record.outcome, record.met, record.answered) == (Outcome.EXPIRED, False, False)
    assert (record.checkpoint, record.service_time_s) == (GRAND, 0.002)


@pytest.mark.parametrize("late_s", [-1e-6, 0.0, 1e-6])
async def test_in_time_is_by_the_latency_that_is_told(late_s: float) -> None:
    """The record says that the budget was met exactly if its latency is within the budget."""
    told = world()
    told.backend.behaviour = took(told, 1.0 + late_s)
    record = (await ended(told)).record
    assert record.met == (record.latency_s <= 1.0)


async def test_a_clock_that_runs_on_is_read_once_at_the_end() -> None:
    """The outcome and the latency agree even if time passes between any two reads of the clock."""
    told = world()
    router = told.service.router

    def running() -> float:
        told.clock.advance(0.001)
        return told.clock()

    for budget_s in (0.0035, 0.0045, 0.0055, 0.0065, 0.0075):
        told.kept.records.clear()
        told.service = replace(told.service, clock=running, router=router)
        record = (await ended(told, replace(TERMS, budget_s=budget_s))).record
        assert record.met == (record.latency_s <= budget_s)


@pytest.mark.parametrize(
    ("failure", "members"),
    [
        (Failure(FailureKind.TOO_LONG, "the frame is too long"), {"checkpoint": GRAND}),
        (
            Failure(FailureKind.TOO_LONG, "over the window", 90, 64),
            {"tokens": 90, "limit": 64, "unit": "tokens", "checkpoint": GRAND},
        ),
    ],
)
async def test_too_long_tells_counts_where_there_are_any(failure: Failure, members: dict[str, object]) -> None:
    """A problem of a text that is too long has token counts only if the replica counted; otherwise it has the cause."""
    problem = (await ended(world(scripted(failure)))).problem
    assert isinstance(problem, InputTooLong)
    assert problem.members == members
    assert ("got 90" in problem.detail) == ("tokens" in members)
    assert (failure.detail in problem.detail) == ("tokens" not in members)


async def test_an_unknown_task_is_an_end_like_any_other() -> None:
    """A request for an unknown task has one record, without a budget."""
    told = world()
    finished = await told.service.handle(replace(told.request(), task="summarize"))
    assert isinstance(finished.problem, UnknownTask)
    assert told.kept.records == [finished.record]
    assert (finished.record.outcome, finished.record.budget_s) == (Outcome.INVALID, None)


async def test_a_fault_is_recorded_and_raised() -> None:
    """An unexpected exception is recorded once as FAILED, raised to the edge, and frees the place of its request."""
    told = world()
    told.backend.fault = ZeroDivisionError()
    for count in (1, 2):
        with pytest.raises(ZeroDivisionError):
            await told.service.handle(told.request())
        assert told.kept.outcomes == [Outcome.FAILED] * count
    told.backend.fault = None
    assert (await told.service.handle(told.request())).answer is ANSWER
