"""The scheduler loop: whatever happens to a queued request, no core is lost and nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from played_loops import PlayedLoop, began, played_loop
from played_queues import Played, PlayedQueue
from virtual_time import loop_clock, passes, turns

from gateway.scheduling.loop import LOOK_S
from gateway.scheduling.scheduler import Stage, Ticket
from gateway.scheduling.task_queue import Batch

pytestmark = pytest.mark.virtual_time


def passing(played: PlayedLoop, ticket: Ticket) -> Stage:
    """Return what became of a request that need not wait. Fails if anything is awaited."""
    coroutine = played.settled(ticket)
    try:
        coroutine.send(None)
    except StopIteration:
        return ticket.stage
    raise AssertionError("it waited")


class CountingLoop(asyncio.SelectorEventLoop):
    """An event loop that counts the timers set on it."""

    timers = 0

    def call_at(self, *given: Any, **named: Any) -> asyncio.TimerHandle:  # type: ignore[override]  # as it comes
        """Count the timer and set it."""
        self.timers += 1
        return super().call_at(*given, **named)


def test_a_free_core_is_had_without_a_turn_of_the_loop_or_a_timer() -> None:
    """A request that finds a free core begins without a turn of the event loop or a timer; a queued one sets one."""

    async def pass_both() -> None:
        played = played_loop()
        ticket = played.submit(1.0)
        assert passing(played, ticket) is Stage.BEGUN and ticket.promise[0] == "only"
        assert loop.timers == 0
        waiting = played.comes()
        await turns()
        assert loop.timers > 0
        waiting.cancel()
        await asyncio.wait([waiting])

    loop = CountingLoop()
    try:
        loop.run_until_complete(pass_both())
    finally:
        loop.close()


async def test_a_hopeless_request_is_told_at_once() -> None:
    """A strict request that can wait for nothing is given up at once."""
    played = played_loop()
    running = played.submit()
    assert passing(played, played.submit(0.001, strict=True)) is Stage.EXPIRED
    assert running.stage is Stage.BEGUN and played.under_way == 1


async def test_the_next_goes_when_a_core_is_free() -> None:
    """Queued requests begin one by one as the core becomes free, the most urgent first."""
    played = played_loop()
    first, patient, urgent = played.comes(), played.comes(5.0), played.comes(1.0)
    await turns()
    assert first.done() and not urgent.done()
    for done, following in ((first, urgent), (urgent, patient)):
        played.ends(done.result())
        await turns()
        assert following.done()
    played.ends(patient.result())
    assert played.under_way == 0


async def test_many_that_are_released_together_pass_in_one_turn() -> None:
    """All members of a batch learn that it began within one turn of the event loop."""
    played = played_loop(max_batch=64)
    first = played.comes()
    waiting = [played.comes() for _ in range(50)]
    await turns()
    played.ends(first.result())
    await turns(2)  # one for the futures to wake their tasks, one for these to end
    together = began(waiting[0])
    assert all(began(task) is together for task in waiting)
    assert len(together.members) == together.left == 50
    for task in waiting:
        played.ends(task.result())
    assert together.left == 0 and played.under_way == 0


async def test_who_leaves_while_waiting_frees_the_place() -> None:
    """A request that is cancelled while queued leaves the scheduler and never begins."""
    played = played_loop()
    first, waiting = played.comes(), played.comes()
    await turns()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled() and len(played.play.queue) == 0
    played.ends(first.result())
    assert played.under_way == 0


@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_who_leaves_in_the_moment_of_release_costs_no_core(cancelled_first: bool) -> None:
    """A request that is cancelled as its batch begins passes its core to the next, whichever event comes first."""
    played = played_loop()
    first, leaving, following = played.comes(), played.comes(1.0), played.comes(2.0)
    await turns()
    if cancelled_first:
        leaving.cancel()
    played.ends(first.result())
    if not cancelled_first:
        leaving.cancel()
    await turns()
    assert leaving.cancelled() and following.done()
    assert began(following).left == 1
    played.ends(following.result())
    assert played.under_way == 0


async def test_one_member_that_leaves_does_not_end_the_run_of_the_others() -> None:
    """A batch keeps its core until its last member has ended, even if one is cancelled."""
    played = played_loop(max_batch=4)
    first, *members = played.comes(), played.comes(), played.comes(), played.comes()
    await turns()
    played.ends(first.result())
    members[1].cancel()
    await turns()
    together = began(members[0])
    assert began(members[2]) is together and together.left == 2
    played.ends(members[0].result())
    assert played.under_way == 1
    played.ends(members[2].result())
    assert played.under_way == 0


async def test_patience_ends() -> None:
    """A request whose patience ends raises TimeoutError and leaves the scheduler."""
    played = played_loop()
    first, impatient, hopeless = played.comes(), played.comes(patience_s=0.01), played.comes(patience_s=0.0)
    await asyncio.wait([impatient, hopeless])
    for task in (impatient, hopeless):
        with pytest.raises(TimeoutError):
            task.result()
    assert len(played.play.queue) == 0
    played.ends(first.result())
    assert played.under_way == 0


async def test_the_alarm_comes_when_the_first_is_lost() -> None:
    """A strict request learns at its own latest instant that it waited in vain, even if nothing else happens."""
    played = played_loop()
    first = played.comes()
    await turns()
    played.runs = True
    later, sooner = played.comes(0.060, strict=True), played.comes(0.030, strict=True)
    began_s = loop_clock()()
    assert (await sooner).stage is Stage.EXPIRED
    assert 0.020 <= loop_clock()() - began_s <= 0.030
    assert not later.done()
    assert (await later).stage is Stage.EXPIRED
    assert 0.050 <= loop_clock()() - began_s <= 0.060
    assert first.done()


async def test_a_slot_that_comes_is_found() -> None:
    """A new slot is found within a few looks, although nothing announces it."""
    played = played_loop(slots=1)
    first, waiting = played.comes(), played.comes()
    played.play.queue.cores = 2.0
    await turns()
    assert first.done() and not waiting.done()
    only = played.play.checkpoints[0]
    only.slots = 2
    await asyncio.wait_for(waiting, 4 * LOOK_S)
    assert began(waiting).left == 1


async def test_what_ends_in_one_task_lets_others_through() -> None:
    """When a batch of one task ends that had little headroom, a request of another task gets the core."""
    played = PlayedLoop(
        tuple(PlayedQueue((Played("only", 0.010, 80.0, max_batch=1),), cores=2.0) for _ in range(2)),
    )
    urgent, first, waiting = played.comes(0.030), played.comes(task=1), played.comes(task=1)
    await turns()
    assert urgent.done() and first.done() and not waiting.done()
    played.ends(urgent.result())
    await turns()
    assert waiting.done()


async def test_a_storm_leaves_nothing_behind() -> None:
    """After hundreds of requests that end in every way, nothing is queued and nothing runs.

    Every batch ends exactly as often as it has members, and no request was in two batches.
    """
    chance = random.Random(7)
    played = played_loop(max_batch=4)
    played.runs = True
    released: list[Batch] = []
    ends = {"passed": 0, "vain": 0, "impatient": 0, "left": 0}

    async def client() -> None:
        ticket = played.submit(chance.choice((0.003, 0.02, 0.5)), strict=chance.random() < 0.5)
        try:
            await played.loop.settled(ticket, chance.choice((0.0, 0.005, 1.0)))
        except TimeoutError:
            ends["impatient"] += 1
            return
        except asyncio.CancelledError:
            ends["left"] += 1
            raise
        if ticket.batch is None:
            ends["vain"] += 1
            return
        released.append(ticket.batch)
        try:
            await passes(chance.choice((0.0, 0.0, 0.001)))
            ends["passed"] += 1
        finally:
            played.ends(ticket)

    tasks = []
    for _ in range(400):
        tasks.append(asyncio.create_task(client()))
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        if chance.random() < 0.4:
            chance.choice(tasks).cancel()
    await asyncio.wait(tasks)
    assert all(ends.values()), ends
    assert len(played.play.queue) == 0 and played.under_way == 0
    assert all(release.left == 0 for release in released)
    members = [id(held) for release in {id(one): one for one in released}.values() for held in release.members]
    assert len(members) == len(set(members))
