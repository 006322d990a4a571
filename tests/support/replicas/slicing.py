"""A time slicer over texts whose steps take a known time: what tests of time slicing start and query."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fake_engines import in_steps
from fakes import FakeClock

from deployments.replica.writing.job import TextBudget, WritingJob
from deployments.replica.writing.step_log import NO_LOG, StepLog
from deployments.replica.writing.time_slicing import FinishedJob, TimeSlicer
from gateway.model.messages import Failure, LoadReport

IDLE = LoadReport(0.0, 0, sharing=0)


STEP_S = 1 / 64
"""Seconds of a step: a time slice has two of them, and their sums are exact."""


@dataclass
class PlayedSlicer:
    """A time slicer with texts to submit, each step of which takes `step_s`. `ran` names the text of each step run.

    While `gate` is shut, the engine waits within its step.
    """

    time_slicer: TimeSlicer
    clock: FakeClock
    gate: threading.Event = field(default_factory=threading.Event)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    ran: list[str] = field(default_factory=list)

    def text(self, name: str, steps: int, budget_s: float = 600.0, step_s: float = STEP_S) -> WritingJob:
        """Return a text of this many steps."""

        def run() -> None:
            self.ran.append(name)
            self.begun.release()
            assert self.gate.wait(60)
            self.clock.advance(step_s)

        return in_steps(TextBudget(self.clock() + budget_s, 0.0, self.clock), steps, run, step_s)

    def submit(
        self, name: str, steps: int, budget_s: float = 600.0, step_s: float = STEP_S
    ) -> asyncio.Task[FinishedJob | Failure]:
        """Submit a text of this many steps."""
        return asyncio.create_task(self.time_slicer.submit(name, self.text(name, steps, budget_s, step_s)))

    async def a_step_begins(self) -> None:
        """Wait until the engine is in one more step."""
        assert await asyncio.to_thread(self.begun.acquire, timeout=60)


@asynccontextmanager
async def played_slicer(slots: int = 1, max_queued: int = 100, log: StepLog = NO_LOG) -> AsyncIterator[PlayedSlicer]:
    """Start a time slicer with a shut gate."""
    clock = FakeClock()
    made = PlayedSlicer(TimeSlicer(slots, clock, max_queued, log), clock)
    made.time_slicer.start()
    try:
        yield made
    finally:
        made.gate.set()
        await made.time_slicer.stop(60)
