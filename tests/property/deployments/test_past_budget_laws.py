"""Laws of the memory for keys and values: those under way stay within it, each ends, and nobody is passed over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from fake_engines import CONDENSED
from fakes import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.engines.past_memory import PastNeed
from deployments.replica.writing.job import Steps, TextBudget, WritingJob
from deployments.replica.writing.past_budget import PastBudget
from deployments.replica.writing.shared_runs import Likeness
from deployments.replica.writing.time_slicing import FinishedJob, TimeSlicer
from gateway.model.messages import Failure, FailureKind

LIMIT = 1000
STEP_S = 1 / 64


@dataclass
class Counted:
    """An engine in which a text takes a byte for each token of each row, all rows as long as the longest."""

    live: list[PastNeed] = field(default_factory=list)
    most: int = 0

    def most_bytes(self, needs: Sequence[PastNeed]) -> int:
        """The bytes of texts together."""
        return sum(one.rows for one in needs) * max((one.positions for one in needs), default=0)

    @property
    def held_bytes(self) -> int:
        """The bytes of those under way."""
        return self.most_bytes(self.live)

    def steps(self, need: PastNeed, count: int, clock: FakeClock) -> Steps:
        """The work on a text, whose memory is held from its first step to its end."""
        self.live.append(need)
        self.most = max(self.most, self.held_bytes)
        try:
            for _ in range(count):
                clock.advance(STEP_S)
                yield None
        finally:
            self.live.remove(need)
        return CONDENSED


Texts = st.lists(
    st.tuples(st.integers(1, 8), st.integers(1, 400), st.integers(1, 12), st.booleans()), min_size=1, max_size=24
)


def _budget(engine: Counted) -> PastBudget:
    return PastBudget(LIMIT, engine)


def _time(clock: FakeClock, seconds: float) -> TextBudget:
    """A text's time, of which it needs a second at any moment, so that its slices end."""
    made = TextBudget(clock() + seconds, 0.0, clock)
    made.left_s = 1.0
    return made


@settings(max_examples=60, deadline=None)
@given(texts=Texts, slots=st.integers(1, 2))
async def test_texts_under_way_stay_within_their_memory(texts: list[tuple[int, int, int, bool]], slots: int) -> None:
    """Whoever joins, leaves or ends: no more is held than the limit, all that fit end, and all memory comes back."""
    clock, engine = FakeClock(), Counted()
    time_slicer = TimeSlicer(slots, clock, 100, memory=_budget(engine))
    time_slicer.start()
    try:
        calls = []
        for at, (rows, positions, count, leaves) in enumerate(texts):
            need = PastNeed(rows, positions)
            job = WritingJob(_time(clock, 600), engine.steps(need, count, clock), need)
            calls.append(asyncio.create_task(time_slicer.submit(str(at), job)))
            await asyncio.sleep(0)
            if leaves:
                calls[-1].cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
    finally:
        await time_slicer.stop(60)
    for (rows, positions, _, leaves), result in zip(texts, results, strict=True):
        if rows * positions > LIMIT:
            assert isinstance(result, Failure) and result.kind is FailureKind.TOO_LONG and result.limit == LIMIT
            assert str(LIMIT) in result.detail
        else:
            assert isinstance(result, FinishedJob) or (leaves and isinstance(result, asyncio.CancelledError))
    assert engine.most <= LIMIT and engine.held_bytes == 0
    figures = time_slicer.totals.figures()
    assert figures["past_reserved_bytes"] == 0 and figures["past_limit_bytes"] == LIMIT
    assert figures["refused_for_memory"] == sum(rows * positions > LIMIT for rows, positions, _, _ in texts)


async def test_a_large_text_is_not_passed_over_for_ever() -> None:
    """A text that waits for memory begins before any that came after it, though these would fit beside the others."""
    clock, engine, began = FakeClock(), Counted(), list[str]()
    time_slicer = TimeSlicer(1, clock, 100, memory=_budget(engine))

    def steps(name: str, need: PastNeed) -> Steps:
        began.append(name)
        return (yield from engine.steps(need, 6, clock))

    time_slicer.start()
    try:
        needs = {"first": PastNeed(1, 400), "large": PastNeed(1, 700), "small": PastNeed(1, 10), "last": PastNeed(1, 9)}
        calls = []
        for name, need in needs.items():
            job = WritingJob(_time(clock, 600), steps(name, need), need)
            calls.append(asyncio.create_task(time_slicer.submit(name, job)))
        assert all(isinstance(one, FinishedJob) for one in await asyncio.gather(*calls))
    finally:
        await time_slicer.stop(60)
    assert began == ["first", "large", "small", "last"] and engine.most <= LIMIT
    assert time_slicer.totals.waits_for_memory >= 1


async def test_a_text_that_waits_for_memory_ends_by_its_deadline() -> None:
    """It holds up nobody beyond it, and nothing was run for it."""
    clock, engine = FakeClock(), Counted()
    time_slicer = TimeSlicer(1, clock, 100, memory=_budget(engine))

    def nothing(budget: TextBudget) -> Steps:
        yield from ()
        assert not budget.fits(0.0)
        return CONDENSED

    time_slicer.start()
    try:
        long, short = _time(clock, 600), _time(clock, 4.5 * STEP_S)
        need = PastNeed(1, 900)
        first = asyncio.create_task(time_slicer.submit("first", WritingJob(long, engine.steps(need, 60, clock), need)))
        await asyncio.sleep(0)
        second = await time_slicer.submit("second", WritingJob(short, nothing(short), PastNeed(1, 500)))
        assert isinstance(second, FinishedJob) and second.service_time_s == 0
        assert isinstance(await first, FinishedJob)
    finally:
        await time_slicer.stop(60)
    assert engine.most == 900


async def test_equal_texts_have_the_memory_of_one() -> None:
    """The others follow the one that has it, however many; when it leaves, one of them has it, and all end."""
    clock, engine, reserved = FakeClock(), Counted(), list[float]()
    time_slicer = TimeSlicer(1, clock, 100, memory=_budget(engine))
    need = PastNeed(1, LIMIT)
    gate = threading.Event()

    def steps() -> Steps:
        assert gate.wait(60)
        for _ in range(12):
            clock.advance(STEP_S)
            reserved.append(time_slicer.totals.figures()["past_reserved_bytes"])
            yield None
        return CONDENSED

    time_slicer.start()
    try:
        jobs = [WritingJob(_time(clock, 600), steps(), need, Likeness("equal")) for _ in range(20)]
        first, *others = [asyncio.create_task(time_slicer.submit(str(at), job)) for at, job in enumerate(jobs)]
        await asyncio.sleep(0)
        first.cancel()
        gate.set()
        assert all(isinstance(one, FinishedJob) for one in await asyncio.gather(*others))
        assert time_slicer.load().sharing == 0
    finally:
        gate.set()
        await time_slicer.stop(60)
    figures = time_slicer.totals.figures()
    assert set(reserved) == {LIMIT} and figures["past_reserved_bytes"] == 0 and figures["waits_for_memory"] == 0
