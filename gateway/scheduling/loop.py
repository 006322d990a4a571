"""The scheduler on the event loop: requests wait here for their batch.

The scheduler decides which requests run and when. This module has only the futures and the timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.model.deadline import Clock
from gateway.model.faults import Note, attempt, log_fault
from gateway.scheduling.batching import QueuedRequest
from gateway.scheduling.scheduler import Batch, Scheduler

LOOK_S = 0.25
"""Longest time between two looks at the queue, in seconds: a replica may come or go. Set by hand."""


class SchedulerLoop:
    """Starts the batches of one task."""

    def __init__(self, scheduler: Scheduler, clock: Clock, note: Note = log_fault) -> None:
        """Starts nothing: call `passed` on the event loop."""
        self._scheduler = scheduler
        self._note = note
        self._clock = clock
        self._waiting: dict[QueuedRequest, asyncio.Future[Batch | None]] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_s = 0.0
        self.neighbours: Sequence[SchedulerLoop] = ()
        """Loops of the other tasks on the same cores.

        When a batch ends here they look again, since it may free a core for them.
        """

    async def passed(self, queued: QueuedRequest, patience_s: float) -> Batch | None:
        """Waits until the request's batch can begin; None if no batch will take it.

        Raises TimeoutError after `patience_s` seconds. Cancelling the call withdraws the request. The caller must call
        `ended` once for each member of the batch. If the batch can begin at once, this neither yields to the event loop
        nor sets a timer.
        """
        future: asyncio.Future[Batch | None] = asyncio.get_running_loop().create_future()
        self._waiting[queued] = future
        self._scheduler.enter(queued)
        self._start_batches()
        if future.done():
            return future.result()
        try:
            async with asyncio.timeout(patience_s):
                return await future
        except (asyncio.CancelledError, TimeoutError):
            self._withdraw(queued, future)
            raise

    def ended(self, batch: Batch) -> None:
        """Reports that one member of the batch is finished, in whatever way."""
        self._scheduler.ended(batch)
        for one in (self, *self.neighbours):
            one.look()

    def look(self) -> None:
        """Starts what can start now, if any request waits."""
        if self._waiting:
            self._start_batches()

    def _start_batches(self) -> None:
        now_s = self._clock()
        for queued in self._scheduler.expired(now_s):
            self._bind(queued, None)
        while (batch := self._next(now_s)) is not None:
            for member in batch.members:
                self._bind(member, batch)
        self._arm(now_s)

    def _next(self, now_s: float) -> Batch | None:
        scheduler = self._scheduler
        return attempt(
            "scheduling", self._note, lambda: scheduler.next_batch(now_s), lambda: scheduler.next_batch_plainly(now_s)
        )

    def _withdraw(self, queued: QueuedRequest, future: asyncio.Future[Batch | None]) -> None:
        """Takes a request out of the queue; if its batch has just begun, reports its part as ended."""
        if not future.cancelled():  # it was bound, and its task has not run since
            if (batch := future.result()) is not None:
                self.ended(batch)
        elif self._waiting.pop(queued, None) is not None:
            self._scheduler.leave(queued)

    def _bind(self, queued: QueuedRequest, batch: Batch | None) -> None:
        future = self._waiting.pop(queued)
        if not future.done():
            future.set_result(batch)
        elif batch is not None:  # its client has just left, and its task has not run since
            self._scheduler.ended(batch)

    def _arm(self, now_s: float) -> None:
        """Sets the timer for the next look. An early alarm does no harm, so only an earlier one replaces it."""
        if not self._waiting:
            return
        wake_s = min(self._scheduler.wake_s(now_s) or now_s + LOOK_S, now_s + LOOK_S)
        if self._alarm is not None:
            if self._alarm_s <= wake_s:
                return
            self._alarm.cancel()
        self._alarm_s = wake_s
        self._alarm = asyncio.get_running_loop().call_later(max(wake_s - now_s, 0.0), self._woken)

    def _woken(self) -> None:
        self._alarm = None
        self.look()
