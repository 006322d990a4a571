"""The scheduler of one node: takes requests, says which batches begin and who is given up, and learns from answers.

It holds no clock, timer, future or connection. A shell submits requests, calls `poll`, sends the batches, and reports
each end. The live gateway is one such shell (`loop`), the simulator another: both run this object.

Of each task a `Decider` forecasts the checkpoints and chooses one. A request that waits is decided twice: on arrival,
to refuse at once what cannot be in time, and when its batch begins, to state what was promised then. `/classify`,
`/route`, `punctual explain` and the simulator use the same code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from gateway.forecasting.forecaster import USUAL_PERCENTILE, Forecast, Forecaster, ServedCheckpoint
from gateway.forecasting.load import IDLE, LoadTracker, QueueAhead
from gateway.model.deadline import Deadline
from gateway.model.faults import Note, attempt, log_fault
from gateway.model.messages import Answer
from gateway.model.request import RequestShape, Terms
from gateway.scheduling.arrivals import ArrivalStats
from gateway.scheduling.batching import QueuedRequest
from gateway.scheduling.policy import Candidate, Decision, Room, Shortlist, barred, bind, decide, first_left_s
from gateway.scheduling.task_queue import Batch, TaskQueue

ALONE_AFTER = 8
"""Arrivals in a row, of any task, that must have found the gateway empty before the last counts as alone.

A client that sends one request after the other is alone from its eighth request on. Independent clients find a gateway
empty that often in a row only if they hardly load it: on two cores half busy, with 2 in place of 8, the best classifier
kept a core from so many urgent requests that 2.6 points were lost (`punctual simulate live-classify`).
"""

FEW_EXPECTED = 0.5
"""Arrivals expected before a request is answered, below which it begins at once on an idle node. Set by hand.

With more on the way the batching rule decides, which spares the core for them: on bursts at 1.5 and 2 times the
capacity that is worth 0.4 points (`punctual simulate grid-both`).
"""


PRICE_AGE_S = 0.005
"""Longest age of the price that an arriving request is decided at, in seconds; a batch is always priced anew.

Set by hand.
"""


class Decider:
    """Forecasts and decides the requests of one task, whose queue it owns."""

    def __init__(self, checkpoints: Sequence[ServedCheckpoint], load: LoadTracker, note: Note = log_fault) -> None:
        """Takes the task's checkpoints in any order. `note` takes faults of pricing."""
        self.checkpoints = tuple(sorted(checkpoints, key=lambda one: (-one.quality, -one.utility)))
        self.by_name = {one.name: one for one in self.checkpoints}
        self.arrivals = ArrivalStats()
        self.queue = TaskQueue(self.checkpoints, self.arrivals, note)
        self._load = load
        self._names = tuple(sorted(self.by_name))
        self.may_be_lone = any(one.forecaster.lone is not None for one in self.checkpoints)
        self._places = 0
        self._price = 0.0
        self._priced_s = -math.inf

    def join(self, checkpoint: ServedCheckpoint) -> None:
        """Takes in one more checkpoint: later decisions and batches may choose it."""
        self.checkpoints = tuple(sorted((*self.checkpoints, checkpoint), key=lambda one: (-one.quality, -one.utility)))
        self.by_name[checkpoint.name] = checkpoint
        self._names = tuple(sorted(self.by_name))
        self._priced_s = -math.inf
        self.may_be_lone = self.may_be_lone or checkpoint.forecaster.lone is not None
        self.queue.join(self.checkpoints)

    def arrived(self, shape: RequestShape, deadline: Deadline) -> None:
        """Counts an arrival, and updates the number of cores that the queue may use."""
        self.arrivals.arrived(deadline.arrived_s, deadline.budget_s, _mean_length(shape))
        self.queue.cores = self._load.cores(self._names)

    def price(self, now_s: float) -> float:
        """The capacity price, in points of quality per core-second, at most `PRICE_AGE_S` old."""
        if now_s - self._priced_s > PRICE_AGE_S:
            self._price, self._priced_s = self.queue.price(now_s), now_s
        return self._price

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
        """Forecasts the checkpoints behind all more urgent work, and decides on that snapshot.

        Goes from the best checkpoint down and stops where the rest cannot change the decision, unless `every` is set.
        `lone` forecasts a request that begins at once while nothing else runs on the node.
        """
        remaining_s, percentile = deadline.remaining_s(now_s), terms.percentile
        room = Room(remaining_s, first_left_s(terms, deadline.elapsed_s(now_s)))
        wait_s = self.queue.wait_s(now_s + remaining_s, now_s)
        shortlist: Shortlist | None = None
        candidates: list[Candidate] = []
        ahead_of, waits = self._load.ahead, wait_s > 0  # looked up once, not for every candidate
        for one in self.checkpoints:
            if shortlist is not None and shortlist.over(one.quality, one.utility):
                break
            forecast = None
            name = one.name
            if (ahead := ahead_of(name, now_s)) is not None:
                if one.joins is not None and (texts := self.queue.joinable(one, shape.texts)) is not None:
                    ahead = QueueAhead(one.others_s(now_s), None, texts)
                elif waits and wait_s > ahead.backlog_s:
                    ahead = QueueAhead(wait_s)
                forecast = one.forecaster.forecast(shape, ahead, percentile, now_s, remaining_s)
                if lone and ahead == IDLE and self._load.makes_lone_runs(name):
                    forecast = one.forecaster.hurried(forecast, shape, now_s, remaining_s)
                if terms.streamed:
                    forecast = one.forecaster.streamed(forecast, shape, ahead, now_s)
            candidates.append(Candidate(name, one.tier, one.quality, one.domain, forecast, one.utility))
            if shortlist is not None:
                shortlist.look(candidates[-1])
            elif forecast is not None and not every and room.holds(forecast):
                shortlist = Shortlist(candidates, room, terms, price)
        return decide(candidates, remaining_s, terms, deadline.elapsed_s(now_s), price)

    def decide_plainly(self, terms: Terms, deadline: Deadline, now_s: float) -> Decision:
        """Decides by the latency profiles alone, at no price: used if forecasting fails."""
        candidates = [
            Candidate(
                one.name, one.tier, one.quality, one.domain, one.plain_forecast(terms.percentile, now_s), one.utility
            )
            for one in self.checkpoints
        ]
        return decide(candidates, deadline.remaining_s(now_s), terms, deadline.elapsed_s(now_s))

    def queued_at_once(self, shape: RequestShape, deadline: Deadline) -> QueuedRequest:
        """Returns a request that begins at once, so that it has no latest start."""
        self._places += 1
        return QueuedRequest(self._places, deadline.at_s, _mean_length(shape), shape.texts)

    def queued(self, shape: RequestShape, terms: Terms, deadline: Deadline, now_s: float) -> QueuedRequest:
        """Returns the request as it waits, for any checkpoint that its terms allow.

        A strict request waits as long as its optimistic forecast fits, the one it was admitted by. Best effort goes
        behind the others once it is more likely late than not, since it is answered even then.
        """
        self._places += 1
        eligible = [one for one in self.checkpoints if barred(one, terms) is None]
        texts, tokens = shape.texts, _mean_length(shape)
        reserve_s = 0.0
        if terms.percentile != USUAL_PERCENTILE:
            fastest = min(eligible, key=lambda one: (one.run_s(texts, tokens[one.tokenizer]) / one.threads, one.name))
            run_s = fastest.run_s(texts, tokens[fastest.tokenizer])
            reserve_s = fastest.forecaster.reach_s(run_s, terms.percentile, now_s) - fastest.reach_s(run_s, now_s)
        up = [one.forecaster for one in eligible if one.slots]
        if terms.strict:
            takes_s = [one.forecast(shape, IDLE, terms.percentile, now_s, 0.0).least_s for one in up]
        else:
            takes_s = [one.service_s(shape, now_s) for one in up]
        latest_s, last_s = deadline.at_s, deadline.at_s - min(takes_s, default=0.0)
        if terms.first_token_s is not None:
            latest_s, last_s = self._first_ends(shape, terms, deadline, now_s, up, latest_s, last_s)
        return QueuedRequest(
            place=self._places,
            deadline_s=latest_s - reserve_s,
            tokens=tokens,
            texts=texts,
            strict=terms.strict,
            eligible=None if len(eligible) == len(self.checkpoints) else frozenset(one.name for one in eligible),
            last_s=last_s,
            shape=shape,
        )

    def _first_ends(
        self,
        shape: RequestShape,
        terms: Terms,
        deadline: Deadline,
        now_s: float,
        up: Sequence[Forecaster],
        latest_s: float,
        last_s: float,
    ) -> tuple[float, float]:
        """The deadline and the latest start of a request whose first text has a budget too, so that both are kept.

        The queue knows one deadline: that by which an answer ends if it begins in time for its first text.
        """
        first_at_s = deadline.arrived_s + (terms.first_token_s or 0.0)
        extra_s, soonest_s = 0.0, math.inf
        for one in up:
            forecast = one.streamed(one.forecast(shape, IDLE, terms.percentile, now_s, 0.0), shape, IDLE, now_s)
            if forecast.first is not None:
                extra_s = max(extra_s, forecast.latency_s - forecast.first.latency_s)
                takes_s = forecast.first.least_s if terms.strict else forecast.first.latency_s
                soonest_s = min(soonest_s, takes_s)
        if math.isinf(soonest_s):
            return latest_s, last_s
        return min(latest_s, first_at_s + extra_s), min(last_s, first_at_s - soonest_s)

    def queued_plainly(self, shape: RequestShape, terms: Terms, deadline: Deadline) -> QueuedRequest:
        """Returns the request as it waits until its very deadline: used if forecasting fails."""
        self._places += 1
        eligible = frozenset(one.name for one in self.checkpoints if barred(one, terms) is None)
        return QueuedRequest(
            self._places,
            deadline.at_s,
            _mean_length(shape),
            shape.texts,
            terms.strict,
            eligible,
            last_s=deadline.at_s,
        )

    def bind(self, shape: RequestShape, decision: Decision, batch: Batch, deadline: Deadline, now_s: float) -> Decision:
        """Decides when the request's batch can begin: its checkpoint and price, with a new forecast."""
        remaining_s = deadline.remaining_s(now_s)
        inputs = sum(member.texts for member in batch.members) + batch.joined
        one = self.by_name[batch.checkpoint]
        ahead = QueueAhead(one.others_s(now_s), None, inputs - shape.texts)
        forecast = one.forecaster.forecast(shape, ahead, decision.terms.percentile, now_s, remaining_s)
        if decision.terms.streamed:
            forecast = one.forecaster.streamed(forecast, shape, ahead, now_s)
        chosen = Candidate(one.name, one.tier, one.quality, one.domain, forecast, one.utility)
        return bind(decision, chosen, remaining_s, batch.price)

    def bind_plainly(self, decision: Decision, batch: Batch, deadline: Deadline, now_s: float) -> Decision:
        """Decides when the request's batch can begin, by the profile alone: used if forecasting fails."""
        one = self.by_name[batch.checkpoint]
        forecast = one.forecaster.plain(decision.terms.percentile)
        chosen = Candidate(one.name, one.tier, one.quality, one.domain, forecast, one.utility)
        return bind(decision, chosen, deadline.remaining_s(now_s), batch.price)


class Stage(Enum):
    """How far a submitted request is. A shell acts on all but `WAITING`."""

    REFUSED = auto()
    """Its decision chose nothing."""
    CROWDED_OUT = auto()
    """It would be late or has become so, and too many late requests wait."""
    WAITING = auto()
    BEGUN = auto()
    """Its batch began."""
    EXPIRED = auto()
    """It is strict, and no batch could begin in time."""
    STRANDED = auto()
    """Every checkpoint that may answer it is down; it may be submitted again."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One submitted request, and how far it is.

    `decision` is that of its arrival, and once it has begun that of its batch; `decided_s` is the instant of it.
    `told_s` is that of the first text of its answer, of one that is streamed.
    """

    task: str
    shape: RequestShape
    terms: Terms
    deadline: Deadline
    decision: Decision
    decided_s: float
    stage: Stage = Stage.WAITING
    batch: Batch | None = None
    queued: QueuedRequest | None = None
    told_s: float | None = None

    @property
    def promise(self) -> tuple[str, Forecast]:
        """The checkpoint of a request that has begun, and its forecast."""
        chosen = self.decision.chosen
        assert chosen is not None and chosen.forecast is not None, "a batch has a checkpoint with a forecast"
        return chosen.name, chosen.forecast

    @property
    def late_s(self) -> float:
        """How late the chosen checkpoint would be, in seconds; after this wait the request might be in time."""
        forecast = self.decision.chosen.forecast if self.decision.chosen else None
        return max(forecast.quantile_s - self.decision.remaining_s, 0.0) if forecast else 0.0


@dataclass(slots=True)
class Scheduler:
    """Schedules the requests of all tasks on the cores of one node."""

    deciders: Mapping[str, Decider]
    note: Note = log_fault
    _tickets: dict[QueuedRequest, Ticket] = field(default_factory=dict, init=False)
    _found_empty: int = field(default=0, init=False)
    _lone: Batch | None = field(default=None, init=False)
    """The batch that had the node for itself when it began, while nothing else has begun since."""

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
        """Takes a request and decides it. On an idle node it begins at once; else call `poll`.

        `again` is set for a request that was submitted before and lost its replica: its arrival is not counted twice.
        `insist` lets one wait that would be refused, which shows whether refusing it is right.
        """
        decider = self.deciders[task]
        if not again:
            self._arrived(decider, shape, deadline)
        price = 0.0 if self._found_empty >= ALONE_AFTER else self.price(task, now_s)
        lone = self.may_be_lone(task)
        decision = self.decide(task, shape, terms, deadline, now_s, price, lone=lone)
        ticket = Ticket(task, shape, terms, deadline, decision, now_s)
        if lone and decision.chosen is not None:
            if self._begin_at_once(ticket, decider, now_s):
                return ticket
            ticket.decision = decision = self.decide(task, shape, terms, deadline, now_s, price)  # others are expected
        if decision.chosen is None and not insist:
            ticket.stage = Stage.REFUSED
        elif decider.queue.full and ticket.late_s > 0 and not (terms.strict or insist):
            ticket.stage = Stage.CROWDED_OUT
        elif not (decider.queue.idle and self._begin_at_once(ticket, decider, now_s)):
            self._enter(ticket, decider, now_s)
        return ticket

    def decide(
        self,
        task: str,
        shape: RequestShape,
        terms: Terms,
        deadline: Deadline,
        now_s: float,
        price: float,
        *,
        every: bool = False,
        lone: bool = False,
    ) -> Decision:
        """Decides a request at a price, in points of quality per core-second, and submits nothing."""
        decider = self.deciders[task]
        return attempt(
            "forecast",
            self.note,
            lambda: decider.decide(shape, terms, deadline, now_s, price, every=every, lone=lone),
            lambda: decider.decide_plainly(terms, deadline, now_s),
        )

    def may_be_lone(self, task: str) -> bool:
        """True if a request of the task would find the node empty now, and its checkpoints make lone runs."""
        return self.deciders[task].may_be_lone and self._is_empty

    def price(self, task: str, now_s: float) -> float:
        """The capacity price of a task, in points of quality per core-second, at most `PRICE_AGE_S` old."""
        return self.deciders[task].price(now_s)

    def poll(self, now_s: float) -> list[Ticket]:
        """The requests that have just begun or ended without an answer; each has its `stage`.

        Call it whenever a request was submitted and waits, was completed, or when `wake_s` has come.
        """
        moved: list[Ticket] = []
        for task, decider in self.deciders.items():
            queue = decider.queue
            if not len(queue):
                continue
            for queued in queue.expired(now_s):
                ticket = self._tickets.pop(queued)
                ticket.stage = _given_up(queue, queued)
                moved.append(ticket)
            while len(queue) and (batch := self._next_batch(task, decider, now_s)) is not None:
                moved += self._begun(batch, decider, now_s)
        return moved

    def wake_s(self, now_s: float) -> float | None:
        """When to poll again though nothing has happened, since a request becomes late; None if none will."""
        times_s = [wake_s for one in self.deciders.values() if (wake_s := one.queue.wake_s(now_s)) is not None]
        return min(times_s, default=None)

    def withdraw(self, ticket: Ticket) -> None:
        """Takes out a request whose client has left while it waited."""
        if ticket.queued is not None and self._tickets.pop(ticket.queued, None) is not None:
            self.deciders[ticket.task].queue.leave(ticket.queued)

    def completed(
        self,
        ticket: Ticket,
        now_s: float,
        answer: Answer | None = None,
        *,
        expired: bool = False,
        way_back_s: float = 0.0,
    ) -> None:
        """Reports that a request that had begun is finished, in whatever way, and learns from its answer.

        `expired` says that its deadline passed before an answer came; `way_back_s` is what an answer still takes from
        here to the client. Only the first member of a batch teaches the forecast's error, since the other members would
        repeat it.
        """
        batch = ticket.batch
        assert batch is not None, "only a request that has begun is completed"
        decider = self.deciders[ticket.task]
        decider.queue.ended(batch, now_s)
        if answer is None and not expired:
            return
        _, forecast = ticket.promise
        forecaster = decider.by_name[batch.checkpoint].forecaster
        first, batch.learnt = not batch.learnt, True
        took_s = now_s + way_back_s - ticket.decided_s

        def learn() -> None:
            if forecast.first is not None and ticket.told_s is not None:
                forecaster.learn_first(forecast, ticket.told_s - ticket.decided_s, now_s)
            elif forecast.first is not None and expired:
                forecaster.learn_first(forecast, now_s - ticket.decided_s, now_s, beyond=True)
            if answer is None:
                given_up = forecast.first is not None and ticket.told_s is None and took_s < forecast.latency_s
                if first and not given_up:  # for want of a first text; how long the whole takes is not known
                    forecaster.learn_expired(forecast, took_s, now_s)
            elif first:
                forecaster.learn(forecast, ticket.shape, answer, took_s, now_s)
            else:
                forecaster.learn_service(forecast, ticket.shape, answer)

        attempt("learning", self.note, learn, _nothing)

    def __len__(self) -> int:
        return len(self._tickets)

    def _arrived(self, decider: Decider, shape: RequestShape, deadline: Deadline) -> None:
        self._found_empty = self._found_empty + 1 if self._is_empty else 0
        attempt("learning", self.note, lambda: decider.arrived(shape, deadline), _nothing)

    @property
    def _is_empty(self) -> bool:
        """True if no request of any task waits or runs."""
        return all(one.queue.idle for one in self.deciders.values())

    def _begin_at_once(self, ticket: Ticket, decider: Decider, now_s: float) -> bool:
        """Begins a request on the checkpoint just decided, if a core is free and few follow; True if it did."""
        chosen = ticket.decision.chosen
        if chosen is None or chosen.forecast is None:
            return False
        expected = decider.arrivals.rate(now_s) * chosen.forecast.service_time_s
        if self._found_empty < ALONE_AFTER and expected >= FEW_EXPECTED:
            return False
        queued = decider.queued_at_once(ticket.shape, ticket.deadline)
        batch = decider.queue.begin_at_once(
            decider.by_name[chosen.name],
            queued,
            chosen.forecast.cost_s,
            ticket.decision.price,
            now_s,
            self._kept(ticket.task, now_s),
        )
        if batch is None:
            return False
        ticket.stage, ticket.batch = Stage.BEGUN, batch
        self._slow_lone(now_s)
        if chosen.forecast.lone:
            batch.hurried(chosen.forecast.service_time_s, now_s)
            self._lone = batch
        return True

    def _slow_lone(self, now_s: float) -> None:
        """Notes that a batch begins: one that had the node for itself goes on at the usual pace."""
        if self._lone is not None:
            self._lone.slowed(now_s)
            self._lone = None

    def _enter(self, ticket: Ticket, decider: Decider, now_s: float) -> None:
        shape, terms, deadline = ticket.shape, ticket.terms, ticket.deadline
        queued = attempt(
            "forecast",
            self.note,
            lambda: decider.queued(shape, terms, deadline, now_s),
            lambda: decider.queued_plainly(shape, terms, deadline),
        )
        ticket.queued = queued
        self._tickets[queued] = ticket
        decider.queue.enter(queued)

    def _next_batch(self, task: str, decider: Decider, now_s: float) -> Batch | None:
        queue = decider.queue
        return attempt(
            "scheduling",
            self.note,
            lambda: queue.next_batch(now_s, self._kept(task, now_s)),
            lambda: queue.next_batch_plainly(now_s),
        )

    def _begun(self, batch: Batch, decider: Decider, now_s: float) -> Iterator[Ticket]:
        """Binds the members of a batch: each is decided anew, on the batch's checkpoint and at its price."""
        self._slow_lone(now_s)
        for queued in batch.members:
            ticket = self._tickets.pop(queued)
            ticket.decision = attempt("forecast", self.note, *binding(ticket, batch, decider, now_s))
            ticket.decided_s, ticket.stage, ticket.batch = now_s, Stage.BEGUN, batch
            yield ticket

    def _kept(self, task: str, now_s: float) -> int:
        """The cores whose batches, of other tasks, have little headroom."""
        return sum([one.queue.pressed(now_s) for name, one in self.deciders.items() if name != task])


def _given_up(queue: TaskQueue, queued: QueuedRequest) -> Stage:
    """Why the queue has taken a request out that no batch will serve."""
    if queue.stranded(queued):
        return Stage.STRANDED
    return Stage.EXPIRED if queued.strict else Stage.CROWDED_OUT


def binding(
    ticket: Ticket, batch: Batch, decider: Decider, now_s: float
) -> tuple[Callable[[], Decision], Callable[[], Decision]]:
    """What decides a member of a batch anew, and what does so plainly."""
    return (
        lambda: decider.bind(ticket.shape, ticket.decision, batch, ticket.deadline, now_s),
        lambda: decider.bind_plainly(ticket.decision, batch, ticket.deadline, now_s),
    )


def _nothing() -> None:
    return None


def _mean_length(shape: RequestShape) -> tuple[int, ...]:
    """The mean tokens of the request's texts, by each tokenizer."""
    each = [shape.parameters.answered(of_texts) for of_texts in shape.tokens]
    return tuple([of_texts[0] if len(of_texts) == 1 else sum(of_texts) // len(of_texts) for of_texts in each])
