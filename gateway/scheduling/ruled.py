"""A published policy as the scheduler of a node: one queue a task, and a rule that chooses what a free core runs.

It takes the place of ours in the live gateway and in the simulator, for comparison. A rule sees a task's whole queue.
It knows neither the terms of a request besides its budget nor the load of other gateways. So a ruled scheduler refuses
nothing on arrival, and heeds no pinned checkpoint and no tier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from gateway.model.deadline import Deadline
from gateway.model.faults import attempt
from gateway.model.messages import Answer
from gateway.model.request import RequestShape, Terms
from gateway.scheduling.batching import QueuedRequest
from gateway.scheduling.policy import Decision
from gateway.scheduling.scheduler import Scheduler, Stage, Ticket, binding
from gateway.scheduling.task_queue import Batch


class RequestView(Protocol):
    """A request as a rule sees it, in seconds on one clock. `tokens` is the length of each of its texts."""

    @property
    def arrived_s(self) -> float:
        """When it arrived."""

    @property
    def budget_s(self) -> float:
        """The latency budget."""

    @property
    def deadline_s(self) -> float:
        """Arrival plus budget."""

    @property
    def tokens(self) -> int:
        """The tokens of each text."""

    @property
    def texts(self) -> int:
        """The number of texts."""


class Named(Protocol):
    """A variant of a checkpoint, by the checkpoint's name."""

    @property
    def name(self) -> str:
        """The checkpoint's name."""


VariantT = TypeVar("VariantT", bound=Named)


@dataclass(frozen=True)
class Chosen(Generic[VariantT]):
    """The next run of a free core; its members must be waiting. Requests in `drop` are given up first."""

    variant: VariantT | None = None
    members: tuple[RequestView, ...] = ()
    drop: tuple[RequestView, ...] = ()


class Rule(Protocol[VariantT]):
    """A published policy for one task: it sees the task's queue and chooses what a free core runs.

    `arrived` and `ended` do nothing by default.
    """

    def arrived(self, request: RequestView, now_s: float) -> None:
        """Observes an arrival before it is queued, to estimate the load or bind the request to a variant."""
        return

    def choose(self, queue: Sequence[RequestView], now_s: float) -> Chosen[VariantT]:
        """Chooses a run from a queue that is not empty, in order of arrival.

        An empty choice waits for the next arrival or end of a run.
        """

    def ended(self, variant: VariantT, members: Sequence[RequestView], seconds: float, now_s: float) -> None:
        """Observes the end of a run."""
        return


@dataclass(slots=True, eq=False)
class _Waiting:
    """A queued request, and what a rule sees of it."""

    ticket: Ticket
    queued: QueuedRequest
    tokens: int
    texts: int

    @property
    def arrived_s(self) -> float:
        return self.ticket.deadline.arrived_s

    @property
    def budget_s(self) -> float:
        return self.ticket.deadline.budget_s

    @property
    def deadline_s(self) -> float:
        return self.ticket.deadline.at_s


@dataclass(slots=True, eq=False)
class _Run:
    """A run under way, as its rule chose it."""

    variant: Any
    members: tuple[RequestView, ...]
    began_s: float


@dataclass(slots=True)
class RuledScheduler(Scheduler):
    """Schedules by one rule a task. A free core goes to the task whose queue has the earliest deadline."""

    rules: Mapping[str, Rule[Any]] = field(default_factory=dict, kw_only=True)
    _queues: dict[str, list[_Waiting]] = field(default_factory=dict, init=False)
    _runs: dict[Batch, _Run] = field(default_factory=dict, init=False)

    def submit(
        self,
        task: str,
        shape: RequestShape,
        terms: Terms,
        deadline: Deadline,
        now_s: float,
        *,
        again: bool = False,
        insist: bool = False,
    ) -> Ticket:
        """Queues a request. Call `poll` next."""
        decider = self.deciders[task]
        if not again:
            self._arrived(decider, shape, deadline)
        ticket = Ticket(task, shape, terms, deadline, Decision((), deadline.remaining_s(now_s), terms), now_s)
        waiting = _Waiting(ticket, decider.queued_at_once(shape, deadline), max(shape.tokens[0]), shape.texts)
        self.rules[task].arrived(waiting, now_s)
        self._queues.setdefault(task, []).append(waiting)
        return ticket

    def may_be_lone(self, task: str) -> bool:
        """No rule knows lone runs."""
        return False

    def price(self, task: str, now_s: float) -> float:
        """No rule prices core time."""
        return 0.0

    def poll(self, now_s: float) -> list[Ticket]:
        """The requests that have just begun or were dropped; each has its `stage`."""
        moved: list[Ticket] = []
        before = -1
        while self._free_cores() > 0 and len(moved) > before:
            before = len(moved)
            waiting = [task for task, queue in self._queues.items() if queue]
            for task in sorted(waiting, key=lambda name: min(one.deadline_s for one in self._queues[name])):
                if ran := self._run_of(task, now_s):
                    moved += ran
                    break
        return moved

    def wake_s(self, now_s: float) -> float | None:
        """None: a rule chooses on arrivals and ends alone."""
        return None

    def withdraw(self, ticket: Ticket) -> None:
        """Takes out a request whose client has left while it waited."""
        queue = self._queues[ticket.task]
        queue[:] = [one for one in queue if one.ticket is not ticket]

    def completed(
        self,
        ticket: Ticket,
        now_s: float,
        answer: Answer | None = None,
        *,
        expired: bool = False,
        way_back_s: float = 0.0,
    ) -> None:
        """Reports the end of a request, and to the rule once all of its batch have ended."""
        batch = ticket.batch
        Scheduler.completed(self, ticket, now_s, answer, expired=expired, way_back_s=way_back_s)
        if batch is not None and not batch.left:
            run = self._runs.pop(batch)
            self.rules[ticket.task].ended(run.variant, run.members, now_s - run.began_s, now_s)

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def _free_cores(self) -> int:
        cores = max(decider.queue.cores for decider in self.deciders.values())
        return math.floor(cores) - sum(batch.threads for batch in self._runs)

    def _run_of(self, task: str, now_s: float) -> list[Ticket]:
        """Lets the task's rule choose; gives the requests that began or were dropped."""
        queue, decider = self._queues[task], self.deciders[task]
        chosen = self.rules[task].choose(queue, now_s)
        dropped, members = _of(queue, chosen.drop), _of(queue, chosen.members)
        queue[:] = [one for one in queue if one not in dropped and one not in members]
        for one in dropped:
            one.ticket.stage = Stage.EXPIRED
        if chosen.variant is not None and members:
            checkpoint = decider.by_name[chosen.variant.name]
            batch = decider.queue.begin(checkpoint, [one.queued for one in members], now_s)
            self._runs[batch] = _Run(chosen.variant, chosen.members, now_s)
            for one in members:
                ticket = one.ticket
                ticket.batch, ticket.stage, ticket.decided_s = batch, Stage.BEGUN, now_s
                ticket.decision = attempt("forecast", self.note, *binding(ticket, batch, decider, now_s))
        return [one.ticket for one in (*dropped, *members)]


def _of(queue: Sequence[_Waiting], some: Sequence[RequestView]) -> list[_Waiting]:
    """Those of the queue that are among some."""
    those = set(map(id, some))
    return [one for one in queue if id(one) in those]
