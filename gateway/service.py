"""The story of a request: decide, wait for a batch, dispatch, learn, record.

It takes a request and returns how it ended. It knows no HTTP, no cluster and no engine: the router forecasts and
decides, and the replicas are one `Backend`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from gateway.forecasting.load import LoadTracker
from gateway.model.deadline import Clock, Deadline
from gateway.model.errors import (
    DeadlineExceeded,
    Overloaded,
    Problem,
)
from gateway.model.faults import Note, log_fault
from gateway.model.messages import Answer, Delta, Failure, FailureKind, Generation
from gateway.model.outcome import Outcome
from gateway.model.request import Request
from gateway.observability.record import Observer, RequestRecord, tell
from gateway.refusals import failed, first_missed, refused, refused_after_loss
from gateway.router import Router
from gateway.scheduling.loop import Backend, SchedulerLoop, TakeDelta
from gateway.scheduling.scheduler import Scheduler, Stage, Ticket

ATTEMPTS = 3
"""Most replicas that a request may try: one that dies fails its requests, and they go elsewhere. Set by hand."""

PATIENCE_S = 30.0
"""Longest wait for a best-effort answer after its deadline, in seconds, so that nothing hangs. Set by hand."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a request ended: its record, and either its answer or the problem that the client receives."""

    record: RequestRecord
    answer: Answer | None = None
    problem: Problem | None = None


class Stream:
    """The deltas of one answer as they come, for one reader.

    `begun` is the request's record as it stood at the first of them; its outcome means nothing yet. `ended` says that
    no more will come.
    """

    def __init__(self) -> None:
        self.begun: RequestRecord | None = None
        self.ended = False
        self._deltas: list[Delta] = []
        self._ready = asyncio.Event()

    def put(self, delta: Delta) -> None:
        """Adds a delta. As many may wait as the answer has, which the gateway holds as a whole in the end."""
        self._deltas.append(delta)
        self._ready.set()

    def end(self) -> None:
        """Notes that no more will come. Whoever waits for the request's end says so."""
        self.ended = True
        self._ready.set()

    async def ready(self) -> None:
        """Waits until there is a delta to take, or none will come."""
        await self._ready.wait()

    async def take(self) -> Sequence[Delta]:
        """Waits for deltas, and gives all that have come; none once there will be no more."""
        await self._ready.wait()
        deltas, self._deltas = self._deltas, []
        if not self.ended:
            self._ready.clear()
        return deltas


@dataclass(slots=True)
class _Trail:
    """What is known so far of a request in progress; its record is made of this.

    `ticket` is the latest: it has the decision. `route_s` is the time spent until that, without waiting; `waited_s` is
    the time spent waiting for a batch. `attempts` counts the times that it was sent: all but the last lost their
    replica, and `lost` is the checkpoint of the latest one lost. `answered_s` is the time from arrival to the answer,
    `first_delta_s` that to the first delta of one that is streamed.
    """

    deadline: Deadline | None = None
    ticket: Ticket | None = None
    route_s: float | None = None
    waited_s: float = 0.0
    answer: Answer | None = None
    answered_s: float | None = None
    attempts: int = 0
    lost: str | None = None
    first_delta_s: float | None = None


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
        self._loop = SchedulerLoop(self._scheduler, self.backend, self.clock)

    def missing(self) -> tuple[str, ...]:
        """The served checkpoints without a replica that is up."""
        return tuple(name for name in self.router.served if self.load.replicas(name) == 0)

    @property
    def underway(self) -> int:
        """The number of requests in progress."""
        return self._underway

    async def handle(self, request: Request, stream: Stream | None = None) -> Finished:
        """Answers one request and records its outcome exactly once. The deltas of its answer go to the stream, if any.

        Returns every outcome as a value. Only a cancellation, or a fault of the gateway's own, is raised.
        """
        trail = _Trail()
        problem: Problem | None = None
        outcome = Outcome.FAILED  # unless one of the outcomes below is reached
        self._underway += 1
        try:
            deadline = trail.deadline = self.router.deadline(request)
            tell = partial(self._told, request, trail, stream) if stream is not None else None
            trail.answer = await self._answer(request, deadline, trail, tell)
            trail.answered_s = deadline.elapsed_s(self.clock())
            outcome = _timeliness(trail.answer, trail.answered_s, deadline.budget_s, request.terms.strict)
        except Problem as error:
            problem, outcome = error, error.outcome
        except asyncio.CancelledError:
            outcome = Outcome.CANCELLED
            raise
        finally:
            self._underway -= 1
            record = self._as_it_stands(request, trail, outcome)
            self.observe(record)
        return Finished(record, None if problem else trail.answer, problem)

    def observe(self, record: RequestRecord) -> None:
        """Gives a record to every observer."""
        tell(self.observers, record, self.note)

    async def _answer(self, request: Request, deadline: Deadline, trail: _Trail, tell: TakeDelta | None) -> Answer:
        if self._underway > self.max_concurrent_requests:
            raise Overloaded(f"{self.max_concurrent_requests} requests are under way, the limit", retry_after_s=1.0)
        while True:
            ticket = trail.ticket = self.router.submit(request, deadline, again=trail.ticket is not None)
            now_s = self.clock()
            trail.route_s = deadline.elapsed_s(now_s) - trail.waited_s
            result = await self._result(request, ticket, trail, now_s, tell)
            if isinstance(result, Answer):
                return result
            if isinstance(result, Failure):
                checkpoint, forecast = ticket.promise
                may_retry = trail.attempts < ATTEMPTS and trail.first_delta_s is None  # what is sent cannot be unsaid
                if result.kind is FailureKind.EXPIRED and _first_is_missed(ticket, trail):
                    raise first_missed(ticket.terms.first_token_s or 0.0, deadline.elapsed_s(self.clock()))
                if result.kind is not FailureKind.UNAVAILABLE or not may_retry:
                    raise failed(checkpoint, forecast, result, deadline, self.clock())
                trail.lost = checkpoint
            elif ticket.stage is not Stage.STRANDED:
                raise self._unserved(ticket, deadline, trail)

    def _told(self, request: Request, trail: _Trail, stream: Stream, delta: Delta) -> None:
        """Takes a delta of the answer; the first tells how the request stands."""
        if stream.begun is None:
            trail.first_delta_s = self.clock() - request.arrived_s
            stream.begun = self._as_it_stands(request, trail, Outcome.FAILED)
        stream.put(delta)

    async def _result(
        self, request: Request, ticket: Ticket, trail: _Trail, now_s: float, tell: TakeDelta | None
    ) -> Answer | Failure | None:
        """Waits for the request's batch and its result; None if no batch will serve it.

        Raises DeadlineExceeded if no batch could begin in time.
        """
        waits, deadline = ticket.stage is Stage.WAITING, ticket.deadline
        try:
            patience_s = _patience_s(deadline, ticket.terms.strict, now_s)
            first_s = _patience_for_first_s(ticket, now_s) if tell is not None else math.inf
            return await self._loop.result(ticket, request, patience_s, tell, first_s)
        except TimeoutError:
            if _first_is_missed(ticket, trail):
                raise first_missed(ticket.terms.first_token_s or 0.0, deadline.elapsed_s(self.clock())) from None
            raise DeadlineExceeded(deadline.elapsed_s(self.clock()), deadline.budget_s) from None
        finally:
            begun = ticket.stage is Stage.BEGUN
            trail.attempts += begun
            if waits:
                trail.waited_s += (ticket.decided_s if begun else self.clock()) - now_s

    def _unserved(self, ticket: Ticket, deadline: Deadline, trail: _Trail) -> Problem:
        """The problem of a request that no batch will serve."""
        match ticket.stage:
            case Stage.REFUSED if trail.lost is not None:
                return refused_after_loss(ticket.decision, trail.lost, deadline, ticket.decided_s)
            case Stage.REFUSED:
                return refused(ticket.decision)
            case Stage.CROWDED_OUT:
                return Overloaded("the request would be late, and too many late requests wait", ticket.late_s)
            case _:
                return DeadlineExceeded(deadline.elapsed_s(self.clock()), deadline.budget_s)

    def _as_it_stands(self, request: Request, trail: _Trail, outcome: Outcome) -> RequestRecord:
        """The record of a request with this outcome, by what is known of it now."""
        ticket, answer = trail.ticket, trail.answer
        decision = ticket.decision if ticket else None
        chosen = decision.chosen if decision else None
        forecast = chosen.forecast if chosen else None
        latency_s = self.clock() - request.arrived_s if trail.answered_s is None else trail.answered_s
        decided_s = ticket.decided_s - request.arrived_s if ticket else 0.0
        return RequestRecord(
            request_id=request.terms.request_id,
            task=request.task,
            outcome=outcome,
            latency_s=latency_s,
            budget_s=trail.deadline.budget_s if trail.deadline else None,
            checkpoint=chosen.name if chosen else None,
            tier=chosen.tier.value if chosen else None,
            reason=decision.reason.value if decision and decision.reason else None,
            predicted_s=decided_s + forecast.median_s if forecast else None,
            quantile_s=decided_s + forecast.quantile_s if forecast else None,
            route_s=trail.route_s,
            queueing_delay_s=trail.waited_s + answer.timings.queueing_delay_s if answer else trail.waited_s or None,
            service_time_s=answer.timings.service_time_s if answer else None,
            batch_size=answer.timings.batch_size if answer else None,
            inputs=len(request.inputs) - request.parameters.shared,
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
            first_delta_s=trail.first_delta_s,
            first_quantile_s=decided_s + forecast.first.quantile_s if forecast and forecast.first else None,
            first_budget_s=request.terms.first_token_s,
        )


def _patience_s(deadline: Deadline, strict: bool, now_s: float) -> float:
    """Seconds to wait from now: until the deadline, for best effort `PATIENCE_S` longer."""
    return max(deadline.remaining_s(now_s) + (0.0 if strict else PATIENCE_S), 0.0)


def _patience_for_first_s(ticket: Ticket, now_s: float) -> float:
    """Seconds to wait for the first text of a strict request, which stops where it comes too late; else infinite."""
    terms = ticket.terms
    if terms.first_token_s is None or not terms.strict:
        return math.inf
    return max(terms.first_token_s - ticket.deadline.elapsed_s(now_s), 0.0)


def _first_is_missed(ticket: Ticket, trail: _Trail) -> bool:
    """True if a request that was given up was so since nothing was told of its answer within the budget for that."""
    terms = ticket.terms
    is_sooner = terms.first_token_s is not None and terms.first_token_s < ticket.deadline.budget_s
    return is_sooner and terms.strict and trail.first_delta_s is None


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
