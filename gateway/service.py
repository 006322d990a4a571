"""The story of a request: decide, wait for a batch, dispatch, learn, record.

It takes a request and returns how it ended. It knows no HTTP, no cluster and no engine: the router forecasts and
decides, and the replicas are one `Backend`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.forecasting.forecaster import Forecast
from gateway.forecasting.load import LoadTracker
from gateway.model.deadline import Clock, Deadline
from gateway.model.errors import (
    DeadlineExceeded,
    Overloaded,
    Problem,
)
from gateway.model.faults import Note, attempt, log_fault
from gateway.model.messages import Answer, Failure, FailureKind, Generation, Work
from gateway.model.outcome import Outcome
from gateway.model.request import Request
from gateway.observability.record import Observer, RequestRecord, tell
from gateway.refusals import failed, refused, refused_after_loss
from gateway.router import Router
from gateway.scheduling.loop import SchedulerLoop
from gateway.scheduling.policy import Decision
from gateway.scheduling.scheduler import Batch

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

    `decided_s` is the instant of the latest decision. `route_s` is the time spent until then, without waiting;
    `waited_s` is the time spent waiting for a batch. `attempts` counts dispatches: all but the last lost their replica,
    and `lost` is the checkpoint of the latest one lost. `answered_s` is the time from arrival to the answer.
    """

    deadline: Deadline | None = None
    decision: Decision | None = None
    decided_s: float = 0.0
    route_s: float | None = None
    waited_s: float = 0.0
    answer: Answer | None = None
    answered_s: float | None = None
    attempts: int = 0
    lost: str | None = None

    def decided(self, decision: Decision, deadline: Deadline, now_s: float) -> Decision:
        """Notes a decision and returns it."""
        self.decision, self.decided_s = decision, now_s
        self.route_s = deadline.elapsed_s(now_s) - self.waited_s
        return decision


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
    _loops: dict[str, SchedulerLoop] = field(init=False)

    def __post_init__(self) -> None:
        self._loops = {
            task: SchedulerLoop(task_router.scheduler, self.clock, self.note)
            for task, task_router in self.router.task_routers.items()
        }
        for task, loop in self._loops.items():
            loop.neighbours = tuple(other for name, other in self._loops.items() if name != task)

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
            outcome = _timeliness(trail.answered_s, deadline.budget_s, request.terms.strict)
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
        self.router.arrived(request, deadline)
        while True:
            decision = trail.decided(self.router.decide(request, deadline), deadline, self.clock())
            if decision.chosen is None:
                if trail.lost is None:
                    raise refused(decision)
                raise refused_after_loss(decision, trail.lost, deadline, trail.decided_s)
            batch = await self._wait_for_batch(request, deadline, decision, trail)
            if batch is None:
                continue
            try:
                result = await self._send(request, deadline, batch, trail)
            finally:
                self._loops[request.task].ended(batch)
            if isinstance(result, Answer):
                return result
            trail.lost = batch.checkpoint

    async def _wait_for_batch(
        self, request: Request, deadline: Deadline, decision: Decision, trail: _Trail
    ) -> Batch | None:
        """Waits for the request's batch. None if its checkpoints were lost meanwhile and it must be decided again.

        Raises Overloaded for a request that would be late if too many late ones wait, and DeadlineExceeded if no batch
        could begin in time.
        """
        scheduler, strict = self.router.task_routers[request.task].scheduler, request.terms.strict
        late_s = _late_s(decision)
        if scheduler.full and late_s > 0 and not strict:
            raise Overloaded("no checkpoint can answer in time, and too many late requests wait", late_s)
        queued = self.router.queued(request, deadline)
        began_s = self.clock()
        try:
            batch = await self._loops[request.task].passed(queued, _patience_s(deadline, strict, began_s))
        except TimeoutError:
            raise DeadlineExceeded(deadline.elapsed_s(self.clock())) from None
        finally:
            trail.waited_s += self.clock() - began_s
        if batch is None and not scheduler.stranded(queued):
            if strict:
                raise DeadlineExceeded(deadline.elapsed_s(self.clock()))
            raise Overloaded("the request became late, and too many late requests wait", late_s)
        return batch

    async def _send(self, request: Request, deadline: Deadline, batch: Batch, trail: _Trail) -> Answer | Failure:
        """Sends a request whose batch can begin, and learns from its answer.

        Returns a Failure if its replica was lost.
        """
        decided = trail.decision
        assert decided is not None, "a request is decided before it waits for a batch"
        decision = trail.decided(self.router.bind(request, decided, batch, deadline), deadline, self.clock())
        chosen = decision.chosen
        assert chosen is not None and chosen.forecast is not None, "a bound request has a checkpoint and a forecast"
        trail.attempts += 1
        batch_number = batch.members[0].place
        result = await self._dispatch(request, deadline, chosen.name, chosen.forecast, batch_number)
        if isinstance(result, Answer):
            self._learn(request, trail, batch, chosen.forecast, result)
        elif result.kind is not FailureKind.UNAVAILABLE or trail.attempts == ATTEMPTS:
            if result.kind is FailureKind.EXPIRED:
                self._learn(request, trail, batch, chosen.forecast, None)
            raise failed(chosen.name, chosen.forecast, result, deadline.elapsed_s(self.clock()))
        return result

    async def _dispatch(
        self, request: Request, deadline: Deadline, checkpoint: str, forecast: Forecast, batch_number: int
    ) -> Answer | Failure:
        """Sends the work with the budget left; waits until the deadline, for best effort `PATIENCE_S` longer."""
        now_s, terms = self.clock(), request.terms
        work = Work(
            request.task,
            request.inputs,
            request.parameters,
            deadline.remaining_s(now_s),
            terms.strict,
            terms.request_id,
            terms.traceparent,
            batch_number,
        )
        try:
            async with asyncio.timeout(_patience_s(deadline, terms.strict, now_s)):
                return await self.backend.dispatch(checkpoint, work, forecast.cost_s)
        except TimeoutError:
            return Failure(FailureKind.EXPIRED)

    def _learn(self, request: Request, trail: _Trail, batch: Batch, forecast: Forecast, answer: Answer | None) -> None:
        """Teaches the forecaster what the answer took; None says that there was none in time.

        Only the first member of a batch teaches the forecast error, since the other members would repeat it.
        """
        now_s = self.clock()
        forecaster = self.router.served[batch.checkpoint].forecaster
        first, batch.learnt = not batch.learnt, True

        def learn() -> None:
            if answer is None:
                if first:
                    forecaster.learn_expired(forecast, now_s - trail.decided_s, now_s)
            elif first:
                forecaster.learn(forecast, request.shape, answer, now_s - trail.decided_s, now_s)
            else:
                forecaster.model.learn(request.shape, answer)

        attempt("learning", self.note, learn, lambda: None)

    def _record(self, request: Request, trail: _Trail, outcome: Outcome) -> RequestRecord:
        decision, answer = trail.decision, trail.answer
        chosen = decision.chosen if decision else None
        forecast = chosen.forecast if chosen else None
        latency_s = self.clock() - request.arrived_s if trail.answered_s is None else trail.answered_s
        decided_s = trail.decided_s - request.arrived_s
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


def _timeliness(elapsed_s: float, budget_s: float, strict: bool) -> Outcome:
    """Whether an answer is in time or late. Raises DeadlineExceeded if it is late and strict, so of no use."""
    if elapsed_s <= budget_s:
        return Outcome.IN_TIME
    if strict:
        raise DeadlineExceeded(elapsed_s)
    return Outcome.LATE


def _finish_reason(generation: Sequence[Generation]) -> str | None:
    """The worst reason of several: deadline before length before stop; None if no text was written."""
    reasons = {one.finish_reason for one in generation}
    return next((reason for reason in ("deadline", "length", "stop") if reason in reasons), None)


def _late_s(decision: Decision) -> float:
    """How late the chosen checkpoint would be, in seconds; after this wait the request might be in time."""
    forecast = decision.chosen.forecast if decision.chosen else None
    return max(forecast.quantile_s - decision.remaining_s, 0.0) if forecast else 0.0
