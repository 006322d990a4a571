"""How an input leaves the batcher without logits: the engine fails, the caller leaves or the replica stops."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from waiting import until

from deployments.engines.base import Logits, TokenIds
from deployments.replica.batcher import Batcher, Results, Row, Scored
from gateway.model.messages import Failure, FailureKind
from gateway.model.profile import LatencyProfile

PROFILE = LatencyProfile((1, 8), (8, 64), ((0.01, 0.08), (0.04, 0.32)), sigma=0.1)
POISON = 666


@dataclass
class TouchyEngine:
    """An engine that raises on any batch with POISON. While `gate` is shut, runs wait."""

    gate: threading.Event = field(default_factory=threading.Event)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    batches: list[list[int]] = field(default_factory=list)

    def run(self, token_ids: TokenIds, mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        """Records each input's first id."""
        self.batches.append(token_ids[:, 0].tolist())
        self.begun.release()
        assert self.gate.wait(60)
        if (token_ids == POISON).any():
            raise ArithmeticError("poison")
        return np.zeros((len(token_ids), 2), np.float32)


def started(engine: TouchyEngine, busy: bool = False) -> Batcher:
    """A started batcher; `busy` shuts the engine's gate."""
    batcher = Batcher(engine.run, PROFILE, time.monotonic, max_queued=100)
    batcher.start()
    if not busy:
        engine.gate.set()
    return batcher


def batch(*first_ids: int) -> list[Row]:
    """A batch of inputs of 8 tokens with time enough, each recognised by its first id."""
    return [Row([first_id] * 8, time.monotonic() + 600, True) for first_id in first_ids]


def sent(batcher: Batcher, *first_ids: int) -> asyncio.Task[Results]:
    """Sends a batch of these inputs."""
    return asyncio.create_task(batcher.submit(batch(*first_ids)))


def scored(results: Results) -> list[bool]:
    """Which of the inputs have logits."""
    return [isinstance(result, Scored) for result in results]


async def a_run_begins(engine: TouchyEngine) -> None:
    """Waits until the engine has been given one more batch."""
    assert await asyncio.to_thread(engine.begun.acquire, timeout=60)


def complaints() -> list[dict[str, Any]]:
    """What the running loop reports from now on: unretrieved exceptions, invalid states."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    return heard


@pytest.mark.asyncio
async def test_only_the_culprit_of_a_failed_run_fails() -> None:
    """Only the poisonous input of a failed run fails, naming the exception; the others run again, each alone."""
    engine = TouchyEngine()
    batcher = started(engine)
    results = await batcher.submit(batch(1, 2, POISON, 4))
    assert results[2] == Failure(FailureKind.ENGINE, "ArithmeticError")
    assert scored(results) == [True, True, False, True]
    assert engine.batches == [[1, 2, POISON, 4], [1], [2], [POISON], [4]]
    assert batcher.totals.engine_failures == 2
    assert 0 < batcher.totals.wasted_s < batcher.totals.busy_s
    assert scored(await batcher.submit(batch(5))) == [True]
    await batcher.stop(60)


@pytest.mark.asyncio
async def test_a_failed_run_costs_no_other_batch_its_result() -> None:
    """A batch beside a failed one runs once and whole, and one that is more urgent runs before the repeats."""
    engine = TouchyEngine()
    batcher = started(engine, busy=True)
    failing = sent(batcher, 1, POISON)
    await a_run_begins(engine)
    urgent = [Row([first_id] * 8, time.monotonic() + 300, True) for first_id in (3, 4)]
    beside = asyncio.create_task(batcher.submit(urgent))
    await asyncio.sleep(0)
    engine.gate.set()
    assert scored(await beside) == [True, True] and scored(await failing) == [True, False]
    assert engine.batches == [[1, POISON], [3, 4], [1], [POISON]]
    await batcher.stop(60)


@pytest.mark.asyncio
async def test_an_engine_that_miscounts_has_failed() -> None:
    """An engine that returns fewer rows than inputs has failed them all, and the batcher goes on."""

    def miscounting(token_ids: TokenIds, mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        return np.zeros((len(token_ids) - 1, 2), np.float32)

    batcher = Batcher(miscounting, PROFILE, time.monotonic, max_queued=100)
    batcher.start()
    for size in (1, 3):
        results = await batcher.submit(batch(*range(size)))
        assert results == [Failure(FailureKind.ENGINE, "ValueError")] * size
    await batcher.stop(60)


@pytest.mark.asyncio
async def test_a_batch_cancelled_while_waiting_never_runs() -> None:
    """Cancelling a batch withdraws its waiting runs, all of them and no others, and they leave the backlog."""
    engine = TouchyEngine()
    batcher = started(engine, busy=True)
    first = sent(batcher, 1)
    await a_run_begins(engine)
    leaving = asyncio.create_task(batcher.submit([*batch(2, 3), Row([4] * 64, time.monotonic() + 600, True)]))
    staying = sent(batcher, 5, 6)
    await asyncio.sleep(0)
    assert batcher.load().queued == 5
    leaving.cancel()
    await asyncio.sleep(0)
    assert batcher.load().queued == 2
    engine.gate.set()
    assert scored(await first) == [True] and scored(await staying) == [True, True]
    assert leaving.cancelled() and engine.batches == [[1], [5, 6]]
    assert batcher.totals.cancelled == 3 and batcher.load().backlog_s == 0.0
    await batcher.stop(60)


@pytest.mark.asyncio
async def test_a_result_nobody_waits_for_is_discarded_in_silence() -> None:
    """A caller that leaves during its run disturbs no other batch, and the run is wasted."""
    engine = TouchyEngine()
    heard = complaints()
    batcher = started(engine, busy=True)
    leaving, staying = sent(batcher, 1, 2), sent(batcher, 3)
    await a_run_begins(engine)
    leaving.cancel()
    engine.gate.set()
    assert scored(await staying) == [True]
    assert leaving.cancelled() and batcher.totals.cancelled == 2
    assert 0 < batcher.totals.wasted_s < batcher.totals.busy_s
    assert scored(await batcher.submit(batch(4))) == [True]
    await batcher.stop(60)
    assert heard == [] and engine.batches == [[1, 2], [3], [4]]


@pytest.mark.asyncio
async def test_who_left_a_failed_batch_is_not_run_again() -> None:
    """After a failed run nothing is run again if the caller has left, and another batch is served."""
    engine = TouchyEngine()
    heard = complaints()
    batcher = started(engine, busy=True)
    leaving, staying = sent(batcher, 1, POISON), sent(batcher, 3, POISON)
    await a_run_begins(engine)
    leaving.cancel()
    engine.gate.set()
    assert scored(await staying) == [True, False]
    assert engine.batches == [[1, POISON], [3, POISON], [3], [POISON]]
    await batcher.stop(60)
    assert heard == []


@pytest.mark.asyncio
async def test_a_batcher_that_is_not_open_is_unavailable() -> None:
    """A batcher that is not started, or stopped, answers UNAVAILABLE; its constructor runs nothing."""
    batcher = Batcher(TouchyEngine().run, PROFILE, time.monotonic, max_queued=100)
    threads = set(threading.enumerate())
    await batcher.stop(60)
    for _ in range(2):
        results = await batcher.submit(batch(1, 2))
        assert [one.kind for one in results if isinstance(one, Failure)] == [FailureKind.UNAVAILABLE] * 2
        assert batcher.load().draining and not set(threading.enumerate()) - threads
        batcher.start()
        await batcher.stop(60)


@pytest.mark.asyncio
async def test_stopping_finishes_what_it_has_admitted() -> None:
    """Stopping answers everything that runs or waits within the grace, repeats included, and admits nothing new."""
    engine = TouchyEngine()
    batcher = started(engine, busy=True)
    admitted = [sent(batcher, 2 * at, POISON if at == 5 else 2 * at + 1) for at in range(20)]
    await a_run_begins(engine)
    stopping = asyncio.create_task(batcher.stop(60))
    await asyncio.sleep(0)
    assert scored(await batcher.submit(batch(1))) == [False]
    engine.gate.set()
    await stopping
    results = await asyncio.gather(*admitted)
    assert [scored(one) for one in results] == [[True, at != 5] for at in range(20)]
    assert results[5][1] == Failure(FailureKind.ENGINE, "ArithmeticError")


@pytest.mark.asyncio
@pytest.mark.parametrize("first_id", [1, POISON])
async def test_stopping_outlasts_no_stuck_engine(first_id: int) -> None:
    """After the grace every input ends as UNAVAILABLE, even behind a stuck engine that comes back or fails later."""
    engine = TouchyEngine()
    heard = complaints()
    batcher = started(engine, busy=True)
    running = sent(batcher, first_id, 1)
    await a_run_begins(engine)
    waiting = sent(batcher, 2, 3, 4)
    await asyncio.sleep(0)
    await batcher.stop(0.01)
    results = [*await running, *await waiting]
    assert [one.kind for one in results if isinstance(one, Failure)] == [FailureKind.UNAVAILABLE] * 5
    engine.gate.set()
    await until(lambda: batcher.totals.batches == 1)  # the run has come back, after the grace
    assert engine.batches == [[first_id, 1]] and heard == [] and batcher.load().backlog_s == 0.0
