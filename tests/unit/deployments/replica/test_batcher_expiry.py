"""Late work in the batcher: what cannot be in time is not run, and what may be late is run in its order."""

from __future__ import annotations

import asyncio

import pytest
from batching import SummingEngine, a_run_begins, batching, row, sent

from deployments.replica.batcher import Scored
from gateway.model.messages import Failure, FailureKind

EXPIRED = Failure(FailureKind.EXPIRED)
NOW = 50.0


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
async def test_late_work_runs_in_its_order() -> None:
    """Best-effort work that is late already is not lost: it runs in order of deadline, and counts as wasted."""
    engine = SummingEngine()
    async with batching(engine, busy=True, clock=lambda: NOW) as batcher:
        tasks = [sent(batcher, row([1] * 8, NOW + 600))]
        await a_run_begins(engine)
        tasks += [sent(batcher, row([name] * 8, NOW + by_s, strict=False)) for name, by_s in ((2, 9), (3, -1), (4, -2))]
        await asyncio.sleep(0)
        engine.gate.set()
        results = await asyncio.gather(*tasks)
    assert all(isinstance(one, Scored) for batch in results for one in batch)
    assert [run[0][0] for run in engine.batches] == [1, 4, 3, 2]
