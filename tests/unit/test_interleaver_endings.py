"""How a text leaves the interleaver without a summary, and what is counted and logged of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from fake_engines import CONDENSED, in_steps
from fakes import FakeClock
from msgspec.structs import replace
from test_interleaver import IDLE, STEP_S, desk
from waiting import until

from deployments.condensing import Condensed, Condensing, Room, Way
from deployments.interleaver import Finished, Interleaver
from deployments.step_log import Step
from gateway.work import Failure, FailureKind


@dataclass
class Kept:
    """A log that keeps its entries, or has no room for them."""

    full: bool = False
    entries: dict[str, tuple[tuple[Step, ...], bool]] = field(default_factory=dict)

    def write(self, request_id: str, steps: Sequence[Step], withdrawn: bool) -> None:
        """Keeps one."""
        assert request_id not in self.entries, "each text is logged once"
        if self.full:
            raise OSError(28, "No space left on device")
        self.entries[request_id] = (tuple(steps), withdrawn)


def failing(clock: FakeClock, after: int) -> Condensing:
    """A text whose engine raises at the step after so many."""
    left = [None] * after

    def run() -> None:
        clock.advance(STEP_S)
        if not left:
            raise ArithmeticError("secret text")
        left.pop()

    return in_steps(Room(clock() + 60, 0.0, clock), 99, run)


@pytest.mark.asyncio
async def test_a_failing_engine_fails_one_text() -> None:
    """ENGINE, with the kind of error and none of its words; the next text is served."""
    async with desk() as at:
        at.gate.set()
        assert await at.interleaver.submit("bad", failing(at.clock, 3)) == Failure(
            FailureKind.ENGINE, "ArithmeticError"
        )
        assert isinstance(await at.submit("good", 2), Finished)
        totals = at.interleaver.totals
        assert (totals.engine_failures, totals.inputs, totals.steps) == (1, 2, 5)
        assert totals.busy_s == pytest.approx(6 * STEP_S) and totals.wasted_s == pytest.approx(4 * STEP_S)
        assert at.interleaver.load() == IDLE


@pytest.mark.asyncio
async def test_a_way_may_end_in_a_failure() -> None:
    """What a way ends with is handed on as it is: a text over the window is no fault of the engine."""
    too_long = Failure(FailureKind.TOO_LONG, "over", 9, 8)

    def way() -> Way:
        yield from ()
        return too_long

    async with desk() as at:
        room = Room(at.clock() + 9, 0.0, at.clock)
        assert await at.interleaver.submit("long", Condensing(room, way())) == too_long
        assert at.interleaver.totals.engine_failures == 0


@pytest.mark.asyncio
async def test_what_came_to_nothing_was_wasted() -> None:
    """A text that ran to its deadline and has two words, or ends in a failure of its own, helped nobody; three do."""

    def way(clock: FakeClock, end: Condensed | Failure) -> Way:
        clock.advance(STEP_S)
        yield
        return end

    async with desk() as at:
        at.gate.set()
        cut = replace(CONDENSED.generation, finish_reason="deadline")
        said = [Condensed(text, cut, CONDENSED.input) for text in ("two words", "three whole words")]
        ends: list[Condensed | Failure] = [said[0], Failure(FailureKind.TOO_LONG), CONDENSED, said[1]]
        for end, wasted in zip(ends, (1, 2, 2, 2), strict=True):
            await at.interleaver.submit("x", Condensing(Room(at.clock() + 9, 0.0, at.clock), way(at.clock, end)))
            assert at.interleaver.totals.wasted_s == pytest.approx(wasted * STEP_S)
        assert at.interleaver.totals.busy_s == pytest.approx(4 * STEP_S)


@pytest.mark.asyncio
async def test_a_text_cancelled_in_its_turn_runs_no_further_step() -> None:
    """The step that runs is its last, and the engine is the next text's."""
    log = Kept()
    async with desk(log=log) as at:
        leaving, staying = at.submit("leaving", 50), at.submit("staying", 2)
        await at.a_step_begins()
        leaving.cancel()
        await asyncio.sleep(0)
        at.gate.set()
        assert isinstance(await staying, Finished) and leaving.cancelled()
        assert at.ran == ["leaving", "staying", "staying"]
        assert (len(log.entries["leaving"][0]), log.entries["leaving"][1]) == (1, True)
        totals = at.interleaver.totals
        assert (totals.cancelled, totals.inputs, totals.steps) == (1, 2, 3)
        assert totals.wasted_s == pytest.approx(STEP_S) and totals.busy_s == pytest.approx(3 * STEP_S)


@pytest.mark.asyncio
async def test_a_text_cancelled_while_waiting_never_runs() -> None:
    """The caller that leaves takes its text along."""
    async with desk() as at:
        first, leaving = at.submit("first", 1), at.submit("leaving", 5)
        await at.a_step_begins()
        leaving.cancel()
        await asyncio.sleep(0)
        assert at.interleaver.load().queued == 0
        at.gate.set()
        await first
        assert leaving.cancelled() and at.ran == ["first"] and at.interleaver.totals.inputs == 2


@pytest.mark.asyncio
async def test_stopping_finishes_what_it_can() -> None:
    """Within the grace every text under way is finished; nothing new is taken."""
    async with desk() as at:
        texts = [at.submit(name, 5) for name in "abc"]
        await at.a_step_begins()
        stopping = asyncio.create_task(at.interleaver.stop(60))
        await asyncio.sleep(0)
        assert at.interleaver.load().draining
        assert await at.submit("d", 1) == Failure(FailureKind.UNAVAILABLE, "not started, or stopping")
        at.gate.set()
        await stopping
        assert all(isinstance(result, Finished) for result in await asyncio.gather(*texts))


@pytest.mark.asyncio
async def test_what_is_left_after_the_grace_is_unavailable_and_counted() -> None:
    """Running and waiting texts alike end at once, run no further step, and are counted and logged like any other."""
    log = Kept()
    async with desk(log=log) as at:
        texts = [at.submit(name, 9) for name in "abc"]
        await at.a_step_begins()
        await at.interleaver.stop(0.0)
        stopped = Failure(FailureKind.UNAVAILABLE, "stopped")
        assert await asyncio.gather(*texts) == [stopped] * 3
        at.gate.set()
        await until(lambda: at.interleaver.totals.inputs == 3)
        assert at.ran == ["a"] and sorted(log.entries) == ["a", "b", "c"]
        assert at.interleaver.totals.steps == 1 and at.interleaver.load().sharing == 0
        await at.interleaver.stop(0.0)


@pytest.mark.asyncio
async def test_before_its_start_it_takes_nothing() -> None:
    """UNAVAILABLE, and stopping is no error."""
    clock = FakeClock()
    interleaver = Interleaver(1, clock, 9)
    failure = await interleaver.submit("x", in_steps(Room(clock() + 1, 0.0, clock), 1, lambda: None))
    assert isinstance(failure, Failure) and failure.kind is FailureKind.UNAVAILABLE
    await interleaver.stop(1)


@pytest.mark.asyncio
async def test_a_log_without_room_costs_nobody_a_summary() -> None:
    """The loop hears of the lost line; texts end as ever, cancelled ones too."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    async with desk(log=Kept(full=True)) as at:
        texts = [at.submit(name, 3) for name in "abc"]
        await at.a_step_begins()
        texts[1].cancel()
        await asyncio.sleep(0)
        at.gate.set()
        results = await asyncio.gather(*texts, return_exceptions=True)
        assert [type(result) for result in results] == [Finished, asyncio.CancelledError, Finished]
    assert [type(context["exception"]) for context in heard] == [OSError] * 3


@pytest.mark.asyncio
async def test_the_log_has_every_step_by_its_deadline() -> None:
    """Seen from the deadline, not from the earlier instant by which steps must end; one after the other."""
    log = Kept()
    async with desk(log=log) as at:
        at.gate.set()
        room = Room(at.clock() + 1.0, 0.25, at.clock)
        await at.interleaver.submit("r-1", in_steps(room, 3, lambda: at.clock.advance(0.25), 0.25))
    steps, withdrawn = log.entries["r-1"]
    assert not withdrawn
    assert [(step.began_s, step.ended_s) for step in steps] == [(-1.0, -0.75), (-0.75, -0.5), (-0.5, -0.25)]


@pytest.mark.asyncio
async def test_a_step_that_takes_longer_than_forecast_is_seen() -> None:
    """It began in time, so no step was late; how far it went past the deadline is told, and its time was wasted."""
    async with desk() as at:
        at.gate.set()
        room = Room(at.clock() + 0.5, 0.0, at.clock)
        await at.interleaver.submit("slow", in_steps(room, 5, lambda: at.clock.advance(2.0)))
        totals = at.interleaver.totals
        assert (totals.steps, totals.late_steps) == (1, 0)
        assert totals.longest_overshoot_s == pytest.approx(1.5) and totals.wasted_s == pytest.approx(2.0)
