"""The time slicer under any mix of texts: long, short, poisonous, urgent, cancelled, and stopped halfway."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fake_engines import CONDENSED
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from virtual_time import run_virtually
from waiting import until

from deployments.replica.writing.job import Steps, TextBudget, WritingJob
from deployments.replica.writing.step_log import Step
from deployments.replica.writing.time_slicing import MOST_BEGUN, FinishedJob, TimeSlicer
from gateway.model.messages import Failure, FailureKind

STEP_S = 0.0003


class Caller(NamedTuple):
    """A text of `steps`; `pause` and `leaves_after` are turns of the event loop, before it comes and from then on."""

    steps: int
    budget_s: float
    poisonous: bool
    leaves_after: int | None
    pause: int


callers_given = st.lists(
    st.builds(
        Caller,
        steps=st.integers(0, 12),
        budget_s=st.sampled_from([-1.0, 0.0, 0.001, 0.004, 600.0, 600.0, 600.0]),
        poisonous=st.sampled_from([False, False, False, True]),
        leaves_after=st.sampled_from([None, None, None, 0, 1, 2, 5, 20]),
        pause=st.sampled_from([0, 0, 0, 1, 10]),
    ),
    max_size=25,
)


@dataclass
class Watch:
    """Records what the engine's threads did and what was logged. Each step takes time of the clock."""

    clock: FakeClock = field(default_factory=FakeClock)
    lock: threading.Lock = field(default_factory=threading.Lock)
    steps: Counter[str] = field(default_factory=Counter)
    begun: set[str] = field(default_factory=set)
    at_once: int = 0
    most_begun: int = 0
    most_at_once: int = 0
    left: dict[str, int] = field(default_factory=dict)
    late: list[str] = field(default_factory=list)
    logged: Counter[str] = field(default_factory=Counter)
    in_log: Counter[str] = field(default_factory=Counter)

    def write(self, request_id: str, steps: Sequence[Step], withdrawn: bool) -> None:
        """Records a line of the log."""
        self.logged[request_id] += 1
        self.in_log[request_id] += len(steps)
        with self.lock:
            self.begun.discard(request_id)

    def text(self, name: str, caller: Caller) -> WritingJob:
        """A text whose steps are watched."""
        room = TextBudget(self.clock() + caller.budget_s, 0.0, self.clock)
        return WritingJob(room, self._way(name, caller, room))

    def _way(self, name: str, caller: Caller, room: TextBudget) -> Steps:
        for step in range(caller.steps):
            room.left_s = (caller.steps - step) * STEP_S
            with self.lock:  # in which no time passes
                if not room.fits(STEP_S):
                    break
                self._begin(name, room)
            self._end(name, caller, step)
            room.left_s -= STEP_S
            yield None
        return CONDENSED

    def _begin(self, name: str, room: TextBudget) -> None:
        self.begun.add(name)
        self.at_once += 1
        self.most_begun = max(self.most_begun, len(self.begun))
        self.most_at_once = max(self.most_at_once, self.at_once)
        if self.clock() > room.deadline:
            self.late.append(name)

    def _end(self, name: str, caller: Caller, step: int) -> None:
        with self.lock:
            self.clock.advance(STEP_S / 2)
            self.at_once -= 1
            self.steps[name] += 1
        if caller.poisonous and step == caller.steps // 2:
            raise ArithmeticError(name)


async def storm(
    time_slicer: TimeSlicer, watch: Watch, callers: list[Caller], stop_after: int | None
) -> list[FinishedJob | Failure | BaseException]:
    """Starts all callers, and waits until each has its end and the time slicer is idle."""
    time_slicer.start()
    tasks: list[asyncio.Task[FinishedJob | Failure]] = []
    async with asyncio.TaskGroup() as others:
        if stop_after is not None:
            others.create_task(stop(time_slicer, stop_after))
        for number, caller in enumerate(callers):
            for _ in range(caller.pause):
                await asyncio.sleep(0)
            name = str(number)
            tasks.append(asyncio.create_task(time_slicer.submit(name, watch.text(name, caller))))
            if caller.leaves_after is not None:
                others.create_task(leave(tasks[-1], caller.leaves_after, watch, name))
        found = await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: not watch.begun and not time_slicer.load().sharing)
    load = time_slicer.load()
    assert (load.backlog_s, load.queued, load.sharing) == (0.0, 0, 0)
    await time_slicer.stop(60)
    return found


async def leave(task: asyncio.Task[FinishedJob | Failure], turns: int, watch: Watch, name: str) -> None:
    """Cancels the caller after its turns of the event loop, and notes how far its text was one turn later."""
    for _ in range(turns):
        await asyncio.sleep(0)
    if not task.done():
        task.cancel()
        await asyncio.sleep(0)
        watch.left[name] = watch.steps[name]


async def stop(time_slicer: TimeSlicer, turns: int) -> None:
    """Stops the time slicer without grace after some turns of the event loop."""
    for _ in range(turns):
        await asyncio.sleep(0)
    await time_slicer.stop(0.0)


@given(callers_given, st.integers(1, 3), st.sampled_from([None, None, None, 0, 3, 30]))
def test_every_text_ends_exactly_once_as_it_has_earned(
    callers: list[Caller], slots: int, stop_after: int | None
) -> None:
    """Every text ends once, as it has earned; nothing runs for a caller that has left; the totals add up."""
    watch = Watch()
    time_slicer = TimeSlicer(slots, watch.clock, 100, watch)
    found = run_virtually(storm(time_slicer, watch, callers, stop_after), watch.clock, flows=False)
    for number, (caller, outcome) in enumerate(zip(callers, found, strict=True)):
        name = str(number)
        if isinstance(outcome, FinishedJob):
            assert not caller.poisonous or watch.steps[name] <= caller.steps // 2
            assert caller.budget_s < 1 or watch.steps[name] == caller.steps
            assert outcome.queueing_delay_s > -1e-9 and outcome.service_time_s >= 0
        elif isinstance(outcome, Failure) and outcome.kind is FailureKind.ENGINE:
            assert caller.poisonous and outcome.detail == "ArithmeticError"
        elif isinstance(outcome, Failure):
            assert outcome.kind is FailureKind.UNAVAILABLE and stop_after is not None
        else:
            assert isinstance(outcome, asyncio.CancelledError) and caller.leaves_after is not None
        assert watch.steps[name] <= watch.left.get(name, caller.steps) + 1, (
            "the step that ran when it left was the last"
        )
    assert set(watch.logged.values()) <= {1} and watch.late == []
    assert watch.most_at_once <= slots and watch.most_begun <= MOST_BEGUN
    totals = time_slicer.totals
    assert totals.inputs == len(watch.logged) and totals.late_steps == 0
    raised = sum(isinstance(one, Failure) and one.kind is FailureKind.ENGINE for one in found)
    assert raised <= totals.engine_failures
    assert totals.steps == watch.in_log.total() == watch.steps.total() - totals.engine_failures
    assert sum(totals.sizes.values()) <= totals.turns and min(totals.sizes, default=1) > 0
    assert 0 <= totals.wasted_s <= totals.busy_s + 1e-9 and totals.turns >= len(watch.steps)
