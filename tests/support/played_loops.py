"""A scheduler and its loop as tests play them: one task on one core, with known times."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from fakes import reraise
from played_queues import Played, PlayedQueue

from gateway.forecasting.forecaster import Forecast
from gateway.model.deadline import Deadline
from gateway.model.request import RequestShape, Terms
from gateway.model.tier import Tier
from gateway.scheduling.batching import QueuedRequest
from gateway.scheduling.decider import Decider
from gateway.scheduling.loop import SchedulerLoop
from gateway.scheduling.policy import Candidate, Decision, Reason
from gateway.scheduling.scheduler import Scheduler, Stage, Ticket
from gateway.scheduling.task_queue import Batch
from gateway.tasks.classify import ClassifyParameters

ASKED = RequestShape((16,), ClassifyParameters())


class PlayedDecider(Decider):
    """Decides for the fastest checkpoint, whatever the budget, and refuses nothing."""

    def __init__(self, play: PlayedQueue) -> None:
        self.play = play
        self.queue = play.queue
        self.arrivals = play.arrivals
        self.by_name = {one.name: one for one in play.checkpoints}

    def arrived(self, shape: RequestShape, deadline: Deadline) -> None:
        """Count the arrival."""
        self.play.arrivals.arrived(deadline.arrived_s, deadline.budget_s, shape.characters[0])

    def price(self, now_s: float, demanded: float = 0.0) -> float:
        """Return no price."""
        return 0.0

    def decide(
        self, shape: RequestShape, terms: Terms, deadline: Deadline, now_s: float, price: float, *, every: bool = False
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
        one_s = self.by_name[name].run_s(1, ASKED.characters[0])
        forecast = Forecast(0.0, one_s, one_s, one_s, one_s, cost_s=one_s)
        chosen = Candidate(name, Tier.REALTIME, 80.0, None, forecast, 80.0)
        return Decision((chosen,), remaining_s, terms, chosen=chosen, reason=Reason.ONLY_CANDIDATE)


@dataclass
class PlayedLoop:
    """A loop over played queues, whose time it has; the event loop's time is added once it `runs`."""

    plays: tuple[PlayedQueue, ...]
    runs: bool = False

    def __post_init__(self) -> None:
        self.began_s = asyncio.get_running_loop().time()
        self.scheduler = Scheduler({str(at): PlayedDecider(play) for at, play in enumerate(self.plays)}, reraise)
        self.loop = SchedulerLoop(self.scheduler, self.clock)

    @property
    def play(self) -> PlayedQueue:
        """Return the first task's queue."""
        return self.plays[0]

    def clock(self) -> float:
        """Return the time."""
        return self.play.now_s + (asyncio.get_running_loop().time() - self.began_s if self.runs else 0.0)

    def submit(self, budget_s: float = 5.0, strict: bool = False, task: int = 0) -> Ticket:
        """Submit a request that arrives now."""
        now_s = self.clock()
        return self.scheduler.submit(str(task), ASKED, Terms(strict=strict), Deadline(now_s, budget_s), now_s)

    async def settled(self, ticket: Ticket, patience_s: float = 60.0) -> Ticket:
        """Wait for what becomes of a request."""
        await self.loop.settled(ticket, patience_s)
        return ticket

    def comes(
        self, budget_s: float = 5.0, patience_s: float = 60.0, strict: bool = False, task: int = 0
    ) -> asyncio.Task[Ticket]:
        """Send a request to the scheduler and its loop, as a task of its own."""

        async def client() -> Ticket:
            return await self.settled(self.submit(budget_s, strict, task), patience_s)

        return asyncio.create_task(client())

    def ends(self, ticket: Ticket) -> None:
        """Report that a request that had begun is finished."""
        self.scheduler.completed(ticket, self.clock())
        self.loop.look()

    @property
    def under_way(self) -> int:
        """Return 1 if the one core is busy, else 0."""
        return len(self.play.queue._under_way)


def began(task: asyncio.Task[Ticket]) -> Batch:
    """Return the batch in which a request has begun."""
    batch = task.result().batch
    assert task.result().stage is Stage.BEGUN and batch is not None
    return batch


def played_loop(max_batch: int = 1, slots: int = 4) -> PlayedLoop:
    """Return a loop of one core, 10 ms a batch."""
    return PlayedLoop((PlayedQueue((Played("only", 0.010, 80.0, max_batch=max_batch, slots=slots),)),))
