"""The turnstile before a room, on the event loop: requests wait here until the room lets them through.

Which ones and when is the room's business; here are only the futures they wait on and the timer that wakes the room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.model.deadline import Clock
from gateway.scheduling.batching import QueuedRequest
from gateway.scheduling.scheduler import Batch, Scheduler, WaitingRequest

LOOK_S = 0.25
"""How often the room is asked again while anybody waits, whatever it expects: a replica may have come or gone."""


class SchedulerLoop:
    """Lets the requests of one task through, run by run."""

    def __init__(self, room: Scheduler, clock: Clock) -> None:
        """Nothing waits yet, and nothing runs until `passed` is called, on the event loop."""
        self._room = room
        self._clock = clock
        self._waiting: dict[QueuedRequest, asyncio.Future[Batch | None]] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_s = 0.0
        self.beside: Sequence[SchedulerLoop] = ()
        """Those of the other tasks on the same cores: what ends here may be what they leave a core to."""

    async def passed(self, held: WaitingRequest, patience_s: float) -> Batch | None:
        """Waits until the request's run can begin; None where that is in vain. Raises TimeoutError after `patience_s`.

        Cancelling it withdraws the request. Of a release, `ended` must be called once for each member. Where a run can
        begin at once, nothing is waited for, no turn of the loop and no timer.
        """
        future: asyncio.Future[Batch | None] = asyncio.get_running_loop().create_future()
        self._waiting[held] = future
        self._room.enter(held)
        self._let_through()
        if future.done():
            return future.result()
        try:
            async with asyncio.timeout(patience_s):
                return await future
        except (asyncio.CancelledError, TimeoutError):
            self._withdraw(held, future)
            raise

    def ended(self, release: Batch) -> None:
        """One member of the run is done with, whichever way."""
        self._room.ended(release)
        for one in (self, *self.beside):
            one.look()

    def look(self) -> None:
        """Asks the room who can go on, if anybody waits."""
        if self._waiting:
            self._let_through()

    def _let_through(self) -> None:
        now_s = self._clock()
        for held in self._room.expired(now_s):
            self._settle(held, None)
        while (release := self._room.release(now_s)) is not None:
            for held in release.members:
                self._settle(held, release)
        self._arm(now_s)

    def _withdraw(self, held: WaitingRequest, future: asyncio.Future[Batch | None]) -> None:
        """It waits no longer; were it released in this very moment, its part of the run is done with."""
        if not future.cancelled():  # it was settled, and its task had not yet run to hear of it
            if (release := future.result()) is not None:
                self.ended(release)
        elif self._waiting.pop(held, None) is not None:
            self._room.leave(held)

    def _settle(self, held: QueuedRequest, release: Batch | None) -> None:
        future = self._waiting.pop(held)
        if not future.done():
            future.set_result(release)
        elif release is not None:  # its client has just left, and its task not yet run to say so
            self._room.ended(release)

    def _arm(self, now_s: float) -> None:
        """Has the room asked again in time. An alarm that comes early does no harm: only an earlier one replaces it."""
        if not self._waiting:
            return
        wake_s = min(self._room.wake_s(now_s) or now_s + LOOK_S, now_s + LOOK_S)
        if self._alarm is not None:
            if self._alarm_s <= wake_s:
                return
            self._alarm.cancel()
        self._alarm_s = wake_s
        self._alarm = asyncio.get_running_loop().call_later(max(wake_s - now_s, 0.0), self._woken)

    def _woken(self) -> None:
        self._alarm = None
        self.look()
