"""Decides the requests of one task: forecasts each checkpoint, chooses one, and says how the request waits.

A request that waits is decided twice: on arrival, to refuse at once what cannot be in time, and when its batch begins,
to state what was promised then. `/classify`, `/route`, `punctual explain` and the simulator use the same code. Callers
pass the time; it starts nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gateway.forecasting.forecaster import USUAL_PERCENTILE, Forecaster, ServedCheckpoint
from gateway.forecasting.load import IDLE, LoadTracker, QueueAhead
from gateway.model.deadline import Deadline
from gateway.model.faults import Note, log_fault
from gateway.model.request import RequestShape, Terms
from gateway.scheduling.arrivals import ArrivalStats
from gateway.scheduling.batching import QueuedRequest
from gateway.scheduling.policy import Candidate, Decision, Room, Shortlist, barred, bind, decide, first_left_s
from gateway.scheduling.task_queue import Batch, TaskQueue

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


def _mean_length(shape: RequestShape) -> tuple[int, ...]:
    """The mean tokens of the request's texts, by each tokenizer."""
    each = [shape.parameters.answered(of_texts) for of_texts in shape.tokens]
    return tuple([of_texts[0] if len(of_texts) == 1 else sum(of_texts) // len(of_texts) for of_texts in each])
