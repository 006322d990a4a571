"""The time slicer at work: which text has the engine when, and what load is reported."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from fake_engines import CONDENSED, in_steps
from slicing import IDLE, STEP_S, played_slicer
from virtual_time import loop_clock, turns
from waiting import until

from deployments.replica.writing.job import TextBudget, WritingJob
from deployments.replica.writing.time_slicing import MOST_BEGUN, SLICE_S, FinishedJob, TimeSlicer
from gateway.model.deadline import Clock
from gateway.model.messages import Failure, FailureKind, LoadReport
from gateway.scheduling.late_share import LATE_SHARE

TICK_S = 0.002
"""The time from a deadline until a waiting caller hears of it."""


@asynccontextmanager
async def stuck(clock: Clock) -> AsyncIterator[tuple[TimeSlicer, Callable[[float], WritingJob]]]:
    """A time slicer whose only slot runs a step without end, and texts with a budget, of one step of 1 ms."""
    time_slicer, gate, begun = TimeSlicer(1, clock, 100), threading.Event(), threading.Event()
    time_slicer.start()

    def hang() -> None:
        begun.set()
        assert gate.wait(60)

    hanging = in_steps(TextBudget(clock() + 600, 0.0, clock), 1, hang)
    task = asyncio.create_task(time_slicer.submit("hanging", hanging))
    assert await asyncio.to_thread(begun.wait, 60)
    try:
        yield time_slicer, lambda budget_s: in_steps(TextBudget(clock() + budget_s, 0.0, clock), 1, lambda: None, 0.001)
    finally:
        gate.set()
        await task
        await time_slicer.stop(60)


@pytest.mark.asyncio
async def test_a_text_alone_is_not_interrupted() -> None:
    """A text alone is never interrupted, because a time slice ends only where others wait."""
    async with played_slicer() as at:
        at.gate.set()
        result = await at.submit("one", 500)
        assert result == FinishedJob(CONDENSED, 0.0, 500 * STEP_S)
        assert at.time_slicer.totals.turns == 1 and at.time_slicer.totals.steps == 500
        assert at.time_slicer.load() == IDLE


@pytest.mark.asyncio
async def test_texts_take_turns() -> None:
    """Equal texts alternate in time slices of `SLICE_S`, and both end in about the time of both."""
    async with played_slicer() as at:
        texts = [at.submit(name, 8) for name in "ab"]
        await at.a_step_begins()
        assert at.time_slicer.load().sharing == 2
        at.gate.set()
        results = await asyncio.gather(*texts)
    assert "".join(at.ran) == "aabb" * 4 and STEP_S < SLICE_S <= 2 * STEP_S
    assert at.time_slicer.totals.sizes == {2: 7, 1: 1}  # eight time slices, in the last of which one step was left
    assert [result.queueing_delay_s for result in results if isinstance(result, FinishedJob)] == [
        pytest.approx(6 * STEP_S),
        pytest.approx(8 * STEP_S),
    ]


@pytest.mark.asyncio
async def test_a_short_text_need_not_wait_for_a_long_one() -> None:
    """A short text that comes while a long one runs is done after its own time and one time slice."""
    async with played_slicer() as at:
        long = at.submit("long", 300)
        await at.a_step_begins()
        at.ran.clear()
        came = at.clock()
        short = at.submit("short", 5)
        await asyncio.sleep(0)
        at.gate.set()
        assert isinstance(await short, FinishedJob)
        assert isinstance(await long, FinishedJob)
    ended_after = len(at.ran) - at.ran[::-1].index("short")
    assert ended_after * STEP_S <= 2 * 5 * STEP_S + SLICE_S + STEP_S and at.ran.index("short") == 1
    assert at.clock() - came == pytest.approx(305 * STEP_S)


@pytest.mark.asyncio
async def test_the_pressed_go_first_and_the_lost_last() -> None:
    """An urgent text goes before a patient one, and a late text yields to both."""
    async with played_slicer() as at:
        texts = [at.submit("first", 1), at.submit("lost", 50, budget_s=30 * STEP_S), at.submit("patient", 6)]
        texts.append(at.submit("pressed", 6, budget_s=8 * STEP_S))
        await at.a_step_begins()
        at.gate.set()
        await asyncio.gather(*texts)
    assert at.ran[1:13] == ["pressed"] * 6 + ["patient"] * 6
    assert set(at.ran[13:]) == {"lost"}
    assert at.time_slicer.totals.late_steps == 0 and at.time_slicer.totals.longest_overshoot_s == 0


@pytest.mark.asyncio
async def test_the_lost_have_a_small_share() -> None:
    """Late texts get a twentieth of the engine while others can be in time, and at most one time slice more."""
    async with played_slicer() as at:
        texts = [at.submit("first", 1), at.submit("lost", 900, budget_s=800 * STEP_S), at.submit("patient", 600)]
        await at.a_step_begins()
        at.gate.set()
        await asyncio.gather(*texts)
    beside = at.ran[: len(at.ran) - at.ran[::-1].index("patient")]
    assert 0.03 * len(beside) <= beside.count("lost") <= LATE_SHARE * len(beside) + 2


@pytest.mark.asyncio
async def test_no_more_are_begun_than_may_be() -> None:
    """At most eight texts are under way: the ninth begins when one of them has ended."""
    async with played_slicer() as at:
        texts = [at.submit(str(number), 4) for number in range(MOST_BEGUN + 3)]
        await at.a_step_begins()
        at.gate.set()
        await asyncio.gather(*texts)
    firsts = [at.ran.index(str(number)) for number in range(MOST_BEGUN + 3)]
    lasts = sorted(len(at.ran) - at.ran[::-1].index(str(number)) for number in range(MOST_BEGUN + 3))
    assert all(firsts[MOST_BEGUN + more] >= lasts[more] for more in range(3))


@pytest.mark.asyncio
async def test_two_slots_run_two_texts_at_once() -> None:
    """Two slots run two texts at once, and a third text waits."""
    async with played_slicer(slots=2) as at:
        texts = [at.submit(name, 2) for name in "abc"]
        await at.a_step_begins()
        await at.a_step_begins()
        load = at.time_slicer.load()
        assert load.queued == 1 and load.sharing == 3 and load.backlog_s == pytest.approx(3 * STEP_S)
        at.gate.set()
        assert all(isinstance(result, FinishedJob) for result in await asyncio.gather(*texts))


@pytest.mark.virtual_time(flows=False)
async def test_a_text_whose_time_is_up_waits_for_nobody() -> None:
    """A waiting text ends by its deadline and a tick without a step, even while another text's step goes on."""
    clock = loop_clock()
    async with stuck(clock) as (time_slicer, text):
        late = asyncio.create_task(time_slicer.submit("late", text(0.03)))
        await turns()
        clock.advance(0.03)
        await turns()
        assert not late.done()
        clock.advance(TICK_S)
        result = await late
        assert isinstance(result, FinishedJob) and result.summary == CONDENSED
        assert time_slicer.totals.steps == 0 and time_slicer.load().sharing == 1


@pytest.mark.virtual_time(flows=False)
async def test_a_text_that_may_not_begin_ends_in_time_all_the_same() -> None:
    """A text that may not begin yet, because too many have, still ends by its deadline."""
    clock = loop_clock()
    async with stuck(clock) as (time_slicer, text):
        waiting = [asyncio.create_task(time_slicer.submit("waits", text(600))) for _ in range(2 * MOST_BEGUN)]
        late = asyncio.create_task(time_slicer.submit("late", text(0.02)))
        await turns()
        clock.advance(0.02 + TICK_S)
        assert isinstance(await late, FinishedJob)
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert time_slicer.totals.cancelled == len(waiting) and time_slicer.load().queued == 0


@pytest.mark.asyncio
async def test_a_text_that_comes_too_late_ends_at_once() -> None:
    """A text whose deadline has passed ends at once and costs the engine nothing."""
    async with played_slicer() as at:
        at.gate.set()
        assert isinstance(await at.submit("late", 9, budget_s=-1.0), FinishedJob)
        assert at.ran == [] and at.time_slicer.totals.steps == 0


@pytest.mark.asyncio
async def test_the_load_counts_what_is_to_be_done() -> None:
    """The load counts the median work left, until the deadline at most and without withdrawn texts; zero when idle."""
    async with played_slicer() as at:
        assert at.time_slicer.load() == IDLE
        running, waiting = at.submit("running", 10), at.submit("waiting", 5)
        capped = at.submit("capped", 1000, budget_s=2.0)
        await at.a_step_begins()
        assert at.time_slicer.load() == LoadReport(15 * STEP_S + 2.0, 2, sharing=3)
        for task in (running, capped):
            task.cancel()
        await asyncio.sleep(0)
        assert at.time_slicer.load() == LoadReport(5 * STEP_S, 1, sharing=1)
        at.gate.set()
        await waiting
        await until(lambda: at.time_slicer.load() == IDLE)


@pytest.mark.asyncio
async def test_a_full_queue_refuses_at_once() -> None:
    """A queue with `max_queued` waiting texts refuses more with QUEUE_FULL; running ones do not count."""
    async with played_slicer(max_queued=2) as at:
        texts = [at.submit("running", 1), at.submit("a", 1), at.submit("b", 1)]
        await at.a_step_begins()
        assert await at.submit("c", 1) == Failure(FailureKind.QUEUE_FULL)
        at.gate.set()
        assert all(isinstance(result, FinishedJob) for result in await asyncio.gather(*texts))
