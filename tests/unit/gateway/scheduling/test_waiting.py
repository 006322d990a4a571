"""Requests that wait for a core: how the wait can end, and what the client learns of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from crowded_worlds import PATIENT, Gated, busy, crowded, opened, over, sent, under_way, waiting
from fakes import ANSWER, EVEN, GRAND, SWIFT, TERMS, FakeClock, scripted
from virtual_time import loop_clock, passes
from waiting import until
from worlds import World, client_of, strict

from gateway.model.errors import CheckpointUnavailable, DeadlineExceeded, Overloaded
from gateway.model.messages import Answer, Failure, FailureKind
from gateway.model.outcome import Outcome
from gateway.model.request import Terms
from gateway.scheduling.loop import LOOK_S
from gateway.scheduling.task_queue import MOST_LATE
from gateway.service import PATIENCE_S, Finished

pytestmark = pytest.mark.virtual_time


async def test_who_waits_goes_when_the_core_is_free_and_the_wait_is_told() -> None:
    """A queued request begins when the core is free, and its record contains the wait in its delay and its forecast."""
    told = crowded(FakeClock())
    first = await busy(told)
    second = sent(told, PATIENT)
    await until(lambda: waiting(told) == 1)
    told.clock.advance(0.5)
    opened(told)
    await first
    record = (await second).record
    assert record.outcome is Outcome.IN_TIME
    assert record.queueing_delay_s == pytest.approx(0.5 + ANSWER.timings.queueing_delay_s)
    assert record.route_s == 0.0
    assert record.predicted_s is not None and 0.5 < record.predicted_s < 0.6
    assert record.quantile_s is not None and record.quantile_s > record.predicted_s
    assert record.latency_s == pytest.approx(0.5)
    assert waiting(told) == under_way(told) == 0


async def test_a_strict_request_whose_time_passes_in_the_queue_ends_at_its_deadline() -> None:
    """A strict request that expires in the queue ends with a 504 by its deadline, and nothing is sent for it."""
    told = crowded()
    first = await busy(told)
    began_s = loop_clock()()
    finished = await told.service.handle(told.request(strict(0.300)))
    took_s = loop_clock()() - began_s
    assert isinstance(finished.problem, DeadlineExceeded) and finished.record.outcome is Outcome.EXPIRED
    assert 0.250 <= took_s <= 0.300
    record = finished.record
    assert (record.attempts, waiting(told)) == (0, 0)
    assert record.route_s == 0.0
    assert record.queueing_delay_s == pytest.approx(took_s)
    await over(first)


async def test_a_client_that_hangs_up_while_waiting_leaves_the_queue() -> None:
    """A client that hangs up while queued leaves one CANCELLED record, and the next request gets the core."""
    told = crowded()
    first = await busy(told)
    leaving, staying = sent(told, PATIENT), sent(told, PATIENT)
    await until(lambda: waiting(told) == 2)
    leaving.cancel()
    await asyncio.wait([leaving])
    assert told.kept.outcomes == [Outcome.CANCELLED] and waiting(told) == 1
    opened(told)
    assert (await first).answer is ANSWER and (await staying).answer is ANSWER
    assert len(told.backend.dispatches) == 2 and under_way(told) == 0


async def test_a_client_that_hangs_up_under_way_frees_the_core() -> None:
    """A client that hangs up while its batch runs frees the core for the next request."""
    told = crowded()
    first = await busy(told)
    second = sent(told, PATIENT)
    await until(lambda: waiting(told) == 1)
    first.cancel()
    await asyncio.wait([first])
    assert (waiting(told), under_way(told)) == (0, 1)
    opened(told)
    assert (await second).answer is ANSWER


async def test_the_loss_of_every_replica_is_told_to_who_waits() -> None:
    """When every replica is lost, all queued requests end with a 503 at the next look."""
    told = crowded()
    first = await busy(told)
    held = [sent(told, PATIENT), sent(told, strict(60.0)), sent(told, replace(PATIENT, pinned=GRAND))]
    await until(lambda: waiting(told) == 3)
    for name in (SWIFT, EVEN, GRAND):
        told.down(name)
    done, _ = await asyncio.wait(held, timeout=4 * LOOK_S)
    assert len(done) == 3
    assert [type(one.result().problem) for one in held] == [CheckpointUnavailable] * 3
    await over(first)


async def test_who_could_have_another_checkpoint_waits_on() -> None:
    """When some checkpoints are lost, only the requests pinned to them end; the others wait for what is left."""
    told = crowded()
    first = await busy(told)
    second, pinned = sent(told, PATIENT), sent(told, replace(PATIENT, pinned=GRAND))
    await until(lambda: waiting(told) == 2)
    told.down(GRAND)
    told.down(EVEN)
    await asyncio.wait([pinned], timeout=4 * LOOK_S)
    assert isinstance((await pinned).problem, CheckpointUnavailable) and not second.done()
    opened(told)
    await first
    record = (await second).record
    assert (record.outcome, record.checkpoint) == (Outcome.IN_TIME, SWIFT)


async def test_a_strict_request_in_vain_is_a_504_where_the_best_are_lost_too() -> None:
    """A strict request that expires in the queue is a 504 while any checkpoint is up, although the best are lost."""
    told = crowded()
    first = await busy(told)
    second = sent(told, strict(0.200))
    await until(lambda: waiting(told) == 1)
    told.down(GRAND)
    told.down(EVEN)
    assert isinstance((await second).problem, DeadlineExceeded)
    await over(first)


async def test_best_effort_waits_past_its_deadline_but_not_for_ever() -> None:
    """A best-effort request waits past its deadline, until its patience ends with a 504."""
    told = crowded()
    first = await busy(told)
    request = told.request(replace(TERMS, budget_s=0.020))
    told.clock.advance(PATIENCE_S - 0.200)
    second = asyncio.create_task(told.service.handle(request))
    await passes(0.050)
    assert not second.done() and waiting(told) == 1
    finished = await second
    assert isinstance(finished.problem, DeadlineExceeded)
    assert finished.problem.members["elapsed_ms"] == pytest.approx(1000 * (PATIENCE_S + 0.020))
    assert waiting(told) == 0
    await over(first)


@pytest.mark.parametrize("terms", [replace(TERMS, budget_s=0.001), replace(TERMS, budget_s=0.001, pinned=GRAND)])
async def test_where_too_many_wait_that_are_late_one_more_is_refused_at_once(terms: Terms) -> None:
    """While too many late requests wait, one more is refused with a 429, and one that can be in time is admitted."""
    told = crowded(FakeClock())
    first = await busy(told)
    late = [sent(told, replace(TERMS, budget_s=0.001)) for _ in range(MOST_LATE)]
    await until(lambda: told.service.router.scheduler.deciders["classify"].queue.full)
    finished = await told.service.handle(told.request(terms))
    assert isinstance(finished.problem, Overloaded) and finished.record.outcome is Outcome.SHED
    assert int(finished.problem.headers()["Retry-After"]) >= 1
    timely = sent(told, PATIENT)
    await until(lambda: waiting(told) == MOST_LATE + 1)
    assert not timely.done()
    opened(told)
    assert (await timely).answer is ANSWER
    assert all(one.answer is ANSWER for one in await asyncio.gather(first, *late))
    assert waiting(told) == under_way(told) == 0


def shared(told: World) -> Sequence[asyncio.Task[Finished]]:
    """Send three requests for one checkpoint, which wait together."""
    return [sent(told, replace(PATIENT, pinned=SWIFT)) for _ in range(3)]


async def test_requests_that_wait_together_are_sent_as_one_batch() -> None:
    """Requests that begin together on one checkpoint are one batch for the backend."""
    told = crowded(FakeClock())
    first = await busy(told)
    members = shared(told)
    await until(lambda: waiting(told) == 3)
    opened(told)
    assert all(one.answer is ANSWER for one in await asyncio.gather(first, *members))
    assert isinstance(told.backend, Gated) and told.backend.sizes == [1, 3]
    assert len({one.checkpoint for one in told.backend.dispatches[1:]}) == 1


async def test_requests_that_begin_on_two_cores_at_once_are_two_batches() -> None:
    """Two requests that find two idle cores at one instant are two batches, not one."""
    told = crowded(FakeClock(), cores=2.0)
    opened(told)
    await asyncio.gather(*(sent(told, PATIENT) for _ in range(2)))
    assert isinstance(told.backend, Gated) and told.backend.sizes == [1, 1]


async def test_a_batch_whose_replica_is_lost_is_tried_anew_by_each_of_its_members() -> None:
    """When the replica of a batch is lost, each member goes on within its own budget and is answered."""
    told = crowded(FakeClock())
    gone = Failure(FailureKind.UNAVAILABLE)
    told.backend.behaviour = scripted(ANSWER, gone, gone, gone, ANSWER)
    first = await busy(told)
    members = shared(told)
    await until(lambda: waiting(told) == 3)
    opened(told)
    records = [(await one).record for one in (first, *members)]
    assert [one.outcome for one in records] == [Outcome.IN_TIME] * 4
    assert [one.attempts for one in records] == [1, 2, 2, 2]
    assert waiting(told) == under_way(told) == 0


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_shared_run_is_learnt_once(leaves: bool) -> None:
    """The forecaster learns once from a shared batch, even if one member has left."""
    told = crowded(FakeClock())
    first = await busy(told)
    members = shared(told)
    await until(lambda: waiting(told) == 3)
    first.cancel()
    await until(lambda: waiting(told) == 0)
    if leaves:
        members[0].cancel()
    forecaster = told.service.router.served[SWIFT].forecaster
    before = len(forecaster._idle._window)
    opened(told)
    await asyncio.wait(members)
    assert len(forecaster._idle._window) == before + 1
    assert under_way(told) == 0


async def test_a_replica_lost_under_way_frees_the_core_and_the_request_waits_anew() -> None:
    """When a replica is lost, its core is freed and its request queues again with its remaining budget."""
    told = crowded(FakeClock())
    told.backend.behaviour = scripted(Failure(FailureKind.UNAVAILABLE), ANSWER)
    first = await busy(told)
    second = sent(told, replace(TERMS, budget_s=1.0))
    await until(lambda: waiting(told) == 1)
    opened(told)
    records = [(await task).record for task in (first, second)]
    assert [one.outcome for one in records] == [Outcome.IN_TIME, Outcome.IN_TIME]
    assert sorted(one.attempts for one in records) == [1, 2]
    assert waiting(told) == under_way(told) == 0


async def test_a_storm_of_requests_leaves_the_gateway_empty() -> None:
    """After a storm of requests of every kind, nothing is queued or running, and none has more than one record."""
    told = crowded(cores=2.0)
    opened(told)
    script: list[Answer | Failure] = [
        ANSWER,
        ANSWER,
        Failure(FailureKind.UNAVAILABLE),
        Failure(FailureKind.ENGINE),
    ] * 40
    told.backend.behaviour = scripted(*script, ANSWER)
    kinds = [PATIENT, strict(0.020), replace(TERMS, budget_s=0.001), replace(PATIENT, pinned=SWIFT), strict(0.0001)]
    tasks = []
    for number in range(300):
        tasks.append(sent(told, kinds[number % len(kinds)]))
        if number % 7 == 0:
            await asyncio.sleep(0)
        if number % 11 == 0:
            tasks[number // 2].cancel()
    await asyncio.wait(tasks)
    begun = sum(1 for task in tasks if not task.cancelled())
    assert begun <= len(told.kept.records) <= len(tasks)
    assert waiting(told) == under_way(told) == 0


async def test_the_headers_tell_of_the_wait() -> None:
    """Server-Timing of a request that waited contains the wait, and its spans stay within the total."""
    told = crowded(FakeClock())
    first = await busy(told)
    client = client_of(told)
    call = asyncio.create_task(
        client.post("/classify", json={"inputs": "a film"}, headers={"X-Latency-SLA-Ms": "9000"})
    )
    await until(lambda: waiting(told) == 1)
    told.clock.advance(0.25)
    opened(told)
    response = await call
    await first
    spans = {
        part.split(";")[0]: float(part.split("dur=")[1].split(";")[0])
        for part in response.headers["Server-Timing"].split(", ")
    }
    assert spans["queue"] == pytest.approx(251.0)
    assert spans["route"] + 250.0 <= spans["total"] + 1e-6
    assert float(response.headers["X-Predicted-Latency-Ms"]) > 250.0
    assert float(response.headers["X-Forecast-Quantile-Ms"]) > float(response.headers["X-Predicted-Latency-Ms"])
