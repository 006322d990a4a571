"""The scheduler on the event loop: requests wait here for their batch.

The scheduler decides which requests run and when. This module has only the futures and the timer.
"""

from __future__ import annotations

import asyncio

from gateway.model.deadline import Clock
from gateway.scheduling.scheduler import Scheduler, Stage, Ticket

LOOK_S = 0.25
"""Longest time between two looks at the queue, in seconds: a replica may come or go. Set by hand."""


class SchedulerLoop:
    """Wakes the requests whose batches the scheduler begins, or that it gives up."""

    def __init__(self, scheduler: Scheduler, clock: Clock) -> None:
        """Starts nothing: call `settled` on the event loop."""
        self._scheduler = scheduler
        self._clock = clock
        self._waiting: dict[Ticket, asyncio.Future[None]] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_s = 0.0

    async def settled(self, ticket: Ticket, patience_s: float) -> None:
        """Waits until a submitted request has begun or ended; its `stage` says which.

        Raises TimeoutError after `patience_s` seconds. Cancelling the call withdraws the request; if its batch has
        begun meanwhile, the call completes it. If nothing is to be waited for, this neither yields to the event loop
        nor sets a timer.
        """
        if ticket.stage is not Stage.WAITING:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = future
        self.look()
        if future.done():
            return
        try:
            async with asyncio.timeout(patience_s):
                await future
        except (asyncio.CancelledError, TimeoutError):
            if not future.cancelled():  # its batch began, and its task has not run since
                self._abandon(ticket)
            elif self._waiting.pop(ticket, None) is not None:
                self._scheduler.withdraw(ticket)
            raise

    def look(self) -> None:
        """Begins what can begin now, if any request waits."""
        if not self._waiting:
            return
        now_s = self._clock()
        for ticket in self._scheduler.poll(now_s):
            future = self._waiting.pop(ticket)
            if future.cancelled():  # its client has just left, and its task has not run since
                self._abandon(ticket)
            else:
                future.set_result(None)
        self._arm(now_s)

    def _abandon(self, ticket: Ticket) -> None:
        """Reports the part of a request as ended whose client left just when its batch began."""
        if ticket.stage is Stage.BEGUN:
            self._scheduler.completed(ticket, self._clock())
            self.look()

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
