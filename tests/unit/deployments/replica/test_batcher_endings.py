"""How an input leaves the batcher without logits: the engine fails, the caller leaves or the replica stops."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from deployments.replica.batch_forming import BatchLimits
from waiting import until

from deployments.engines.base import Logits, TokenIds
from deployments.replica.batcher import Batcher, Scored
from gateway.model.messages import Failure, FailureKind
from gateway.model.profile import LatencyProfile

PROFILE = LatencyProfile((1, 8), (8, 64), ((0.01, 0.08), (0.04, 0.32)), sigma=0.1)
LIMITS = BatchLimits(max_batch=8, max_batch_tokens=512, max_padding_waste=0.25)
POISON = 666


@dataclass
class TouchyEngine:
    """An engine that raises on any batch with POISON. While `gate` is shut, runs wait."""

    gate: threading.Event = field(default_factory=threading.Event)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    batches: list[list[int]] = field(default_factory=list)

    def run(self, token_ids: TokenIds, mask: TokenIds) -> Logits:
        """Records each input's first id."""
        self.batches.append(token_ids[:, 0].tolist())
        self.begun.release()
        assert self.gate.wait(60)
        if (token_ids == POISON).any():
            raise ArithmeticError("poison")
        return np.zeros((len(token_ids), 2), np.float32)


def started(engine: TouchyEngine, busy: bool = False) -> Batcher:
    """A started batcher; `busy` shuts the engine's gate."""
    batcher = Batcher(engine.run, PROFILE, LIMITS, time.monotonic, max_queued=100)
    batcher.start()
    if not busy:
        engine.gate.set()
    return batcher


def submitted(batcher: Batcher, first_id: int) -> asyncio.Task[Scored | Failure]:
    """An input of 8 tokens with time enough, recognised by its first id."""
    return asyncio.create_task(batcher.submit([first_id] * 8, time.monotonic() + 600, True))


async def a_run_begins(engine: TouchyEngine) -> None:
    """Waits until the engine has been given one more batch."""
    assert await asyncio.to_thread(engine.begun.acquire, timeout=60)


def complaints() -> list[dict[str, Any]]:
    """What the running loop reports from now on: unretrieved exceptions, invalid states."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    return heard


@pytest.mark.asyncio
async def test_only_the_culprit_of_a_failed_batch_fails() -> None:
    """Only the poisonous input of a failed batch fails, naming the exception; the others cost one more run."""
    engine = TouchyEngine()
    batcher = started(engine)
    results = await asyncio.gather(*(submitted(batcher, first_id) for first_id in (1, 2, POISON, 4)))
    assert results[2] == Failure(FailureKind.ENGINE, "ArithmeticError")
    assert [isinstance(result, Scored) for result in results] == [True, True, False, True]
    assert engine.batches == [[1, 2, POISON, 4], [1], [2], [POISON], [4]]
    assert batcher.totals.engine_failures == 2
    assert 0 < batcher.totals.wasted_s < batcher.totals.busy_s
    assert isinstance(await submitted(batcher, 5), Scored)
    await batcher.stop(60)


@pytest.mark.asyncio
async def test_an_engine_that_miscounts_has_failed() -> None:
    """An engine that returns fewer rows than inputs has failed them all, and the batcher goes on."""

    def miscounting(token_ids: TokenIds, mask: TokenIds) -> Logits:
        return np.zeros((0, 2), np.float32)

    batcher = Batcher(miscounting, PROFILE, LIMITS, time.monotonic, max_queued=100)
    batcher.start()
    for _ in range(2):
        assert await submitted(batcher, 1) == Failure(FailureKind.ENGINE, "ValueError")
    await batcher.stop(60)


@pytest.mark.asyncio
async def test_an_input_cancelled_while_waiting_never_runs() -> None:
    """An input that is cancelled while it waits never runs and leaves the backlog."""
    engine = TouchyEngine()
    batcher = started(engine, busy=True)
    first = submitted(batcher, 1)
    await a_run_begins(engine)
    leaving, staying = submitted(batcher, 2), submitted(batcher, 3)
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    assert batcher.load().queued == 1
    engine.gate.set()
    assert isinstance(await first, Scored) and isinstance(await staying, Scored)
    assert leaving.cancelled() and engine.batches == [[1], [3]]
    assert batcher.totals.cancelled == 1 and batcher.load().backlog_s == 0.0
    await batcher.stop(60)


@pytest.mark.asyncio
async def test_a_result_nobody_waits_for_is_discarded_in_silence() -> None:
    """A caller that leaves during its run disturbs no other input, and its share of the batch is wasted."""
    engine = TouchyEngine()
    heard = complaints()
    batcher = started(engine, busy=True)
    leaving, staying = submitted(batcher, 1), submitted(batcher, 2)
    await a_run_begins(engine)
    leaving.cancel()
    engine.gate.set()
    assert isinstance(await staying, Scored)
    assert leaving.cancelled() and batcher.totals.cancelled == 1
    assert batcher.totals.wasted_s == pytest.approx(batcher.totals.busy_s / 2)
    assert isinstance(await submitted(batcher, 3), Scored)
    await batcher.stop(60)
    assert heard == []


@pytest.mark.asyncio
async def test_who_left_a_failed_batch_is_not_run_again() -> None:
    """After a failed batch only inputs whose callers still wait are run again."""
    engine = TouchyEngine()
    heard = complaints()
    batcher = started(engine, busy=True)
    staying, leaving, culprit = (submitted(batcher, first_id) for first_id in (1, 2, POISON))
    await a_run_begins(engine)
    leaving.cancel()
    engine.gate.set()
    assert isinstance(await staying, Scored)
    assert await culprit == Failure(FailureKind.ENGINE, "ArithmeticError")
    assert engine.batches == [[1, 2, POISON], [1], [POISON]]
    await batcher.stop(60)
    assert heard == []


@pytest.mark.asyncio
async def test_a_batcher_that_is_not_open_is_unavailable() -> None:
    """A batcher that is not started, or stopped, answers UNAVAILABLE; its constructor runs nothing."""
    batcher = Batcher(TouchyEngine().run, PROFILE, LIMITS, time.monotonic, max_queued=100)
    threads = set(threading.enumerate())
    await batcher.stop(60)
    for _ in range(2):
        result = await batcher.submit([1], time.monotonic() + 600, True)
        assert isinstance(result, Failure) and result.kind is FailureKind.UNAVAILABLE
        assert batcher.load().draining and not set(threading.enumerate()) - threads
        batcher.start()
        await batcher.stop(60)


@pytest.mark.asyncio
async def test_stopping_finishes_what_it_has_admitted() -> None:
    """Stopping answers everything that runs or waits within the grace, and admits nothing new."""
    engine = TouchyEngine()
    batcher = started(engine, busy=True)
    admitted = [submitted(batcher, first_id) for first_id in range(20)]
    await a_run_begins(engine)
    stopping = asyncio.create_task(batcher.stop(60))
    await asyncio.sleep(0)
    assert isinstance(await batcher.submit([1], time.monotonic() + 600, True), Failure)
    engine.gate.set()
    await stopping
    assert all(isinstance(result, Scored) for result in await asyncio.gather(*admitted))


@pytest.mark.asyncio
async def test_stopping_outlasts_no_stuck_engine() -> None:
    """After the grace every input ends as UNAVAILABLE, even behind a stuck engine that comes back later."""
    engine = TouchyEngine()
    heard = complaints()
    batcher = started(engine, busy=True)
    running = submitted(batcher, 1)
    await a_run_begins(engine)
    waiting = submitted(batcher, 2)
    await asyncio.sleep(0)
    await batcher.stop(0.01)
    for client in (running, waiting):
        result = await client
        assert isinstance(result, Failure) and result.kind is FailureKind.UNAVAILABLE
    engine.gate.set()
    await until(lambda: batcher.totals.batches == 1)  # the run has come back, after the grace
    assert engine.batches == [[1]] and heard == [] and batcher.load().backlog_s == 0.0
