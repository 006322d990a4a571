"""The scheduler loop: whatever happens to a request, no core is lost, nobody waits on, and nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from played_loops import Caller, PlayedBackend, PlayedLoop, answer, played_loop
from played_queues import Played, PlayedQueue
from virtual_time import loop_clock, passes, turns

from gateway.model.messages import Failure, FailureKind, Work
from gateway.scheduling.loop import LOOK_S
from gateway.scheduling.scheduler import Stage
from gateway.tasks.classify import ClassifyParameters

pytestmark = pytest.mark.virtual_time

EXPIRED = Failure(FailureKind.EXPIRED)
SAME_TURN_S = 5e-10
"""Seconds between two timers that asyncio lets ring in one turn: less than its resolution, 1e-9."""


class CountingLoop(asyncio.SelectorEventLoop):
    """An event loop that counts the timers set on it."""

    timers = 0

    def call_at(self, *given: Any, **named: Any) -> asyncio.TimerHandle:  # type: ignore[override]  # as it comes
        """Count the timer and set it."""
        self.timers += 1
        return super().call_at(*given, **named)


def test_a_free_core_is_had_at_once_and_without_an_alarm() -> None:
    """A request that finds a free core is sent in its first turn, and sets one timer, its patience; others an alarm."""

    async def pass_both() -> None:
        played = played_loop()
        first = played.comes()
        await asyncio.sleep(0)
        assert first.begun and len(played.sent) == 1 and loop.timers == 1
        waiting = played.comes()
        await asyncio.sleep(0)
        assert not waiting.begun and len(played.sent) == 1 and loop.timers == 3
        for caller in (first, waiting):
            caller.task.cancel()
        await asyncio.wait([first.task, waiting.task])

    loop = CountingLoop()
    try:
        loop.run_until_complete(pass_both())
    finally:
        loop.close()


async def test_what_is_sent_is_the_request_and_the_rest_of_its_budget() -> None:
    """A replica gets the request's texts and terms, and of its budget what is left when the batch is sent."""
    played = played_loop()
    first, waiting = played.comes(), played.comes(2.0, strict=True)
    await turns()
    played.play.now_s += 0.5
    played.sent[0].ends()
    (work,) = played.sent[1].works
    assert work == Work("classify", (waiting.name,), ClassifyParameters(), work.remaining_s, True, waiting.name, None)
    assert work.remaining_s == pytest.approx(1.5)
    assert (played.sent[1].checkpoint, played.sent[1].service_time_s) == ("only", 0.010)
    played.sent[1].ends()
    await turns()
    assert first.answered and waiting.answered and played.is_empty()


async def test_a_hopeless_request_is_told_at_once() -> None:
    """A strict request that can wait for nothing is given up in its first turn."""
    played = played_loop()
    running = played.comes()
    await turns()
    hopeless = played.comes(0.001, strict=True)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert hopeless.task.result() is None
    assert hopeless.ticket is not None and hopeless.ticket.stage is Stage.EXPIRED
    assert running.begun and played.under_way == 1 and len(played.sent) == 1


async def test_the_next_goes_when_a_core_is_free() -> None:
    """Queued requests begin one by one as the core becomes free, the most urgent first."""
    played = played_loop()
    first, patient, urgent = played.comes(), played.comes(5.0), played.comes(1.0)
    await turns()
    assert first.begun and not urgent.begun
    for done, following in ((first, urgent), (urgent, patient)):
        played.sent[-1].ends()
        assert following.begun
        await turns()
        assert done.answered and not following.task.done()
    played.sent[-1].ends()
    await turns()
    assert patient.answered and played.is_empty()


async def test_the_members_of_a_batch_are_sent_together_and_each_gets_its_own() -> None:
    """The members of a batch are one dispatch, whose time is that of them all, and each gets its own result."""
    played = played_loop(max_batch=64)
    first = played.comes()
    waiting = [played.comes() for _ in range(50)]
    await turns()
    played.sent[0].ends()
    assert len(played.sent) == 2 and all(one.begun for one in waiting)
    sent = played.sent[1]
    assert [work.request_id for work in sent.works] == [one.name for one in waiting]
    assert sent.service_time_s == pytest.approx(50 * 0.010)
    assert len({id(one.batch) for one in waiting}) == 1 and waiting[0].batch.left == 50
    failure = Failure(FailureKind.ENGINE, "only this one")
    sent.ends(*[failure if at == 7 else answer(one.name) for at, one in enumerate(waiting)])
    await turns(2)  # one for the futures to wake their tasks, one for these to end
    assert first.answered and waiting[7].task.result() == failure
    assert all(one.answered for at, one in enumerate(waiting) if at != 7)
    assert waiting[0].batch.left == 0 and played.is_empty()


async def test_a_core_is_free_before_any_member_goes_on() -> None:
    """When a batch ends, all of its members are reported and the next batch is sent before any client goes on."""
    played = played_loop(max_batch=3)
    first, members = played.comes(), [played.comes(1.0) for _ in range(3)]
    await turns()
    played.sent[0].ends()
    next_one = played.comes(5.0)
    await turns()
    seen: list[tuple[int, int, bool]] = []
    for one in members:
        one.task.add_done_callback(lambda _: seen.append((members[0].batch.left, len(played.sent), next_one.begun)))
    played.sent[1].ends()
    assert next_one.begun and not any(one.task.done() for one in members)
    await turns()
    assert seen == [(0, 3, True)] * 3
    played.sent[2].ends()
    await turns()
    assert first.answered and played.is_empty()


async def test_a_shared_batch_teaches_the_forecast_once() -> None:
    """Of a batch, one answer teaches the forecast's error, and the others teach the service time."""
    played = played_loop(max_batch=4)
    played.comes()
    members = [played.comes() for _ in range(3)]
    await turns()
    played.sent[0].ends()
    played.sent[1].ends()
    assert played.learnt == ["answer", "answer", "service", "service"]
    await turns()
    assert all(one.answered for one in members)


async def test_a_replica_that_expires_a_request_has_expired_it() -> None:
    """A result that says EXPIRED is passed on and learnt as such; another failure teaches nothing."""
    played = played_loop()
    for failure, learnt in ((EXPIRED, ["expired"]), (Failure(FailureKind.UNAVAILABLE), ["expired"])):
        caller = played.comes()
        await turns()
        played.sent[-1].ends(failure)
        await turns()
        assert caller.task.result() == failure and played.learnt == learnt
    assert played.is_empty()


async def test_who_leaves_while_waiting_frees_the_place() -> None:
    """A request that is cancelled while queued leaves the scheduler and is never sent."""
    played = played_loop()
    first, waiting = played.comes(), played.comes()
    await turns()
    waiting.task.cancel()
    await asyncio.wait([waiting.task])
    assert waiting.task.cancelled() and len(played.play.queue) == 0
    played.sent[0].ends()
    await turns()
    assert first.answered and played.is_empty() and len(played.sent) == 1


@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_who_leaves_in_the_moment_its_batch_begins_costs_no_core(cancelled_first: bool) -> None:
    """A request that is cancelled as its batch begins passes its core to the next, whichever event comes first.

    It is not sent if it was cancelled before; else its batch is cancelled.
    """
    played = played_loop()
    first, leaving, following = played.comes(), played.comes(1.0), played.comes(2.0)
    await turns()
    if cancelled_first:
        leaving.task.cancel()
    played.sent[0].ends()
    if not cancelled_first:
        leaving.task.cancel()
    await turns()
    assert first.answered and leaving.task.cancelled() and following.begun
    assert [one.works[0].request_id for one in played.sent if not one.cancelled] == [first.name, following.name]
    assert len(played.sent) == (2 if cancelled_first else 3)
    played.sent[-1].ends()
    await turns()
    assert following.answered and played.is_empty()


@pytest.mark.parametrize("leaving", [0, 1, 2])
async def test_a_batch_is_sent_without_those_who_have_just_left(leaving: int) -> None:
    """A member that is cancelled in the turn in which its batch begins is not sent; the others keep the core."""
    played = played_loop(max_batch=4)
    played.comes()
    members = [played.comes() for _ in range(3)]
    staying = [one for at, one in enumerate(members) if at != leaving]
    await turns()
    members[leaving].task.cancel()
    played.sent[0].ends()
    assert [work.request_id for work in played.sent[1].works] == [one.name for one in staying]
    assert played.sent[1].service_time_s == pytest.approx(2 * 0.010)
    await turns()
    assert members[leaving].task.cancelled() and staying[0].batch.left == 2 and played.under_way == 1
    played.sent[1].ends()
    await turns()
    assert all(one.answered for one in staying) and played.is_empty()


async def test_when_all_have_just_left_nothing_is_sent() -> None:
    """A batch whose members have all been cancelled in that turn is not sent, and the core goes to the next."""
    played = played_loop(max_batch=2)
    played.comes()
    members, following = [played.comes(1.0) for _ in range(2)], played.comes(5.0)
    await turns()
    for one in members:
        one.task.cancel()
    played.sent[0].ends()
    await turns()
    assert [work.request_id for work in played.sent[1].works] == [following.name]
    played.sent[1].ends()
    await turns()
    assert following.answered and played.is_empty()


async def test_a_member_that_leaves_lets_the_others_run_and_the_last_cancels_the_batch() -> None:
    """A batch goes on while one member waits, and is cancelled once, when the last has left; then the core is free."""
    played = played_loop(max_batch=4)
    played.comes()
    members = [played.comes() for _ in range(3)]
    await turns()
    played.sent[0].ends()
    following = played.comes()
    await turns()
    for at, one in enumerate(members):
        assert played.sent[1].cancelled == 0 and not following.begun and one.batch.left == 3 - at
        one.task.cancel()
        await turns()
        assert one.task.cancelled()
    assert played.sent[1].cancelled == 1 and following.begun
    played.sent[2].ends()
    await turns()
    assert following.answered and played.is_empty()


async def test_a_member_whose_time_is_up_leaves_the_others_alone() -> None:
    """A member whose patience ends while its batch runs gets EXPIRED; the others are answered, and learnt from."""
    played = played_loop(max_batch=4)
    played.comes()
    impatient, patient = played.comes(patience_s=0.01), played.comes()
    await turns()
    played.sent[0].ends()
    assert await impatient.task == EXPIRED
    assert played.sent[1].cancelled == 0 and impatient.batch.left == 1 and played.under_way == 1
    played.sent[1].ends()
    await turns()
    assert patient.answered and played.is_empty()
    assert played.learnt == ["answer", "expired", "service"]


async def test_the_last_whose_time_is_up_cancels_the_batch() -> None:
    """When the time of every member is up, or they have left, the batch is cancelled, once."""
    played = played_loop(max_batch=4)
    played.comes()
    first, leaving, last = (played.comes(patience_s=patience_s) for patience_s in (0.01, 60.0, 0.02))
    await turns()
    played.sent[0].ends()
    await turns()
    leaving.task.cancel()
    assert await first.task == EXPIRED and played.sent[1].cancelled == 0
    assert await last.task == EXPIRED and played.sent[1].cancelled == 1
    assert leaving.task.cancelled() and played.is_empty()


@pytest.mark.parametrize("answer_first", [True, False])
async def test_a_result_in_the_very_turn_of_the_timeout_is_one_end(answer_first: bool) -> None:
    """A result and the end of patience in one turn are one end: the result if it came first, else EXPIRED.

    Either way the core is freed once, and nothing is cancelled.
    """
    played = played_loop(max_batch=2)
    played.comes()
    caller, other = played.comes(patience_s=0.01), played.comes()
    at_s = loop_clock()() + 0.01 + (-SAME_TURN_S if answer_first else SAME_TURN_S)
    await turns()
    played.sent[0].ends()
    turn: list[bool] = []

    def ends() -> None:
        turn.append(caller.task.done())
        played.sent[1].ends()

    asyncio.get_running_loop().call_at(at_s, ends)
    result = await caller.task
    assert turn == [False], "not in one turn"
    assert result == (answer(caller.name) if answer_first else EXPIRED)
    await turns()
    assert other.answered and played.sent[1].cancelled == 0 and played.is_empty()


async def test_who_leaves_in_the_turn_of_its_result_has_left() -> None:
    """A client that is cancelled after its result came and before it went on is cancelled, and nothing is left."""
    played = played_loop()
    caller, following = played.comes(), played.comes()
    await turns()
    played.sent[0].ends()
    caller.task.cancel()
    await turns()
    assert caller.task.cancelled() and following.begun and played.sent[0].cancelled == 0
    played.sent[1].ends()
    await turns()
    assert following.answered and played.is_empty()


async def test_patience_ends_in_the_queue() -> None:
    """A request whose patience ends while it is queued raises TimeoutError and leaves the scheduler."""
    played = played_loop()
    first, impatient, hopeless = played.comes(), played.comes(patience_s=0.01), played.comes(patience_s=0.0)
    await asyncio.wait([impatient.task, hopeless.task])
    for one in (impatient, hopeless):
        with pytest.raises(TimeoutError):
            one.task.result()
    assert len(played.play.queue) == 0
    played.sent[0].ends()
    await turns()
    assert first.answered and played.is_empty() and len(played.sent) == 1


async def test_the_alarm_comes_when_the_first_is_lost() -> None:
    """A strict request learns at its own latest instant that it waited in vain, even if nothing else happens."""
    played = played_loop()
    first = played.comes()
    await turns()
    played.runs = True
    later, sooner = played.comes(0.060, strict=True), played.comes(0.030, strict=True)
    began_s = loop_clock()()
    assert await sooner.task is None and sooner.ticket and sooner.ticket.stage is Stage.EXPIRED
    assert 0.020 <= loop_clock()() - began_s <= 0.030
    assert not later.task.done()
    assert await later.task is None
    assert 0.050 <= loop_clock()() - began_s <= 0.060
    assert first.begun and not first.task.done()
    played.sent[0].ends()
    await turns()
    assert played.is_empty()


async def test_a_slot_that_comes_is_found() -> None:
    """A new slot is found within a few looks, although nothing announces it."""
    played = played_loop(slots=1)
    first, waiting = played.comes(), played.comes()
    played.play.queue.cores = 2.0
    await turns()
    assert [one.begun for one in (first, waiting)] == [True, False]
    played.play.checkpoints[0].slots = 2
    await passes(4 * LOOK_S)
    assert waiting.begun and waiting.batch.left == 1
    for one in played.sent:
        one.ends()
    await turns()
    assert waiting.answered and played.is_empty()


async def test_what_ends_in_one_task_lets_others_through() -> None:
    """When a batch of one task ends that had little headroom, a request of another task gets the core."""
    played = PlayedLoop(
        tuple(PlayedQueue((Played("only", 0.010, 80.0, max_batch=1),), cores=2.0) for _ in range(2)),
    )
    urgent, first, waiting = played.comes(0.030), played.comes(task=1), played.comes(task=1)
    await turns()
    assert [one.begun for one in (urgent, first, waiting)] == [True, True, False]
    played.sent[0].ends()
    assert waiting.begun
    for one in played.sent[1:]:
        one.ends()
    await turns()
    assert waiting.answered and played.is_empty()


class Faulty(PlayedBackend):
    """A backend that breaks its promise: it raises."""

    def dispatch(self, *given: object, **named: object) -> Callable[[], None]:
        """Raise."""
        raise ZeroDivisionError


async def test_a_backend_that_raises_costs_no_core() -> None:
    """A request whose sending raises, though it must not, raises too, and its core is free for the next."""
    played = played_loop()
    first = played.comes()
    await turns()
    played.loop._backend = Faulty()
    waiting = played.comes(patience_s=0.01)
    await turns()
    with pytest.raises(ZeroDivisionError):
        played.sent[0].ends()
    assert await waiting.task == EXPIRED, "the fault of a look is nobody's own"
    at_once = played.comes()
    await turns()
    assert isinstance(at_once.task.exception(), ZeroDivisionError)
    assert first.answered and played.is_empty()


def end_one(played: PlayedLoop, chance: random.Random) -> None:
    """End one of the batches that run, if any, with answers and failures."""
    running = [one for one in played.sent if not one.ended and not one.cancelled]
    if running:
        one, failure = chance.choice(running), Failure(FailureKind.ENGINE)
        one.ends(*[failure if chance.random() < 0.2 else answer(work.request_id) for work in one.works])


async def stormed(played: PlayedLoop, chance: random.Random, count: int) -> list[Caller]:
    """Send requests of every kind while batches end and clients leave, until all have ended."""
    callers: list[Caller] = []
    for _ in range(count):
        patience_s = chance.choice((0.0, 0.005, 0.02, 1.0))
        callers.append(played.comes(chance.choice((0.003, 0.02, 0.5)), patience_s, strict=chance.random() < 0.5))
        await turns(chance.randrange(3))
        if chance.random() < 0.3:
            chance.choice(callers).task.cancel()
        if chance.random() < 0.6:
            end_one(played, chance)
        if chance.random() < 0.1:
            await passes(chance.choice((0.0001, 0.001, 0.01)))
    while not all(one.task.done() for one in callers):
        end_one(played, chance)
        await passes(0.001)
    return callers


def end_of(caller: Caller) -> str:
    """Return how a request ended."""
    if caller.task.cancelled():
        return "left"
    if (error := caller.task.exception()) is not None:
        assert isinstance(error, TimeoutError)
        return "impatient"
    match caller.task.result():
        case None:
            return "in vain"
        case Failure(FailureKind.EXPIRED):
            return "expired"
        case Failure():
            return "failed"
    assert caller.answered, "an answer to somebody else"
    return "answered"


async def test_a_storm_leaves_nothing_behind() -> None:
    """After hundreds of requests that end in every way, nothing is queued, runs or is waited for.

    Every batch ends once or is cancelled once, no request is in two batches, and each client gets its own result.
    """
    played = played_loop(max_batch=4)
    played.runs = True
    callers = await stormed(played, random.Random(7), 600)
    assert {end_of(one) for one in callers} == {"answered", "failed", "expired", "in vain", "impatient", "left"}
    assert played.is_empty()
    assert all(one.ended + one.cancelled == 1 for one in played.sent)
    assert all(one.batch.left == 0 for one in callers if one.begun)
    sent = [work.request_id for one in played.sent for work in one.works]
    assert len(sent) == len(set(sent))
