"""The scheduler on the event loop: requests wait here for their batch and its answer.

The scheduler decides which requests run and when; a `Backend` runs the batches. This module has only the futures and
the timer.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeAlias

from gateway.model.deadline import Clock
from gateway.model.messages import Answer, Delta, Emit, Failure, FailureKind, Work, to_nobody
from gateway.model.request import Request
from gateway.scheduling.scheduler import Scheduler, Stage, Ticket

LOOK_S = 0.25
"""Longest time between two looks at the queue, in seconds: a replica may come or go. Set by hand."""

Result: TypeAlias = Answer | Failure
TakeDelta: TypeAlias = Callable[[Delta], None]
"""Takes a delta of one request's answer. It must not raise."""


class Backend(Protocol):
    """Runs batches on a replica of a checkpoint: the only way from the gateway to the deployments."""

    def dispatch(
        self,
        checkpoint: str,
        batch: Sequence[Work],
        service_time_s: float,
        done: Callable[[Sequence[Result]], None],
        emit: Emit = to_nobody,
    ) -> Callable[[], None]:
        """Sends a batch to the least loaded replica. `done` is called once, later, with a result for each request.

        Before that, `emit` is called with the deltas of streamed answers, if the replica has any.

        The function that it returns cancels the batch; `done` is then not called. `service_time_s` is the forecast; it
        counts as the replica's load until the replica reports. It raises nothing.
        """


@dataclass(slots=True, eq=False)
class _Sent:
    """A batch under way: its requests, how many of them still wait, and what cancels it."""

    tickets: Sequence[Ticket]
    left: int
    cancel: Callable[[], None] = lambda: None


@dataclass(slots=True, eq=False)
class _Call:
    """A request that waits: its future, what takes deltas of its answer, and once its batch has begun that batch.

    `until_told` is called once, with its first delta.
    """

    request: Request
    future: asyncio.Future[Result | None]
    take_delta: TakeDelta | None
    sent: _Sent | None = None
    until_told: Callable[[], None] | None = None


@dataclass(slots=True, eq=False)
class SchedulerLoop:
    """Sends the batches that the scheduler begins, and gives every waiting request its result."""

    _scheduler: Scheduler
    _backend: Backend
    _clock: Clock
    _calls: dict[Ticket, _Call] = field(default_factory=dict, init=False)
    _alarm: asyncio.TimerHandle | None = field(default=None, init=False)
    _alarm_s: float = field(default=0.0, init=False)

    async def result(
        self,
        ticket: Ticket,
        request: Request,
        patience_s: float,
        take_delta: TakeDelta | None = None,
        first_s: float = math.inf,
    ) -> Result | None:
        """Waits for the result of a submitted request; None if no batch will serve it, and its `stage` says why.

        With `take_delta` the request is sent as one that is streamed, and the deltas of its answer go there.

        After `patience_s` seconds, a request whose batch has begun gets EXPIRED, and one that still waits for a batch
        raises TimeoutError. So it is after `first_s` seconds without a delta. Cancelling the call withdraws the
        request, wherever it is.
        """
        if ticket.stage is not Stage.WAITING and ticket.stage is not Stage.BEGUN:
            return None
        call = _Call(request, asyncio.get_running_loop().create_future(), take_delta)
        self._calls[ticket] = call
        try:
            if ticket.stage is Stage.BEGUN:
                self._send((ticket,))
            else:
                self.look()
            until_s = asyncio.get_running_loop().time() + patience_s
            async with asyncio.timeout(min(patience_s, first_s)) as patience:
                call.until_told = partial(_wait_on, patience, until_s)
                return await call.future
        except TimeoutError:
            if not call.future.cancelled():  # it came in this very turn
                return call.future.result()
            if self._left(ticket, expired=True):
                return Failure(FailureKind.EXPIRED)
            raise
        finally:
            self._left(ticket)  # cancelled, or sending it has raised; else it is out already

    def look(self) -> None:
        """Begins what can begin now, if any request waits for a batch."""
        if not len(self._scheduler):
            return
        now_s = self._clock()
        batches: dict[object, list[Ticket]] = {}
        for ticket in self._scheduler.poll(now_s):
            if ticket.stage is Stage.BEGUN:
                batches.setdefault(ticket.batch, []).append(ticket)
            elif not (call := self._calls.pop(ticket)).future.done():
                call.future.set_result(None)
        for tickets in batches.values():
            self._send(tickets)
        self._arm(now_s)

    def _send(self, tickets: Sequence[Ticket]) -> None:
        """Sends a batch, without the requests whose clients have just left and whose tasks have not run since."""
        now_s = self._clock()
        staying = [ticket for ticket in tickets if not self._calls[ticket].future.cancelled()]
        if len(staying) < len(tickets):
            for ticket in tickets:
                if ticket not in staying:
                    del self._calls[ticket]
                    self._scheduler.completed(ticket, now_s)
            if not staying:
                self._look_soon()
                return
        sent, works, cost_s = _Sent(staying, len(staying)), [], 0.0
        for ticket in staying:
            call = self._calls[ticket]
            call.sent = sent
            checkpoint, forecast = ticket.promise
            cost_s += forecast.cost_s
            works.append(_work(call, ticket.deadline.remaining_s(now_s), lone=forecast.lone))
        done, emit = partial(self._answered, sent), partial(self._pass_on, sent)
        sent.cancel = self._backend.dispatch(checkpoint, works, cost_s, done, emit)

    def _pass_on(self, sent: _Sent, place: int, delta: Delta) -> None:
        """Passes a delta on, if its request still waits for the rest."""
        ticket = sent.tickets[place]
        call = self._calls.get(ticket)
        if call is not None and call.sent is sent and call.take_delta is not None:
            if ticket.told_s is None:
                ticket.told_s = self._clock()
                if call.until_told is not None:
                    call.until_told()
            call.take_delta(delta)

    def _answered(self, sent: _Sent, results: Sequence[Result]) -> None:
        """Takes the results of a batch. The cores are free before any request of it goes on."""
        now_s = self._clock()
        for ticket, result in zip(sent.tickets, results, strict=True):
            call = self._calls.get(ticket)
            if call is None or call.sent is not sent:
                continue  # its client has left, or its deadline has passed
            del self._calls[ticket]
            answer = result if isinstance(result, Answer) else None
            expired = isinstance(result, Failure) and result.kind is FailureKind.EXPIRED
            self._scheduler.completed(ticket, now_s, answer, expired=expired)
            if not call.future.done():
                call.future.set_result(result)
        self.look()

    def _left(self, ticket: Ticket, *, expired: bool = False) -> bool:
        """Takes out a request that waits no longer; True if its batch has begun. The last one cancels its batch."""
        call = self._calls.pop(ticket, None)
        if call is None:
            return ticket.stage is Stage.BEGUN
        if call.sent is None:
            self._scheduler.withdraw(ticket)
            return False
        self._scheduler.completed(ticket, self._clock(), expired=expired)
        call.sent.left -= 1
        if not call.sent.left:
            call.sent.cancel()
        self.look()
        return True

    def _look_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self.look)

    def _arm(self, now_s: float) -> None:
        """Sets the timer for the next look. An early alarm does no harm, so only an earlier one replaces it."""
        if not len(self._scheduler):
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


def _work(call: _Call, remaining_s: float, *, lone: bool) -> Work:
    """The request as a replica sees it."""
    request, terms = call.request, call.request.terms
    return Work(
        request.task,
        request.inputs,
        request.parameters,
        remaining_s,
        terms.strict,
        terms.request_id,
        terms.traceparent,
        call.take_delta is not None,
        lone,
    )


def _wait_on(patience: asyncio.Timeout, until_s: float) -> None:
    """Has a wait end later, unless it has ended already."""
    if not patience.expired():
        patience.reschedule(until_s)
