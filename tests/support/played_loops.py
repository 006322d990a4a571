"""A scheduler and its loop as tests play them: one task on one core with known times, and batches that tests end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fakes import reraise
from played_queues import Played, PlayedQueue

from gateway.forecasting.forecaster import Forecast
from gateway.model.deadline import Deadline
from gateway.model.messages import Answer, Emit, InputReport, ReplicaTimings, Work, to_nobody
from gateway.model.request import Request, RequestShape, Terms
from gateway.model.tier import Tier
from gateway.scheduling.batching import QueuedRequest
from gateway.scheduling.loop import Result, SchedulerLoop
from gateway.scheduling.policy import Candidate, Decision, Reason
from gateway.scheduling.scheduler import Decider, Scheduler, Stage, Ticket
from gateway.scheduling.task_queue import Batch
from gateway.tasks.classify import ClassifyParameters

ASKED = RequestShape(((16,),), ClassifyParameters())


class Lessons:
    """Takes the place of a forecaster and records what it should learn."""

    def __init__(self) -> None:
        self.learnt: list[str] = []

    def learn(self, forecast: Forecast, shape: RequestShape, answer: Answer, latency_s: float, now_s: float) -> None:
        """Record an answer whose forecast is learnt from."""
        self.learnt.append("answer")

    def learn_service(self, forecast: Forecast, shape: RequestShape, answer: Answer) -> None:
        """Record an answer of which only the service time is learnt."""
        self.learnt.append("service")

    def learn_expired(self, forecast: Forecast, waited_s: float, now_s: float) -> None:
        """Record a request that expired."""
        self.learnt.append("expired")


class PlayedDecider(Decider):
    """Decides for the fastest checkpoint, whatever the budget, and refuses nothing."""

    def __init__(self, play: PlayedQueue) -> None:
        self.play = play
        self.queue = play.queue
        self.arrivals = play.arrivals
        self.by_name = {one.name: one for one in play.checkpoints}
        self.may_be_lone = False
        self.lessons = Lessons()
        for one in play.checkpoints:
            one.forecaster = self.lessons  # type: ignore[assignment]  # all of a forecaster that a scheduler calls

    def arrived(self, shape: RequestShape, deadline: Deadline) -> None:
        """Count the arrival."""
        self.play.arrivals.arrived(deadline.arrived_s, deadline.budget_s, shape.tokens[0])

    def price(self, now_s: float) -> float:
        """Return no price."""
        return 0.0

    def decide(
        self,
        shape: RequestShape,
        terms: Terms,
        deadline: Deadline,
        now_s: float,
        price: float,
        *,
        every: bool = False,
        lone: bool = False,
    ) -> Decision:
        """Choose the first checkpoint."""
        return self._chosen(self.play.checkpoints[0].name, terms, deadline.remaining_s(now_s))

    def queued_at_once(self, shape: RequestShape, deadline: Deadline) -> QueuedRequest:
        """Return the request as the queue's play makes it."""
        return self.play.queued_request(deadline.at_s - self.play.now_s)

    def queued(self, shape: RequestShape, terms: Terms, deadline: Deadline, now_s: float) -> QueuedRequest:
        """Return the request as the queue's play makes it."""
        played_s, self.play.now_s = self.play.now_s, now_s
        queued = self.play.queued_request(deadline.remaining_s(now_s), strict=terms.strict)
        self.play.now_s = played_s
        return queued

    def bind(self, shape: RequestShape, decision: Decision, batch: Batch, deadline: Deadline, now_s: float) -> Decision:
        """Choose the batch's checkpoint."""
        return self._chosen(batch.checkpoint, decision.terms, deadline.remaining_s(now_s))

    def _chosen(self, name: str, terms: Terms, remaining_s: float) -> Decision:
        one_s = self.by_name[name].run_s(1, ASKED.tokens[0][0])
        forecast = Forecast(0.0, one_s, one_s, one_s, one_s, cost_s=one_s)
        chosen = Candidate(name, Tier.REALTIME, 80.0, None, forecast, 80.0)
        return Decision((chosen,), remaining_s, terms, chosen=chosen, reason=Reason.ONLY_CANDIDATE)


@dataclass(eq=False)
class SentBatch:
    """A batch at the backend, which runs until a test ends it."""

    checkpoint: str
    works: Sequence[Work]
    service_time_s: float
    done: Callable[[Sequence[Result]], None]
    cancelled: int = 0
    ended: bool = False

    def ends(self, *results: Result) -> None:
        """End it with these results, or with an answer to each request that names it."""
        assert not self.ended and not self.cancelled, "a batch ends once"
        self.ended = True
        self.done(results or [answer(work.request_id) for work in self.works])

    def cancel(self) -> None:
        """Count that it was cancelled."""
        self.cancelled += 1


@dataclass
class PlayedBackend:
    """A `Backend` that keeps the batches that it gets."""

    sent: list[SentBatch] = field(default_factory=list)

    def dispatch(
        self,
        checkpoint: str,
        batch: Sequence[Work],
        service_time_s: float,
        done: Callable[[Sequence[Result]], None],
        emit: Emit = to_nobody,
    ) -> Callable[[], None]:
        """Keep a batch."""
        self.sent.append(SentBatch(checkpoint, tuple(batch), service_time_s, done))
        return self.sent[-1].cancel


def answer(name: str) -> Answer:
    """Return the answer to the request of that name."""
    return Answer((name,), InputReport(1, 1, False), ReplicaTimings(0.0, 0.010, 0.010, 1))


@dataclass(eq=False)
class Caller:
    """A client of the loop: its request's ticket once it is submitted, and the task that waits for the result."""

    name: str
    ticket: Ticket | None = None
    task: asyncio.Task[Result | None] = field(init=False)

    @property
    def begun(self) -> bool:
        """Return whether its batch has begun."""
        return self.ticket is not None and self.ticket.stage is Stage.BEGUN

    @property
    def batch(self) -> Batch:
        """Return its batch, which has begun."""
        assert self.ticket is not None and self.ticket.batch is not None
        return self.ticket.batch

    @property
    def answered(self) -> bool:
        """Return whether it has its own answer."""
        return self.task.done() and not self.task.cancelled() and self.task.result() == answer(self.name)


@dataclass
class PlayedLoop:
    """A loop over played queues, whose time it has; the event loop's time is added once it `runs`."""

    plays: tuple[PlayedQueue, ...]
    runs: bool = False
    callers: int = 0

    def __post_init__(self) -> None:
        self.began_s = asyncio.get_running_loop().time()
        self.deciders = {str(at): PlayedDecider(play) for at, play in enumerate(self.plays)}
        self.scheduler = Scheduler(self.deciders, reraise)
        self.backend = PlayedBackend()
        self.loop = SchedulerLoop(self.scheduler, self.backend, self.clock)

    @property
    def play(self) -> PlayedQueue:
        """Return the first task's queue."""
        return self.plays[0]

    @property
    def sent(self) -> list[SentBatch]:
        """Return the batches that were sent."""
        return self.backend.sent

    @property
    def learnt(self) -> list[str]:
        """Return what the first task's forecaster should have learnt."""
        return self.deciders["0"].lessons.learnt

    def clock(self) -> float:
        """Return the time."""
        return self.play.now_s + (asyncio.get_running_loop().time() - self.began_s if self.runs else 0.0)

    def comes(self, budget_s: float = 5.0, patience_s: float = 60.0, strict: bool = False, task: int = 0) -> Caller:
        """Send a request to the scheduler and its loop, as a task of its own."""
        self.callers += 1
        caller = Caller(f"r-{self.callers}")

        async def call() -> Result | None:
            terms, now_s = Terms(strict=strict, request_id=caller.name), self.clock()
            caller.ticket = self.scheduler.submit(str(task), ASKED, terms, Deadline(now_s, budget_s), now_s)
            request = Request("classify", (caller.name,), ASKED.parameters, terms, now_s)
            return await self.loop.result(caller.ticket, request, patience_s)

        caller.task = asyncio.create_task(call())
        return caller

    @property
    def under_way(self) -> int:
        """Return 1 if the one core is busy, else 0."""
        return len(self.play.queue._under_way)

    def is_empty(self) -> bool:
        """Return whether nothing is queued, runs or is waited for."""
        waits = any(len(play.queue) or play.queue._under_way for play in self.plays)
        return not (waits or len(self.scheduler) or self.loop._calls)


def played_loop(max_batch: int = 1, slots: int = 4) -> PlayedLoop:
    """Return a loop of one core, 10 ms a batch."""
    return PlayedLoop((PlayedQueue((Played("only", 0.010, 80.0, max_batch=max_batch, slots=slots),)),))
