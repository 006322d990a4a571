"""How a text leaves the time slicer without a summary, and what is counted and logged then."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from fake_engines import CONDENSED, in_steps
from fakes import FakeClock
from msgspec.structs import replace
from slicing import IDLE, STEP_S, played_slicer
from waiting import until

from deployments.replica.writing.job import Steps, TextBudget, WritingJob, WritingResult
from deployments.replica.writing.step_log import Step
from deployments.replica.writing.time_slicing import FinishedJob, TimeSlicer
from gateway.model.messages import Failure, FailureKind


@dataclass
class Kept:
    """A log that keeps its entries, or fails as a full disk would."""

    full: bool = False
    entries: dict[str, tuple[tuple[Step, ...], bool]] = field(default_factory=dict)

    def write(self, request_id: str, steps: Sequence[Step], withdrawn: bool) -> None:
        """Keeps one entry."""
        assert request_id not in self.entries, "each text is logged once"
        if self.full:
            raise OSError(28, "No space left on device")
        self.entries[request_id] = (tuple(steps), withdrawn)


def failing(clock: FakeClock, after: int) -> WritingJob:
    """A text whose engine raises at the step after the given number."""
    left = [None] * after

    def run() -> None:
        clock.advance(STEP_S)
        if not left:
            raise ArithmeticError("secret text")
        left.pop()

    return in_steps(TextBudget(clock() + 60, 0.0, clock), 99, run)


@pytest.mark.asyncio
async def test_a_failing_engine_fails_one_text() -> None:
    """A failing engine fails one text with ENGINE and the kind of error but none of its words; the next is served."""
    async with played_slicer() as at:
        at.gate.set()
        assert await at.time_slicer.submit("bad", failing(at.clock, 3)) == Failure(
            FailureKind.ENGINE, "ArithmeticError"
        )
        assert isinstance(await at.submit("good", 2), FinishedJob)
        totals = at.time_slicer.totals
        assert (totals.engine_failures, totals.inputs, totals.steps) == (1, 2, 5)
        assert totals.busy_s == pytest.approx(6 * STEP_S) and totals.wasted_s == pytest.approx(4 * STEP_S)
        assert at.time_slicer.load() == IDLE


@pytest.mark.asyncio
async def test_a_way_may_end_in_a_failure() -> None:
    """A failure that a text ends with is passed on unchanged: a text over the window is no fault of the engine."""
    too_long = Failure(FailureKind.TOO_LONG, "over", 9, 8)

    def way() -> Steps:
        yield from ()
        return too_long

    async with played_slicer() as at:
        room = TextBudget(at.clock() + 9, 0.0, at.clock)
        assert await at.time_slicer.submit("long", WritingJob(room, way())) == too_long
        assert at.time_slicer.totals.engine_failures == 0


@pytest.mark.asyncio
async def test_what_came_to_nothing_was_wasted() -> None:
    """Time is counted as wasted for texts that end unusable or in a failure, and not for a usable one."""

    def way(clock: FakeClock, end: WritingResult | Failure) -> Steps:
        clock.advance(STEP_S)
        yield None
        return end

    async with played_slicer() as at:
        at.gate.set()
        cut = replace(CONDENSED.generation, finish_reason="deadline")
        said = [WritingResult(text, cut, CONDENSED.input) for text in ("two words", "three whole words")]
        ends: list[WritingResult | Failure] = [said[0], Failure(FailureKind.TOO_LONG), CONDENSED, said[1]]
        for end, wasted in zip(ends, (1, 2, 2, 2), strict=True):
            await at.time_slicer.submit("x", WritingJob(TextBudget(at.clock() + 9, 0.0, at.clock), way(at.clock, end)))
            assert at.time_slicer.totals.wasted_s == pytest.approx(wasted * STEP_S)
        assert at.time_slicer.totals.busy_s == pytest.approx(4 * STEP_S)


@pytest.mark.asyncio
async def test_a_text_cancelled_in_its_turn_runs_no_further_step() -> None:
    """A text cancelled during a step runs no further step, and the engine goes to the next text."""
    log = Kept()
    async with played_slicer(log=log) as at:
        leaving, staying = at.submit("leaving", 50), at.submit("staying", 2)
        await at.a_step_begins()
        leaving.cancel()
        await asyncio.sleep(0)
        at.gate.set()
        assert isinstance(await staying, FinishedJob) and leaving.cancelled()
        assert at.ran == ["leaving", "staying", "staying"]
        assert (len(log.entries["leaving"][0]), log.entries["leaving"][1]) == (1, True)
        totals = at.time_slicer.totals
        assert (totals.cancelled, totals.inputs, totals.steps) == (1, 2, 3)
        assert totals.wasted_s == pytest.approx(STEP_S) and totals.busy_s == pytest.approx(3 * STEP_S)


@pytest.mark.asyncio
async def test_a_text_cancelled_while_waiting_never_runs() -> None:
    """A text that is cancelled while it waits never runs."""
    async with played_slicer() as at:
        first, leaving = at.submit("first", 1), at.submit("leaving", 5)
        await at.a_step_begins()
        leaving.cancel()
        await asyncio.sleep(0)
        assert at.time_slicer.load().queued == 0
        at.gate.set()
        await first
        assert leaving.cancelled() and at.ran == ["first"] and at.time_slicer.totals.inputs == 2


@pytest.mark.asyncio
async def test_stopping_finishes_what_it_can() -> None:
    """Stopping finishes every text under way within the grace, and admits no new one."""
    async with played_slicer() as at:
        texts = [at.submit(name, 5) for name in "abc"]
        await at.a_step_begins()
        stopping = asyncio.create_task(at.time_slicer.stop(60))
        await asyncio.sleep(0)
        assert at.time_slicer.load().draining
        assert await at.submit("d", 1) == Failure(FailureKind.UNAVAILABLE, "not started, or stopping")
        at.gate.set()
        await stopping
        assert all(isinstance(result, FinishedJob) for result in await asyncio.gather(*texts))


@pytest.mark.asyncio
async def test_what_is_left_after_the_grace_is_unavailable_and_counted() -> None:
    """Texts left after the grace end at once as UNAVAILABLE, and are counted and logged like others."""
    log = Kept()
    async with played_slicer(log=log) as at:
        texts = [at.submit(name, 9) for name in "abc"]
        await at.a_step_begins()
        await at.time_slicer.stop(0.0)
        stopped = Failure(FailureKind.UNAVAILABLE, "stopped")
        assert await asyncio.gather(*texts) == [stopped] * 3
        at.gate.set()
        await until(lambda: at.time_slicer.totals.inputs == 3)
        assert at.ran == ["a"] and sorted(log.entries) == ["a", "b", "c"]
        assert at.time_slicer.totals.steps == 1 and at.time_slicer.load().sharing == 0
        await at.time_slicer.stop(0.0)


@pytest.mark.asyncio
async def test_before_its_start_it_takes_nothing() -> None:
    """Before its start a time slicer answers UNAVAILABLE, and stopping it then is no error."""
    clock = FakeClock()
    time_slicer = TimeSlicer(1, clock, 9)
    failure = await time_slicer.submit("x", in_steps(TextBudget(clock() + 1, 0.0, clock), 1, lambda: None))
    assert isinstance(failure, Failure) and failure.kind is FailureKind.UNAVAILABLE
    await time_slicer.stop(1)


@pytest.mark.asyncio
async def test_a_log_without_room_costs_nobody_a_summary() -> None:
    """A log on a full disk costs no text its summary; the loop's handler reports the lost line."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    async with played_slicer(log=Kept(full=True)) as at:
        texts = [at.submit(name, 3) for name in "abc"]
        await at.a_step_begins()
        texts[1].cancel()
        await asyncio.sleep(0)
        at.gate.set()
        results = await asyncio.gather(*texts, return_exceptions=True)
        assert [type(result) for result in results] == [FinishedJob, asyncio.CancelledError, FinishedJob]
    assert [type(context["exception"]) for context in heard] == [OSError] * 3


@pytest.mark.asyncio
async def test_the_log_has_every_step_by_its_deadline() -> None:
    """The log has every step in order, measured from the deadline and not from the earlier instant to stop at."""
    log = Kept()
    async with played_slicer(log=log) as at:
        at.gate.set()
        room = TextBudget(at.clock() + 1.0, 0.25, at.clock)
        await at.time_slicer.submit("r-1", in_steps(room, 3, lambda: at.clock.advance(0.25), 0.25))
    steps, withdrawn = log.entries["r-1"]
    assert not withdrawn
    assert [(step.began_s, step.ended_s) for step in steps] == [(-1.0, -0.75), (-0.75, -0.5), (-0.5, -0.25)]


@pytest.mark.asyncio
async def test_a_step_that_takes_longer_than_forecast_is_seen() -> None:
    """A step slower than forecast is reported with how far it passed the deadline, and its time counts as wasted."""
    async with played_slicer() as at:
        at.gate.set()
        room = TextBudget(at.clock() + 0.5, 0.0, at.clock)
        await at.time_slicer.submit("slow", in_steps(room, 5, lambda: at.clock.advance(2.0)))
        totals = at.time_slicer.totals
        assert (totals.steps, totals.late_steps) == (1, 0)
        assert totals.longest_overshoot_s == pytest.approx(1.5) and totals.wasted_s == pytest.approx(2.0)
