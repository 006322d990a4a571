"""The scheduler on the event loop: requests wait here until their batch can begin.

Which ones and when is the scheduler's business; here are only the futures they wait on and the timer that wakes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.model.deadline import Clock
from gateway.model.faults import Note, attempt, log_fault
from gateway.scheduling.batching import QueuedRequest
from gateway.scheduling.scheduler import Batch, Scheduler

LOOK_S = 0.25
"""How often the scheduler is asked again while anybody waits: a replica may have come or gone."""


class SchedulerLoop:
    """Lets the requests of one task through, batch by batch."""

    def __init__(self, scheduler: Scheduler, clock: Clock, note: Note = log_fault) -> None:
        """Nothing waits yet, and nothing runs until `passed` is called, on the event loop."""
        self._scheduler = scheduler
        self._note = note
        self._clock = clock
        self._waiting: dict[QueuedRequest, asyncio.Future[Batch | None]] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_s = 0.0
        self.beside: Sequence[SchedulerLoop] = ()
        """Those of the other tasks on the same cores: what ends here may be what they leave a core to."""

    async def passed(self, held: QueuedRequest, patience_s: float) -> Batch | None:
        """Waits until the request's batch can begin; None where that is in vain.

        Raises TimeoutError after `patience_s`. Cancelling it withdraws the request. Of a batch, `ended` must be called
        once for each member. Where it can begin at once, nothing is waited for, no turn of the loop and no timer.
        """
        future: asyncio.Future[Batch | None] = asyncio.get_running_loop().create_future()
        self._waiting[held] = future
        self._scheduler.enter(held)
        self._let_through()
        if future.done():
            return future.result()
        try:
            async with asyncio.timeout(patience_s):
                return await future
        except (asyncio.CancelledError, TimeoutError):
            self._withdraw(held, future)
            raise

    def ended(self, batch: Batch) -> None:
        """One member of the batch is done with, whichever way."""
        self._scheduler.ended(batch)
        for one in (self, *self.beside):
            one.look()

    def look(self) -> None:
        """Asks the scheduler who can go on, if anybody waits."""
        if self._waiting:
            self._let_through()

    def _let_through(self) -> None:
        now_s = self._clock()
        for held in self._scheduler.expired(now_s):
            self._settle(held, None)
        while (batch := self._next(now_s)) is not None:
            for member in batch.members:
                self._settle(member, batch)
        self._arm(now_s)

    def _next(self, now_s: float) -> Batch | None:
        scheduler = self._scheduler
        return attempt(
            "scheduling", self._note, lambda: scheduler.release(now_s), lambda: scheduler.release_plainly(now_s)
        )

    def _withdraw(self, held: QueuedRequest, future: asyncio.Future[Batch | None]) -> None:
        """It waits no longer; were it released in this very moment, its part of the run is done with."""
        if not future.cancelled():  # it was settled, and its task had not yet run to hear of it
            if (batch := future.result()) is not None:
                self.ended(batch)
        elif self._waiting.pop(held, None) is not None:
            self._scheduler.leave(held)

    def _settle(self, held: QueuedRequest, batch: Batch | None) -> None:
        future = self._waiting.pop(held)
        if not future.done():
            future.set_result(batch)
        elif batch is not None:  # its client has just left, and its task not yet run to say so
            self._scheduler.ended(batch)

    def _arm(self, now_s: float) -> None:
        """Has the room asked again in time. An alarm that comes early does no harm: only an earlier one replaces it."""
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
