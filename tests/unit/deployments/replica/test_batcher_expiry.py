"""Late work in the batcher: what cannot be in time is not run, and what may be late is run in its order."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from batching import PROFILE, SummingEngine, a_run_begins, batching, row, sent
from hypothesis import given
from hypothesis import strategies as st

from deployments.engines.base import Logits, TokenIds
from deployments.replica.batcher import Batcher, Scored, next_run
from gateway.model.messages import Failure, FailureKind
from gateway.scheduling.late_share import LateShare
from gateway.tasks.service_time import LARGEST_RUN

EXPIRED = Failure(FailureKind.EXPIRED)
NOW = 50.0


@dataclass(frozen=True)
class Given:
    """A run that is late or not."""

    at: int
    is_late: bool

    def late(self, now: float) -> bool:
        """Return whether it is."""
        return self.is_late


@pytest.mark.asyncio
async def test_lost_work_is_not_run() -> None:
    """A strict input that would be late even alone when its run begins is EXPIRED, and the rest of the run runs."""
    now = NOW
    engine = SummingEngine()
    async with batching(engine, busy=True, clock=lambda: now) as batcher:
        first = sent(batcher, row([1] * 8, now + 600))
        await a_run_begins(engine)
        lost, patient, soon = row([2] * 8, NOW + 1), row([3] * 8, NOW + 1, strict=False), row([4] * 8, NOW + 1.01)
        waiting = sent(batcher, lost, patient, soon)
        await asyncio.sleep(0)
        now += 0.995  # before the deadline, but 10 ms of service time no longer fit
        engine.gate.set()
        assert isinstance((await first)[0], Scored)
        expired, late, timely = await waiting
    assert expired == EXPIRED
    assert isinstance(late, Scored) and late.queueing_delay_s == pytest.approx(0.995) and late.batch_size == 2
    assert isinstance(timely, Scored)
    assert engine.batches == [[[1] * 8], [[3] * 8, [4] * 8]]
    assert batcher.totals.expired == 1


@pytest.mark.asyncio
async def test_whoever_is_in_time_alone_is_run() -> None:
    """A strict input that fits alone is run though its run takes longer: the profile is a median, not a promise."""
    engine = SummingEngine()
    async with batching(engine, clock=lambda: NOW) as batcher:
        results = await batcher.submit([row([1] * 8, NOW + 0.011)] * 8)
        lost = await batcher.submit([row([1] * 8, NOW + 0.009)] * 8)
    assert all(isinstance(one, Scored) for one in results) and lost == [EXPIRED] * 8
    assert [len(run) for run in engine.batches] == [8]


@pytest.mark.asyncio
async def test_a_batch_that_is_lost_whole_lets_the_next_begin_at_once() -> None:
    """Batches of which nothing is left to run take no time of the engine, and the next one begins."""
    now, engine = NOW, SummingEngine()
    async with batching(engine, busy=True, clock=lambda: now) as batcher:
        running = sent(batcher, row([1] * 8, now + 600))
        await a_run_begins(engine)
        lost = [sent(batcher, *[row([2] * 8, now + 1 + at / 10)] * 3) for at in range(3)]
        next_one = sent(batcher, row([3] * 8, now + 600))
        await asyncio.sleep(0)
        now += 2
        engine.gate.set()
        assert await asyncio.gather(*lost) == [[EXPIRED] * 3] * 3
        assert isinstance((await next_one)[0], Scored) and isinstance((await running)[0], Scored)
    assert [run[0][0] for run in engine.batches] == [1, 3] and batcher.totals.expired == 9


@pytest.mark.asyncio
async def test_stopping_need_not_wait_for_what_is_lost() -> None:
    """Stopping ends as soon as the last run has ended and what waited has expired, before the grace is over."""
    now, engine = NOW, SummingEngine()
    async with batching(engine, busy=True, clock=lambda: now) as batcher:
        running = sent(batcher, row([1] * 8, now + 600))
        await a_run_begins(engine)
        lost = sent(batcher, row([1] * 8, now + 0.01))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(batcher.stop(600))
        await asyncio.sleep(0)
        now += 1
        engine.gate.set()
        await stopping
        assert await lost == [EXPIRED] and isinstance((await running)[0], Scored)


@pytest.mark.asyncio
async def test_late_work_lets_timely_work_go_first() -> None:
    """Best-effort work that is late is not lost: it runs in order of deadline, behind what can still be in time."""
    engine = SummingEngine()
    async with batching(engine, busy=True, clock=lambda: NOW) as batcher:
        tasks = [sent(batcher, row([1] * 8, NOW + 600))]
        await a_run_begins(engine)
        tasks += [sent(batcher, row([name] * 8, NOW + by_s, strict=False)) for name, by_s in ((2, 9), (3, -1), (4, -2))]
        await asyncio.sleep(0)
        engine.gate.set()
        results = await asyncio.gather(*tasks)
    assert all(isinstance(one, Scored) for batch in results for one in batch)
    assert [run[0][0] for run in engine.batches] == [1, 2, 4, 3]


@pytest.mark.asyncio
async def test_the_windows_of_a_text_that_is_late_let_others_go_first() -> None:
    """The windows left of a long text whose deadline has passed run behind a batch that comes and can be in time."""
    now, engine = NOW, SummingEngine()
    async with batching(engine, busy=True, clock=lambda: now) as batcher:
        windows = sent(batcher, *[row([1] * 8, now + 1, strict=False)] * 2 * LARGEST_RUN)
        await a_run_begins(engine)
        now += 2
        other = sent(batcher, row([2] * 8, now + 1))
        await asyncio.sleep(0)
        engine.gate.set()
        assert isinstance((await other)[0], Scored)
        assert all(isinstance(one, Scored) for one in await windows)
    assert [run[0][0] for run in engine.batches] == [1, 2, 1]


@pytest.mark.asyncio
async def test_a_run_is_late_only_if_none_of_its_inputs_can_be_in_time() -> None:
    """A run goes by its most urgent input, even one that is late, while another input can be in time."""
    engine = SummingEngine()
    async with batching(engine, busy=True, clock=lambda: NOW) as batcher:
        tasks = [sent(batcher, row([1] * 8, NOW + 600))]
        await a_run_begins(engine)
        tasks.append(sent(batcher, row([2] * 8, NOW + 8)))
        tasks.append(sent(batcher, row([3] * 8, NOW - 1, strict=False), row([3] * 8, NOW + 9)))
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(*tasks)
    assert [run[0][0] for run in engine.batches] == [1, 3, 2]


@given(st.lists(st.booleans(), min_size=1), st.booleans())
def test_late_runs_yield_unless_it_is_their_turn(late: list[bool], late_turn: bool) -> None:
    """The first timely run is next while there is one and late work has no turn; else the first late one."""
    runs, share = [Given(at, is_late) for at, is_late in enumerate(late)], LateShare()
    share.ran(1.0, late=not late_turn, contested=True)
    chosen = next_run(runs, NOW, share)
    assert chosen.contested == (len(set(late)) == 2)
    assert chosen.late == (all(late) or (any(late) and late_turn))
    assert chosen.run == next(run for run in runs if run.is_late == chosen.late)


@pytest.mark.asyncio
async def test_late_work_has_its_share() -> None:
    """A late batch is answered although timely ones come without end: it gets a small share of the engine's time."""
    now, engine = NOW, SummingEngine()

    def passes(token_ids: TokenIds, mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        nonlocal now
        now += 0.01
        return engine.run(token_ids, mask, token_types)

    batcher = Batcher(passes, PROFILE, lambda: now, max_queued=100)
    batcher.start()
    timely = [sent(batcher, row([1] * 8, NOW + 600 + at)) for at in range(50)]
    await asyncio.sleep(0)
    late = sent(batcher, row([2] * 8, NOW - 1, strict=False))
    await asyncio.sleep(0)
    engine.gate.set()
    assert isinstance((await late)[0], Scored)
    await asyncio.gather(*timely)
    await batcher.stop(60)
    assert 0 < [run[0][0] for run in engine.batches].index(2) < 50
