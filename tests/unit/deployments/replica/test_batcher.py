"""The batcher at work: what runs together, in which order, and what load is reported."""

from __future__ import annotations

import asyncio

import pytest
from batching import PROFILE, SummingEngine, a_run_begins, batching, row, sent, soon

from deployments.engines.base import Logits, TokenIds
from deployments.replica.batcher import Scored
from gateway.model.messages import Failure, FailureKind, LoadReport
from gateway.tasks.service_time import LARGEST_RUN, runs_of


def firsts(engine: SummingEngine) -> list[list[int]]:
    """The first token id of each input, by the runs in their order."""
    return [[ids[0] for ids in run] for run in engine.batches]


@pytest.mark.asyncio
async def test_every_input_gets_its_own_row() -> None:
    """Each input of a padded run gets the logits of its own ids, in the order sent; the padding id fills the rest."""
    engine = SummingEngine()
    async with batching(engine) as batcher:
        results = await batcher.submit([row([n] * (7 + n % 2)) for n in range(4)])
    assert [result.logits.tolist() for result in results if isinstance(result, Scored)] == [
        [0.0, 8.0], [8.0, 8.0], [14.0, 8.0], [24.0, 8.0],
    ]  # fmt: skip
    assert [0] * 7 + [9] in engine.batches[0]


@pytest.mark.asyncio
async def test_a_batch_runs_as_it_was_sent() -> None:
    """Inputs of one batch and of equal length are one run; two batches of one turn are two, on however many threads."""
    for threads in (1, 2):
        engine = SummingEngine()
        async with batching(engine, threads=threads) as batcher:
            five, three = await asyncio.gather(batcher.submit([row([1] * 8)] * 5), batcher.submit([row([2] * 8)] * 3))
        assert sorted(firsts(engine)) == [[1] * 5, [2] * 3]
        assert [one.batch_size for one in (*five, *three) if isinstance(one, Scored)] == [5] * 5 + [3] * 3
        assert all(one.queueing_delay_s >= 0 and one.service_time_s > 0 for one in five if isinstance(one, Scored))


@pytest.mark.asyncio
async def test_batches_that_wait_are_not_merged() -> None:
    """Batches that wait for a busy engine stay as they were sent."""
    engine = SummingEngine()
    async with batching(engine, busy=True) as batcher, asyncio.TaskGroup() as clients:
        clients.create_task(batcher.submit([row([1] * 8)]))
        await a_run_begins(engine)
        for size in (3, 1, 2):
            clients.create_task(batcher.submit([row([1] * 8, soon(600 + size))] * size))
            await asyncio.sleep(0)
        engine.gate.set()
    assert [len(run) for run in engine.batches] == [1, 1, 2, 3]


@pytest.mark.asyncio
async def test_a_batch_of_unlike_lengths_runs_in_the_parts_that_take_least() -> None:
    """A batch of unlike lengths runs in the parts that `runs_of` gives by the profile, and each input gets its own."""
    lengths = [3, 64, 5, 60, 4, *[8] * 20, 33]
    engine = SummingEngine()
    async with batching(engine) as batcher:
        results = await batcher.submit([row([place + 1] * tokens) for place, tokens in enumerate(lengths)])
    expected = runs_of(lengths, PROFILE.median_s)
    assert 1 < len(expected) < len(lengths) and max(map(len, expected)) <= LARGEST_RUN
    assert sorted(firsts(engine)) == sorted([place + 1 for place in run] for run in expected)
    sums = [one.logits.tolist()[0] for one in results if isinstance(one, Scored)]
    assert sums == [(place + 1) * tokens for place, tokens in enumerate(lengths)]
    sizes = {place: len(run) for run in expected for place in run}
    assert [one.batch_size for one in results if isinstance(one, Scored)] == [sizes[at] for at in range(len(lengths))]


@pytest.mark.asyncio
async def test_a_lone_batch_has_the_engine_for_lone_runs() -> None:
    """A batch that has the node for itself goes to `lone_run`, run after run; not one that finds another there."""
    usual, lone = SummingEngine(), SummingEngine()
    lone.gate.set()
    async with batching(usual, threads=2) as batcher:
        assert not batcher.load().lone
        batcher.lone_run = lone.run
        assert batcher.load().lone
        await batcher.submit([row([1] * 8)] * 3, lone=True)
        await batcher.submit([row([1] * tokens) for tokens in (4, 64)], lone=True)
        assert (len(lone.batches), len(usual.batches), batcher.totals.lone) == (3, 0, 3)
        await batcher.submit([row([1] * 8)])
        usual.gate.clear()
        held = sent(batcher, row([1] * 8))
        beside = asyncio.create_task(batcher.submit([row([1] * 8)], lone=True))
        usual.gate.set()
        await asyncio.gather(held, beside)
    assert (len(lone.batches), len(usual.batches), batcher.totals.lone) == (3, 3, 3)


@pytest.mark.asyncio
async def test_who_comes_during_a_lone_run_begins_beside_it() -> None:
    """The other threads are free for who comes during a lone run, and what is left of its batch runs as usual."""
    usual, lone = SummingEngine(), SummingEngine()
    async with batching(usual, threads=2) as batcher:
        batcher.lone_run = lone.run
        alone = asyncio.create_task(batcher.submit([row([1] * tokens) for tokens in (4, 64)], lone=True))
        await a_run_begins(lone)
        assert not usual.batches, "one run after the other"
        await batcher.submit([row([2] * 8)])
        lone.gate.set()
        await alone
    assert (len(lone.batches), len(usual.batches)) == (1, 2)


@pytest.mark.asyncio
@pytest.mark.parametrize("inputs", [1, 2])
async def test_a_lone_batch_that_fails_runs_again_as_usual(inputs: int) -> None:
    """What failed in a lone run runs again, input by input, on the usual engine, and no more lone runs are made."""
    usual = SummingEngine()

    def fails(token_ids: TokenIds, mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        raise ValueError("too many at once")

    async with batching(usual) as batcher:
        batcher.lone_run = fails
        results = await batcher.submit([row([1] * 8)] * inputs, lone=True)
        assert not batcher.load().lone
    assert all(isinstance(one, Scored) for one in results) and len(usual.batches) == inputs


@pytest.mark.asyncio
async def test_batches_that_wait_run_in_order_of_deadline() -> None:
    """The batch with the earliest deadline of any input runs next; of equal ones the one that came first."""
    engine = SummingEngine()
    async with batching(engine, busy=True) as batcher, asyncio.TaskGroup() as clients:
        clients.create_task(batcher.submit([row([1] * 8)]))
        await a_run_begins(engine)
        last, equal, first = soon(900), soon(600), soon(300)
        for name, deadlines in ((2, [last]), (3, [equal, last]), (4, [last, equal]), (5, [last, first])):
            clients.create_task(batcher.submit([row([name] * 8, deadline) for deadline in deadlines]))
            await asyncio.sleep(0)
        engine.gate.set()
    assert [run[0] for run in firsts(engine)] == [1, 5, 3, 4, 2]


@pytest.mark.asyncio
async def test_an_urgent_batch_waits_for_at_most_one_run() -> None:
    """The earliest deadline runs as soon as the engine is free, however many runs wait, even of one batch."""
    engine = SummingEngine()
    async with batching(engine, busy=True) as batcher, asyncio.TaskGroup() as clients:
        clients.create_task(batcher.submit([row([1] * 40)] * 5 * LARGEST_RUN))
        await a_run_begins(engine)
        clients.create_task(batcher.submit([row([7] * 8, soon(300))]))
        await asyncio.sleep(0)
        engine.gate.set()
    assert engine.batches[1] == [[7] * 8]
    assert sum(len(run) for run in engine.batches) == 5 * LARGEST_RUN + 1


@pytest.mark.asyncio
async def test_the_loop_never_waits_for_the_engine() -> None:
    """The event loop goes on while the engine runs."""
    engine = SummingEngine()
    async with batching(engine, busy=True) as batcher:
        client = sent(batcher, row([1]))
        await a_run_begins(engine)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not client.done()
        engine.gate.set()
        assert isinstance((await client)[0], Scored)


@pytest.mark.asyncio
async def test_two_threads_run_two_batches_at_once() -> None:
    """With `threads=2` two batches run at once, and a third waits; the parts of one batch run at once too."""
    engine = SummingEngine()
    async with batching(engine, busy=True, threads=2) as batcher, asyncio.TaskGroup() as clients:
        clients.create_task(batcher.submit([row([1]), row([1] * 60)]))
        await a_run_begins(engine)
        await a_run_begins(engine)
        clients.create_task(batcher.submit([row([1] * 20)]))
        await asyncio.sleep(0)
        assert batcher.load().queued == 1
        engine.gate.set()
    assert sorted(len(run[0]) for run in engine.batches) == [1, 20, 60]


@pytest.mark.asyncio
async def test_a_full_queue_refuses_a_batch_whole() -> None:
    """A batch that would overfill the queue is refused whole as QUEUE_FULL; an empty queue takes one of any size.

    Inputs that run do not count.
    """
    engine = SummingEngine()
    full = [Failure(FailureKind.QUEUE_FULL)]
    async with batching(engine, busy=True, max_queued=2) as batcher, asyncio.TaskGroup() as clients:
        clients.create_task(batcher.submit([row([1])] * 5))
        await a_run_begins(engine)
        clients.create_task(batcher.submit([row([1])]))
        await asyncio.sleep(0)
        assert await batcher.submit([row([1])] * 2) == full * 2
        clients.create_task(batcher.submit([row([1])]))
        await asyncio.sleep(0)
        assert await batcher.submit([row([1])]) == full
        engine.gate.set()
    assert batcher.totals.inputs == 7


@pytest.mark.asyncio
async def test_the_load_report_counts_down_to_nothing() -> None:
    """The backlog is the median time of what waits plus the rest of what runs, and never negative."""
    now = 50.0
    engine = SummingEngine()
    async with batching(engine, busy=True, clock=lambda: now) as batcher:
        assert batcher.load() == LoadReport(0.0, 0)
        running = sent(batcher, row([1] * 8, now + 60))
        await a_run_begins(engine)
        assert batcher.load().backlog_s == pytest.approx(0.01)
        waiting = sent(batcher, *[row([1] * 64, now + 60)] * 8)
        await asyncio.sleep(0)
        now += 0.004
        assert batcher.load().backlog_s == pytest.approx(0.326) and batcher.load().queued == 8
        now += 10
        assert batcher.load().backlog_s == pytest.approx(0.32)
        engine.gate.set()
        await asyncio.gather(running, waiting)
        assert batcher.load() == LoadReport(0.0, 0)


@pytest.mark.asyncio
async def test_totals_account_for_every_token_and_second() -> None:
    """Padding, lateness and busy time add up; late inputs waste their share of the run, strict or best-effort."""
    now = 50.0
    engine = SummingEngine()
    async with batching(engine, busy=True, clock=lambda: now) as batcher, asyncio.TaskGroup() as clients:
        clients.create_task(batcher.submit([row([1] * 8, now + 1, strict=False), row([1] * 7, now + 9)]))
        await a_run_begins(engine)
        now += 4
        engine.gate.set()
    totals = batcher.totals
    assert (totals.batches, totals.inputs, totals.real_tokens, totals.padded_tokens) == (1, 2, 15, 16)
    assert totals.busy_s == pytest.approx(4) and totals.wasted_s == pytest.approx(2)
    assert totals.sizes == {2: 1} and "sizes" not in totals.figures()
