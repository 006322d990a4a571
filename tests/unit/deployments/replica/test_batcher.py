"""The batcher at work: what runs together, in which order, and what load is reported."""

from __future__ import annotations

import asyncio

import pytest
from batching import SummingEngine, a_run_begins, batching, soon

from deployments.replica.batcher import Scored
from gateway.model.messages import Failure, FailureKind, LoadReport


@pytest.mark.asyncio
async def test_every_input_gets_its_own_row() -> None:
    """Each caller of a padded batch receives the logits of its own ids, and the padding id fills the rest."""
    engine = SummingEngine()
    async with batching(engine) as batcher:
        results = await asyncio.gather(*(batcher.submit([n] * (7 + n % 2), soon(), True) for n in range(4)))
    assert [result.logits.tolist() for result in results if isinstance(result, Scored)] == [
        [0.0, 8.0], [8.0, 8.0], [14.0, 8.0], [24.0, 8.0],
    ]  # fmt: skip
    assert engine.batches[0][0] == [0] * 7 + [9]


@pytest.mark.asyncio
async def test_what_is_submitted_in_one_turn_runs_together() -> None:
    """The inputs of one request form one batch on an idle engine, without waiting for others to come."""
    engine = SummingEngine()
    async with batching(engine) as batcher:
        results = await asyncio.gather(*(batcher.submit([1] * 8, soon(), True) for _ in range(5)))
        alone = await batcher.submit([1] * 8, soon(), True)
    assert [len(batch) for batch in engine.batches] == [5, 1]
    assert {result.batch_size for result in results if isinstance(result, Scored)} == {5}
    assert isinstance(alone, Scored) and alone.queueing_delay_s >= 0 and alone.service_time_s > 0


@pytest.mark.asyncio
async def test_work_merges_while_the_engine_is_busy() -> None:
    """Inputs that arrive one by one during a run form one batch after it."""
    engine = SummingEngine()
    async with batching(engine, busy=True) as batcher, asyncio.TaskGroup() as clients:
        clients.create_task(batcher.submit([1] * 8, soon(), True))
        await a_run_begins(engine)
        for _ in range(3):
            clients.create_task(batcher.submit([1] * 8, soon(), True))
            await asyncio.sleep(0)
        engine.gate.set()
    assert [len(batch) for batch in engine.batches] == [1, 3]


@pytest.mark.asyncio
async def test_an_urgent_input_waits_for_at_most_one_run() -> None:
    """The earliest deadline runs as soon as the engine is free, however many inputs wait already."""
    engine = SummingEngine()
    async with batching(engine, busy=True) as batcher, asyncio.TaskGroup() as clients:
        for _ in range(20):
            clients.create_task(batcher.submit([1] * 40, soon(600), True))
        await a_run_begins(engine)
        clients.create_task(batcher.submit([7] * 8, soon(300), True))
        await asyncio.sleep(0)
        engine.gate.set()
    assert engine.batches[1] == [[7] * 8]
    assert sum(len(batch) for batch in engine.batches) == 21


@pytest.mark.asyncio
async def test_the_loop_never_waits_for_the_engine() -> None:
    """The event loop goes on while the engine runs."""
    engine = SummingEngine()
    async with batching(engine, busy=True) as batcher:
        client = asyncio.create_task(batcher.submit([1], soon(), True))
        await a_run_begins(engine)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not client.done()
        engine.gate.set()
        assert isinstance(await client, Scored)


@pytest.mark.asyncio
async def test_two_threads_run_two_batches_at_once() -> None:
    """With `threads=2` two inputs of unlike length run at once, and a third waits."""
    engine = SummingEngine()
    async with batching(engine, busy=True, threads=2) as batcher, asyncio.TaskGroup() as clients:
        for tokens in (1, 20, 60):
            clients.create_task(batcher.submit([1] * tokens, soon(), True))
        await a_run_begins(engine)
        await a_run_begins(engine)
        assert batcher.load().queued == 1
        engine.gate.set()
    assert sorted(len(batch[0]) for batch in engine.batches) == [1, 20, 60]


@pytest.mark.asyncio
async def test_lost_work_is_not_run() -> None:
    """A strict input that cannot meet its deadline when its batch is formed is EXPIRED and never run."""
    now = 50.0
    engine = SummingEngine()
    async with batching(engine, busy=True, clock=lambda: now) as batcher:
        first = asyncio.create_task(batcher.submit([1] * 8, now + 1, True))
        await a_run_begins(engine)
        strict = asyncio.create_task(batcher.submit([2] * 8, now + 1, True))
        patient = asyncio.create_task(batcher.submit([3] * 8, now + 1, False))
        await asyncio.sleep(0)
        now += 0.995  # before the deadline, but 10 ms of service time no longer fit
        engine.gate.set()
        assert isinstance(await first, Scored)
        assert await strict == Failure(FailureKind.EXPIRED)
        late = await patient
        assert isinstance(late, Scored) and late.queueing_delay_s == pytest.approx(0.995)
    assert engine.batches == [[[1] * 8], [[3] * 8]]
    assert batcher.totals.expired == 1


@pytest.mark.asyncio
async def test_a_full_queue_refuses_at_once() -> None:
    """A queue with `max_queued` waiting inputs refuses more with QUEUE_FULL; running ones do not count."""
    engine = SummingEngine()
    async with batching(engine, busy=True, max_queued=2) as batcher, asyncio.TaskGroup() as clients:
        clients.create_task(batcher.submit([1], soon(), True))
        await a_run_begins(engine)
        for _ in range(2):
            clients.create_task(batcher.submit([1], soon(), True))
        await asyncio.sleep(0)
        assert await batcher.submit([1], soon(), True) == Failure(FailureKind.QUEUE_FULL)
        engine.gate.set()
    assert batcher.totals.inputs == 3


@pytest.mark.asyncio
async def test_the_load_report_counts_down_to_nothing() -> None:
    """The backlog is the median time of what waits plus the rest of what runs, and never negative."""
    now = 50.0
    engine = SummingEngine()
    async with batching(engine, busy=True, clock=lambda: now) as batcher:
        assert batcher.load() == LoadReport(0.0, 0)
        running = asyncio.create_task(batcher.submit([1] * 8, now + 60, True))
        await a_run_begins(engine)
        assert batcher.load().backlog_s == pytest.approx(0.01)
        waiting = asyncio.create_task(batcher.submit([1] * 64, now + 60, True))
        await asyncio.sleep(0)
        now += 0.004
        assert batcher.load().backlog_s == pytest.approx(0.086) and batcher.load().queued == 1
        now += 10
        assert batcher.load().backlog_s == pytest.approx(0.08)
        engine.gate.set()
        await asyncio.gather(running, waiting)
        assert batcher.load() == LoadReport(0.0, 0)


@pytest.mark.asyncio
async def test_totals_account_for_every_token_and_second() -> None:
    """Padding, lateness and busy time add up; late inputs waste their share of the batch, strict or best-effort."""
    now = 50.0
    engine = SummingEngine()
    async with batching(engine, busy=True, clock=lambda: now) as batcher, asyncio.TaskGroup() as clients:
        clients.create_task(batcher.submit([1] * 8, now + 1, False))
        clients.create_task(batcher.submit([1] * 7, now + 9, True))
        await a_run_begins(engine)
        now += 4
        engine.gate.set()
    totals = batcher.totals
    assert (totals.batches, totals.inputs, totals.real_tokens, totals.padded_tokens) == (1, 2, 15, 16)
    assert totals.busy_s == pytest.approx(4) and totals.wasted_s == pytest.approx(2)
    assert totals.sizes == {2: 1} and "sizes" not in totals.figures()
