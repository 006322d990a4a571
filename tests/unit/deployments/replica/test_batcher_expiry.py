"""Late work in the batcher: strict inputs end at their deadlines, best-effort ones yield and still get a share."""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from collections.abc import Callable
from typing import Any

import pytest
from batching import LIMITS, PROFILE, SummingEngine, a_run_begins, batching, soon
from fakes import FakeClock
from virtual_time import loop_clock, turns

from deployments.replica.batcher import Batcher, Scored
from gateway.model.messages import Failure, FailureKind

EXPIRED = Failure(FailureKind.EXPIRED)


@pytest.mark.virtual_time(flows=False)
async def test_a_strict_input_expires_at_its_deadline_though_the_engine_is_busy() -> None:
    """A strict input expires at its own deadline, however long the run before it lasts; best-effort ones wait on."""
    engine, clock = SummingEngine(), loop_clock()
    began = clock()
    async with batching(engine, busy=True, clock=clock) as batcher:
        running = asyncio.create_task(batcher.submit([1] * 8, began + 600, True))
        await a_run_begins(engine)
        patient = asyncio.create_task(batcher.submit([2] * 8, began + 600, True))
        overdue = asyncio.create_task(batcher.submit([3] * 8, began + 0.02, False))
        second = asyncio.create_task(batcher.submit([4] * 8, began + 0.06, True))
        first = asyncio.create_task(batcher.submit([5] * 8, began + 0.03, True))
        for expiring, deadline in ((first, began + 0.03), (second, began + 0.06)):
            clock.now_s = deadline - 0.001
            await turns()
            assert not expiring.done()
            clock.now_s = deadline
            assert await expiring == EXPIRED
        assert not (running.done() or patient.done() or overdue.done())
        assert batcher.totals.expired == 2 and batcher.load().queued == 2
        engine.gate.set()
        assert all(isinstance(one, Scored) for one in await asyncio.gather(running, patient, overdue))
    assert {row[0] for batch in engine.batches for row in batch} == {1, 2, 3}


class CountingLoop(asyncio.SelectorEventLoop):
    """A loop that counts the timers that are set, and signals each."""

    timers = 0

    def __init__(self) -> None:
        super().__init__()
        self.another = asyncio.Event()

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> TimerHandle:
        self.timers += 1
        self.another.set()
        return super().call_at(when, callback, *args, context=context)


def test_one_alarm_is_set_for_all_that_is_strict() -> None:
    """A thousand strict inputs cost one timer at a time, and those whose callers have left do not set another.

    The batcher's clock moves only when advanced, so that the count does not depend on the speed of the machine.
    """

    async def expire_the_last() -> int:
        loop, engine, clock = asyncio.get_running_loop(), SummingEngine(), FakeClock()
        assert isinstance(loop, CountingLoop)
        async with batching(engine, busy=True, clock=clock, max_queued=2000) as batcher:
            running = asyncio.create_task(batcher.submit([1] * 8, soon(), False))
            await a_run_begins(engine)
            before, began = loop.timers, clock()
            leaving = [batcher.submit([2], began + 0.05 + at / 10_000, True) for at in range(1000)]
            tasks = [asyncio.create_task(one) for one in (*leaving, batcher.submit([2], began + 0.2, True))]
            await asyncio.sleep(0)
            assert loop.timers - before == 1
            for task in tasks[:-1]:
                task.cancel()
            loop.another.clear()
            await loop.another.wait()  # the timer fires for the first, who has left, and is set for the last
            clock.advance(0.3)
            assert await tasks[-1] == EXPIRED
            taken = loop.timers - before
            assert batcher.load().queued == 0
            engine.gate.set()
            await asyncio.gather(running, *tasks, return_exceptions=True)
        return taken

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        assert runner.run(expire_the_last()) == 2


@pytest.mark.virtual_time(flows=False)
async def test_stopping_need_not_wait_for_what_expires_meanwhile() -> None:
    """Stopping ends as soon as the last waiting input has expired and the run has ended, before the grace is over."""
    engine, clock = SummingEngine(), loop_clock()
    batcher = Batcher(engine.run, PROFILE, LIMITS, clock, 9)
    batcher.start()
    running = asyncio.create_task(batcher.submit([1] * 8, clock() + 600, True))
    await a_run_begins(engine)
    lost = asyncio.create_task(batcher.submit([1] * 8, clock() + 0.01, True))
    await asyncio.sleep(0)
    stopping = asyncio.create_task(batcher.stop(60))
    await asyncio.sleep(0)
    clock.advance(0.01)
    assert await lost == EXPIRED
    engine.gate.set()
    await stopping
    assert isinstance(await running, Scored)


@pytest.mark.asyncio
async def test_late_work_yields_and_still_has_its_share() -> None:
    """Late inputs get one batch and then pay for it: all inputs that can be in time go before the rest of them."""
    now, engine = 50.0, SummingEngine()
    async with batching(engine, busy=True, clock=lambda: now) as batcher:
        tasks = [asyncio.create_task(batcher.submit([1] * 8, now + 600, True))]
        await a_run_begins(engine)
        tasks += [asyncio.create_task(batcher.submit([9] * 64, now - 1, False)) for _ in range(20)]
        tasks += [asyncio.create_task(batcher.submit([1] * 8, now + 600, True)) for _ in range(48)]
        await asyncio.sleep(0)
        engine.gate.set()
        assert all(isinstance(one, Scored) for one in await asyncio.gather(*tasks))
    assert "".join(str(batch[0][0]) for batch in engine.batches) == "1" + "1" + "9" + "1" * 5 + "99"
