"""The story of a request: decide, wait for a batch, dispatch, learn, record.

It takes a request and returns how it ended. It knows no HTTP, no cluster and no engine: the router forecasts and
decides, and the replicas are one `Backend`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.forecasting.load import LoadTracker
from gateway.model.deadline import Clock, Deadline
from gateway.model.errors import (
    DeadlineExceeded,
    Overloaded,
    Problem,
)
from gateway.model.faults import Note, log_fault
from gateway.model.messages import Answer, Failure, FailureKind, Generation, Work
from gateway.model.outcome import Outcome
from gateway.model.request import Request
from gateway.observability.record import Observer, RequestRecord, tell
from gateway.refusals import failed, refused, refused_after_loss
from gateway.router import Router
from gateway.scheduling.loop import SchedulerLoop
from gateway.scheduling.scheduler import Scheduler, Stage, Ticket

ATTEMPTS = 3
"""Most replicas that a request may try: one that dies fails its requests, and they go elsewhere. Set by hand."""

PATIENCE_S = 30.0
"""Longest wait for a best-effort answer after its deadline, in seconds, so that nothing hangs. Set by hand."""


class Backend(Protocol):
    """Runs work on a replica of a checkpoint: the only way from the gateway to the deployments."""

    async def dispatch(self, checkpoint: str, work: Work, service_time_s: float) -> Answer | Failure:
        """Sends the work to the least loaded replica and waits. Cancelling the call cancels the work.

        `service_time_s` is the forecast; it counts as the replica's load until the replica reports.
        """


@dataclass(frozen=True, slots=True)
class Finished:
    """How a request ended: its record, and either its answer or the problem that the client receives."""

    record: RequestRecord
    answer: Answer | None = None
    problem: Problem | None = None


@dataclass(slots=True)
class _Trail:
    """What is known so far of a request in progress; its record is made of this.

    `ticket` is the latest: it has the decision. `route_s` is the time spent until that, without waiting; `waited_s` is
    the time spent waiting for a batch. `attempts` counts dispatches: all but the last lost their replica, and `lost` is
    the checkpoint of the latest one lost. `answered_s` is the time from arrival to the answer.
    """

    deadline: Deadline | None = None
    ticket: Ticket | None = None
    route_s: float | None = None
    waited_s: float = 0.0
    answer: Answer | None = None
    answered_s: float | None = None
    attempts: int = 0
    lost: str | None = None


@dataclass(slots=True)
class Service:
    """Answers requests within their budgets."""

    router: Router
    backend: Backend
    load: LoadTracker
    max_concurrent_requests: int
    observers: Sequence[Observer]
    clock: Clock
    note: Note = log_fault
    _underway: int = field(default=0, init=False)
    _scheduler: Scheduler = field(init=False)
    _loop: SchedulerLoop = field(init=False)

    def __post_init__(self) -> None:
        self._scheduler = self.router.scheduler
        self._loop = SchedulerLoop(self._scheduler, self.clock)

    def missing(self) -> tuple[str, ...]:
        """The checkpoints without a replica that is up; the gateway is ready when there are none."""
        return tuple(name for name in self.router.served if self.load.replicas(name) == 0)

    @property
    def underway(self) -> int:
        """The number of requests in progress."""
        return self._underway

    async def handle(self, request: Request) -> Finished:
        """Answers one request and records its outcome exactly once.

        Returns every outcome as a value. Only a cancellation, or a fault of the gateway's own, is raised.
        """
        trail = _Trail()
        problem: Problem | None = None
        outcome = Outcome.FAILED  # unless one of the outcomes below is reached
        self._underway += 1
        try:
            deadline = trail.deadline = self.router.deadline(request)
            trail.answer = await self._answer(request, deadline, trail)
            trail.answered_s = deadline.elapsed_s(self.clock())
            outcome = _timeliness(trail.answer, trail.answered_s, deadline.budget_s, request.terms.strict)
        except Problem as error:
            problem, outcome = error, error.outcome
        except asyncio.CancelledError:
            outcome = Outcome.CANCELLED
            raise
        finally:
            self._underway -= 1
            record = self._record(request, trail, outcome)
        return Finished(record, None if problem else trail.answer, problem)

    def observe(self, record: RequestRecord) -> None:
        """Gives a record to every observer."""
        tell(self.observers, record, self.note)

    async def _answer(self, request: Request, deadline: Deadline, trail: _Trail) -> Answer:
        if self._underway > self.max_concurrent_requests:
            raise Overloaded(f"{self.max_concurrent_requests} requests are under way, the limit", retry_after_s=1.0)
        while True:
            ticket = trail.ticket = self.router.submit(request, deadline, again=trail.ticket is not None)
            trail.route_s = deadline.elapsed_s(self.clock()) - trail.waited_s
            await self._begin(ticket, deadline, trail)
            if ticket.stage is Stage.STRANDED:
                continue
            result = await self._send(request, ticket, trail)
            if isinstance(result, Answer):
                return result
            trail.lost, _ = ticket.promise

    async def _begin(self, ticket: Ticket, deadline: Deadline, trail: _Trail) -> None:
        """Waits until the request's batch begins, or until its checkpoints are lost: then it must be submitted again.

        Raises the problem of a request that is refused, DeadlineExceeded if no batch could begin in time, and
        Overloaded if it is late and too many late ones wait.
        """
        if ticket.stage is Stage.WAITING:
            began_s = self.clock()
            try:
                await self._loop.settled(ticket, _patience_s(deadline, ticket.terms.strict, began_s))
            except TimeoutError:
                raise DeadlineExceeded(deadline.elapsed_s(self.clock()), deadline.budget_s) from None
            finally:
                trail.waited_s += self.clock() - began_s
        match ticket.stage:
            case Stage.REFUSED:
                if (lost := trail.lost) is not None:
                    raise refused_after_loss(ticket.decision, lost, deadline, ticket.decided_s)
                raise refused(ticket.decision)
            case Stage.CROWDED_OUT:
                raise Overloaded("the request would be late, and too many late requests wait", ticket.late_s)
            case Stage.EXPIRED:
                raise DeadlineExceeded(deadline.elapsed_s(self.clock()), deadline.budget_s)
            case _:
                return

    async def _send(self, request: Request, ticket: Ticket, trail: _Trail) -> Answer | Failure:
        """Sends a request whose batch has begun, and reports its end. Returns a Failure if its replica was lost."""
        trail.attempts += 1
        result: Answer | Failure | None = None
        try:
            result = await self._dispatch(request, ticket)
        finally:
            answer = result if isinstance(result, Answer) else None
            expired = isinstance(result, Failure) and result.kind is FailureKind.EXPIRED
            self._scheduler.completed(ticket, self.clock(), answer, expired=expired)
            self._loop.look()
        if isinstance(result, Failure) and (result.kind is not FailureKind.UNAVAILABLE or trail.attempts == ATTEMPTS):
            checkpoint, forecast = ticket.promise
            raise failed(checkpoint, forecast, result, ticket.deadline, self.clock())
        return result

    async def _dispatch(self, request: Request, ticket: Ticket) -> Answer | Failure:
        """Sends the work with the budget left; waits until the deadline, for best effort `PATIENCE_S` longer."""
        now_s, terms = self.clock(), request.terms
        checkpoint, forecast = ticket.promise
        work = Work(
            request.task,
            request.inputs,
            request.parameters,
            ticket.deadline.remaining_s(now_s),
            terms.strict,
            terms.request_id,
            terms.traceparent,
            ticket.batch_number,
        )
        try:
            async with asyncio.timeout(_patience_s(ticket.deadline, terms.strict, now_s)):
                return await self.backend.dispatch(checkpoint, work, forecast.cost_s)
        except TimeoutError:
            return Failure(FailureKind.EXPIRED)

    def _record(self, request: Request, trail: _Trail, outcome: Outcome) -> RequestRecord:
        ticket, answer = trail.ticket, trail.answer
        decision = ticket.decision if ticket else None
        chosen = decision.chosen if decision else None
        forecast = chosen.forecast if chosen else None
        latency_s = self.clock() - request.arrived_s if trail.answered_s is None else trail.answered_s
        decided_s = ticket.decided_s - request.arrived_s if ticket else 0.0
        record = RequestRecord(
            request_id=request.terms.request_id,
            task=request.task,
            outcome=outcome,
            latency_s=latency_s,
            budget_s=trail.deadline.budget_s if trail.deadline else None,
            checkpoint=chosen.name if chosen else None,
            tier=chosen.tier.value if chosen else None,
            reason=decision.reason.value if decision and decision.reason else None,
            predicted_s=decided_s + forecast.latency_s if forecast else None,
            quantile_s=decided_s + forecast.quantile_s if forecast else None,
            route_s=trail.route_s,
            queueing_delay_s=trail.waited_s + answer.timings.queueing_delay_s if answer else trail.waited_s or None,
            service_time_s=answer.timings.service_time_s if answer else None,
            batch_size=answer.timings.batch_size if answer else None,
            inputs=len(request.inputs),
            tokens=answer.input.tokens if answer else 0,
            kept=answer.input.kept if answer else 0,
            truncated=answer.input.truncated if answer else False,
            steps=sum(one.steps for one in answer.generation) if answer else 0,
            output_tokens=sum(one.tokens for one in answer.generation) if answer else 0,
            finish_reason=_finish_reason(answer.generation) if answer else None,
            degraded=decision is not None and decision.degraded,
            attempts=trail.attempts,
            strict=request.terms.strict,
            percentile=request.terms.percentile,
            price=decision.price if decision else None,
            verdicts=decision.verdicts() if decision else (),
            traceparent=request.terms.traceparent,
            span=request.terms.span,
        )
        self.observe(record)
        return record


def _patience_s(deadline: Deadline, strict: bool, now_s: float) -> float:
    """Seconds to wait from now: until the deadline, for best effort `PATIENCE_S` longer."""
    return max(deadline.remaining_s(now_s) + (0.0 if strict else PATIENCE_S), 0.0)


def _timeliness(answer: Answer, elapsed_s: float, budget_s: float, strict: bool) -> Outcome:
    """Whether an answer is in time or late. Raises DeadlineExceeded if it is late and strict, so of no use."""
    if elapsed_s <= budget_s:
        stands_in = any(one.lead and one.finish_reason != "length" for one in answer.generation)  # that is as asked for
        return Outcome.LEAD if stands_in else Outcome.IN_TIME
    if strict:
        raise DeadlineExceeded(elapsed_s, budget_s)
    return Outcome.LATE


def _finish_reason(generation: Sequence[Generation]) -> str | None:
    """The worst reason of several: deadline before length, stop and short; None if no text was written."""
    reasons = {one.finish_reason for one in generation}
    return next((reason for reason in ("deadline", "length", "stop", "short") if reason in reasons), None)
