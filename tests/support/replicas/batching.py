"""A batcher over an engine that sums: what tests of batches start, fill and wait for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from deployments.engines.base import Logits, TokenIds
from deployments.replica.batcher import Batcher, Results, Row
from gateway.model.profile import LatencyProfile

PROFILE = LatencyProfile((1, 8), (8, 64), ((0.01, 0.08), (0.04, 0.32)), sigma=0.1)
"""An input of up to 8 tokens takes 10 ms, eight of them 40 ms, and more tokens take longer in proportion."""


@dataclass
class SummingEngine:
    """An engine whose logits are (sum of the real ids, padded length). While `gate` is shut, it is busy."""

    gate: threading.Event = field(default_factory=threading.Event)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    batches: list[list[list[int]]] = field(default_factory=list)

    def run(self, token_ids: TokenIds, mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        """Record the batch as given, with its padding, and run it."""
        self.batches.append(token_ids.tolist())
        self.begun.release()
        assert self.gate.wait(60)
        return np.stack([(token_ids * mask).sum(1), np.full(len(mask), mask.shape[1])], axis=1).astype(np.float32)


@asynccontextmanager
async def batching(
    engine: SummingEngine,
    busy: bool = False,
    clock: Callable[[], float] = time.monotonic,
    max_queued: int = 100,
    threads: int = 1,
) -> AsyncIterator[Batcher]:
    """Start a batcher; `busy` shuts the gate."""
    batcher = Batcher(engine.run, PROFILE, clock, max_queued, pad_id=9, threads=threads)
    batcher.start()
    if not busy:
        engine.gate.set()
    try:
        yield batcher
    finally:
        engine.gate.set()
        await batcher.stop(60)


def soon(budget_s: float = 600.0) -> float:
    """Return a deadline that no request of these tests misses."""
    return time.monotonic() + budget_s


def row(token_ids: list[int], deadline: float | None = None, strict: bool = True) -> Row:
    """Return an input of a batch; without a deadline it has time enough."""
    return Row(token_ids, soon() if deadline is None else deadline, strict)


def sent(batcher: Batcher, *rows: Row) -> asyncio.Task[Results]:
    """Send a batch, as a task that ends with its results."""
    return asyncio.create_task(batcher.submit(rows))


async def a_run_begins(engine: SummingEngine) -> None:
    """Wait until the engine has been given one more batch."""
    assert await asyncio.to_thread(engine.begun.acquire, timeout=60)
