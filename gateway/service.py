"""The story of a request: forecast, decide, dispatch, classify the outcome, record.

It is told what arrived and answers with how it ended. It knows no HTTP, no cluster and no engine: forecasting and
deciding are the `Router`'s, the replicas come in as one `Backend`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.deadline import Clock, Deadline
from gateway.forecast import Forecast
from gateway.load import LoadBook
from gateway.outcome import Outcome
from gateway.policy import Decision, Refusal
from gateway.problems import (
    BudgetInfeasible,
    CheckpointUnavailable,
    DeadlineExceeded,
    InferenceFailed,
    InputTooLong,
    Overloaded,
    Problem,
)
from gateway.records import Observer, RequestRecord
from gateway.routing import Request, Router
from gateway.work import Answer, Failure, FailureKind, Work

ATTEMPTS = 3
"""How many replicas a request may try: a replica that dies fails what it held, and that is tried elsewhere."""

PATIENCE_S = 30.0
"""How long after its deadline a best-effort request is still waited for, so that nothing ever hangs."""


class Backend(Protocol):
    """Runs work on a replica of a checkpoint. The one door from the gateway to the deployments."""

    async def dispatch(self, checkpoint: str, work: Work, service_time_s: float) -> Answer | Failure:
        """Sends the work to the least loaded replica and waits. Cancelling the call cancels the work.

        `service_time_s` is the forecast, for the reckoning of load until the replica reports.
        """


@dataclass(frozen=True, slots=True)
class Finished:
    """How a request ended: its record, and either its answer or the problem the client is told of."""

    record: RequestRecord
    answer: Answer | None = None
    problem: Problem | None = None


@dataclass(slots=True)
class _Trail:
    """What has become known of a request under way; the record is made of it."""

    deadline: Deadline
    decision: Decision | None = None
    decided_s: float = 0.0
    answer: Answer | None = None
    attempts: int = 0


@dataclass(slots=True)
class Service:
    """Answers requests within their budgets."""

    router: Router
    backend: Backend
    load: LoadBook
    max_concurrent_requests: int
    observers: Sequence[Observer]
    clock: Clock
    _underway: int = field(default=0, init=False)

    def missing(self) -> tuple[str, ...]:
        """The checkpoints without a replica that is up; the gateway is ready when there are none."""
        return tuple(name for name in self.router.served if self.load.replicas(name) == 0)

    async def handle(self, request: Request) -> Finished:
        """Sees one request through. Every end but cancellation is a value; each is recorded exactly once."""
        trail = _Trail(self.router.deadline(request))
        self._underway += 1
        try:
            answer = await self._answer(request, trail)
        except Problem as problem:
            return Finished(self._record(request, trail, problem.outcome), problem=problem)
        except asyncio.CancelledError:
            self._record(request, trail, Outcome.CANCELLED)
            raise
        finally:
            self._underway -= 1
        in_time = trail.deadline.remaining_s(self.clock()) >= 0
        return Finished(self._record(request, trail, Outcome.IN_TIME if in_time else Outcome.LATE), answer)

    def observe(self, record: RequestRecord) -> None:
        """Hands a record to every observer."""
        for observer in self.observers:
            observer.observe(record)

    async def _answer(self, request: Request, trail: _Trail) -> Answer:
        if self._underway > self.max_concurrent_requests:
            raise Overloaded(f"{self.max_concurrent_requests} requests are under way, the limit", retry_after_s=1.0)
        while True:
            decision = trail.decision = self.router.decide(request, trail.deadline)
            trail.decided_s = self.clock()
            trail.attempts += 1
            if decision.chosen is None or decision.chosen.forecast is None:
                raise _refused(decision)
            result = await self._dispatch(request, trail, decision.chosen.name, decision.chosen.forecast)
            if isinstance(result, Answer):
                trail.answer = result
                self._learn(request, trail, decision.chosen.name, decision.chosen.forecast, result)
                return result
            if result.kind is not FailureKind.UNAVAILABLE or trail.attempts == ATTEMPTS:
                raise self._failed(decision.chosen.name, decision.chosen.forecast, trail, result)

    async def _dispatch(self, request: Request, trail: _Trail, checkpoint: str, forecast: Forecast) -> Answer | Failure:
        """Sends what is left of the budget along; waits until the deadline, a best-effort request a while longer."""
        remaining_s = trail.deadline.remaining_s(self.clock())
        strict = request.terms.strict
        work = Work(request.task, request.inputs, request.parameters, remaining_s, strict, request.terms.request_id)
        try:
            async with asyncio.timeout(max(remaining_s, 0.0) + (0.0 if strict else PATIENCE_S)):
                return await self.backend.dispatch(checkpoint, work, forecast.service_time_s)
        except TimeoutError:
            return Failure(FailureKind.EXPIRED)

    def _learn(self, request: Request, trail: _Trail, name: str, forecast: Forecast, answer: Answer) -> None:
        now_s = self.clock()
        latency_s = now_s - trail.decided_s
        overhead_s = latency_s - answer.timings.queueing_delay_s - answer.timings.service_time_s
        forecaster = self.router.served[name].forecaster
        forecaster.learn(forecast, latency_s, overhead_s, now_s)
        if not answer.input.truncated:
            forecaster.learn_tokens(sum(map(len, request.inputs)), answer.input.tokens)

    def _failed(self, checkpoint: str, forecast: Forecast, trail: _Trail, failure: Failure) -> Problem:
        match failure.kind:
            case FailureKind.EXPIRED | FailureKind.CANCELLED:
                return DeadlineExceeded(trail.deadline.elapsed_s(self.clock()))
            case FailureKind.TOO_LONG:
                members = {"tokens": failure.tokens, "limit": failure.limit, "unit": "tokens", "checkpoint": checkpoint}
                return InputTooLong(f"{checkpoint} takes {failure.limit} tokens, got {failure.tokens}", members)
            case FailureKind.QUEUE_FULL:
                return Overloaded(f"the queue of {checkpoint} is full", forecast.queueing_delay_s)
            case FailureKind.UNAVAILABLE:
                return CheckpointUnavailable([checkpoint])
            case FailureKind.ENGINE:
                return InferenceFailed(checkpoint)

    def _record(self, request: Request, trail: _Trail, outcome: Outcome) -> RequestRecord:
        chosen = trail.decision.chosen if trail.decision else None
        forecast = chosen.forecast if chosen else None
        answer = trail.answer
        record = RequestRecord(
            request_id=request.terms.request_id,
            task=request.task,
            outcome=outcome,
            latency_s=trail.deadline.elapsed_s(self.clock()),
            budget_s=trail.deadline.budget_s,
            checkpoint=chosen.name if chosen else None,
            tier=chosen.tier.value if chosen else None,
            reason=trail.decision.reason.value if trail.decision and trail.decision.reason else None,
            predicted_s=trail.decided_s - trail.deadline.arrived_s + forecast.latency_s if forecast else None,
            route_s=trail.decided_s - trail.deadline.arrived_s if trail.decision else None,
            queueing_delay_s=answer.timings.queueing_delay_s if answer else None,
            service_time_s=answer.timings.service_time_s if answer else None,
            batch_size=answer.timings.batch_size if answer else None,
            inputs=len(request.inputs),
            tokens=answer.input.tokens if answer else 0,
            kept=answer.input.kept if answer else 0,
            truncated=answer.input.truncated if answer else False,
            degraded=_degraded(trail.decision),
            attempts=trail.attempts,
        )
        self.observe(record)
        return record


def _refused(decision: Decision) -> Problem:
    eligible = [a.candidate for a in decision.assessed if a.verdict.eligible]
    if decision.refusal is Refusal.OVERLOADED:
        return Overloaded("no checkpoint can answer in time at the current load", decision.retry_after_s)
    if decision.refusal is Refusal.INFEASIBLE:
        feasible = [c.name for c in eligible if c.forecast and c.forecast.idle_quantile_s <= decision.min_feasible_s]
        return BudgetInfeasible(decision.min_feasible_s, feasible)
    return CheckpointUnavailable([candidate.name for candidate in eligible])


def _degraded(decision: Decision | None) -> bool:
    """Whether an eligible candidate of higher quality than the chosen one was passed over."""
    if decision is None or decision.chosen is None:
        return False
    quality = decision.chosen.quality
    return any(a.verdict.eligible and a.candidate.quality > quality for a in decision.assessed)
