"""The story of a request: forecast, decide, dispatch, classify the outcome, record.

It is told what arrived and answers with how it ended. It knows no HTTP, no cluster and no engine: forecasting and
deciding are the router's, the replicas come in as one `Backend`.
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
    """What has become known of a request under way; the record is made of it.

    `decided_s` is the instant of the latest decision, `route_s` what had been spent until then but for waiting, and
    `waited_s` what was spent waiting for a run. `attempts` counts dispatches, of which all but the last found no
    replica; `lost` is the checkpoint of the latest such. `answered_s` is how long the answer took from the arrival.
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
        """Takes note of a decision, and hands it on."""
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
            loop.beside = tuple(other for name, other in self._loops.items() if name != task)

    def missing(self) -> tuple[str, ...]:
        """The checkpoints without a replica that is up; the gateway is ready when there are none."""
        return tuple(name for name in self.router.served if self.load.replicas(name) == 0)

    @property
    def underway(self) -> int:
        """How many requests are being seen through at this moment."""
        return self._underway

    async def handle(self, request: Request) -> Finished:
        """Sees one request through and records its end, whichever, once.

        Every end but cancellation and a fault of the gateway's own is a value.
        """
        trail = _Trail()
        problem: Problem | None = None
        outcome = Outcome.FAILED  # unless one of the ends below is reached
        self._underway += 1
        try:
            deadline = trail.deadline = self.router.deadline(request)
            trail.answer = await self._answer(request, deadline, trail)
            trail.answered_s = deadline.elapsed_s(self.clock())
            outcome = _timeliness(trail.answered_s, deadline.budget_s, request.terms.strict)
        except Problem as told:
            problem, outcome = told, told.outcome
        except asyncio.CancelledError:
            outcome = Outcome.CANCELLED
            raise
        finally:
            self._underway -= 1
            record = self._record(request, trail, outcome)
        return Finished(record, None if problem else trail.answer, problem)

    def observe(self, record: RequestRecord) -> None:
        """Hands a record to every observer."""
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
            batch = await self._batch(request, deadline, decision, trail)
            if batch is None:
                continue
            try:
                result = await self._run(request, deadline, batch, trail)
            finally:
                self._loops[request.task].ended(batch)
            if isinstance(result, Answer):
                return result
            trail.lost = batch.checkpoint

    async def _batch(self, request: Request, deadline: Deadline, decision: Decision, trail: _Trail) -> Batch | None:
        """Waits for the run of a request. None where its checkpoints were lost meanwhile, and it is to be decided anew.

        Raises Overloaded for what would be late in any case where too much of that waits, and DeadlineExceeded where
        the wait was in vain.
        """
        scheduler, strict = self.router.task_routers[request.task].scheduler, request.terms.strict
        late_s = _late_s(decision)
        if scheduler.full and late_s > 0 and not strict:
            raise Overloaded("no checkpoint can answer in time, and too many wait that are late", late_s)
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
            raise Overloaded("it came late, and too many wait that are late", late_s)
        return batch

    async def _run(self, request: Request, deadline: Deadline, batch: Batch, trail: _Trail) -> Answer | Failure:
        """Sends a request whose run can begin, and learns from its answer. A failure is that its replica was lost."""
        decided = trail.decision
        assert decided is not None, "a batch is of requests that were decided"
        decision = trail.decided(self.router.bind(request, decided, batch, deadline), deadline, self.clock())
        chosen = decision.chosen
        assert chosen is not None and chosen.forecast is not None, "what is settled is chosen, and forecast"
        trail.attempts += 1
        run = batch.members[0].place
        result = await self._dispatch(request, deadline, chosen.name, chosen.forecast, run)
        if isinstance(result, Answer):
            self._learn(request, trail, batch, chosen.forecast, result)
        elif result.kind is not FailureKind.UNAVAILABLE or trail.attempts == ATTEMPTS:
            if result.kind is FailureKind.EXPIRED:
                self._learn(request, trail, batch, chosen.forecast, None)
            raise failed(chosen.name, chosen.forecast, result, deadline.elapsed_s(self.clock()))
        return result

    async def _dispatch(
        self, request: Request, deadline: Deadline, checkpoint: str, forecast: Forecast, run: int
    ) -> Answer | Failure:
        """Sends what is left of the budget along; waits until the deadline, a best-effort request a while longer."""
        now_s, terms = self.clock(), request.terms
        work = Work(
            request.task,
            request.inputs,
            request.parameters,
            deadline.remaining_s(now_s),
            terms.strict,
            terms.request_id,
            terms.traceparent,
            run,
        )
        try:
            async with asyncio.timeout(_patience_s(deadline, terms.strict, now_s)):
                return await self.backend.dispatch(checkpoint, work, forecast.cost_s)
        except TimeoutError:
            return Failure(FailureKind.EXPIRED)

    def _learn(self, request: Request, trail: _Trail, batch: Batch, forecast: Forecast, answer: Answer | None) -> None:
        """Teaches the forecaster what an answer took, or without one that there was none in time.

        Of a batch the first member says how far its forecast strayed; the others would echo it.
        """
        now_s = self.clock()
        forecaster = self.router.served[batch.checkpoint].forecaster
        first, batch.told = not batch.told, True

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
    """How much longer it is waited for: until the deadline, of best effort a while longer."""
    return max(deadline.remaining_s(now_s) + (0.0 if strict else PATIENCE_S), 0.0)


def _timeliness(elapsed_s: float, budget_s: float, strict: bool) -> Outcome:
    """Whether an answer is in time or late. Raises DeadlineExceeded where it is late and strict, so of no use."""
    if elapsed_s <= budget_s:
        return Outcome.IN_TIME
    if strict:
        raise DeadlineExceeded(elapsed_s)
    return Outcome.LATE


def _finish_reason(generation: Sequence[Generation]) -> str | None:
    """The worst of several: what the deadline cut before what its length did; None where nothing was written."""
    reasons = {one.finish_reason for one in generation}
    return next((reason for reason in ("deadline", "length", "stop") if reason in reasons), None)


def _late_s(decision: Decision) -> float:
    """How late the chosen checkpoint would be: after so long the same request might be in time."""
    forecast = decision.chosen.forecast if decision.chosen else None
    return max(forecast.quantile_s - decision.remaining_s, 0.0) if forecast else 0.0
