"""A published policy behind the scheduler's interface: rules choose, and every request begins, is dropped or leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from fakes import EVEN, SWIFT, TERMS, reraise
from worlds import world

from gateway.model.deadline import Deadline
from gateway.scheduling.ruled import Chosen, RequestView, Rule, RuledScheduler
from gateway.scheduling.scheduler import Stage, Ticket


@dataclass(frozen=True)
class Named:
    """A variant by its checkpoint's name."""

    name: str


@dataclass
class Scripted(Rule[Named]):
    """A rule that runs the whole queue on one checkpoint, and drops what has less budget than `least_s`."""

    checkpoint: str = EVEN
    least_s: float = 0.0
    ended_after_s: list[float] = field(default_factory=list)

    def choose(self, queue: Sequence[RequestView], now_s: float) -> Chosen[Named]:
        drop = tuple(one for one in queue if one.budget_s < self.least_s)
        members = tuple(one for one in queue if one not in drop)
        return Chosen(Named(self.checkpoint) if members else None, members, drop)

    def ended(self, variant: Named, members: Sequence[RequestView], seconds: float, now_s: float) -> None:
        self.ended_after_s.append(seconds)


def made(rule: Rule[Named]) -> tuple[RuledScheduler, float]:
    """A scheduler by this rule over three idle classifiers, and the time."""
    told = world()
    deciders = told.service.router.scheduler.deciders
    return RuledScheduler(deciders, reraise, rules={"classify": rule}), told.clock()


def submitted(scheduler: RuledScheduler, now_s: float, budget_s: float = 1.0, *, again: bool = False) -> Ticket:
    """A request that was submitted now."""
    told = world()
    request = told.request(TERMS)
    shape = told.service.router.shape(request)
    return scheduler.submit("classify", shape, TERMS, Deadline(now_s, budget_s), now_s, again=again)


def test_a_rule_chooses_members_and_checkpoint() -> None:
    """What a rule chooses begins as one batch, with a forecast; the rule hears of its end once all have ended."""
    rule = Scripted()
    scheduler, now_s = made(rule)
    tickets = [submitted(scheduler, now_s), submitted(scheduler, now_s, again=True)]
    assert len(scheduler) == 2 and [one.stage for one in tickets] == [Stage.WAITING] * 2
    assert scheduler.poll(now_s) == tickets and not len(scheduler)
    assert tickets[0].batch is tickets[1].batch is not None and tickets[0].promise[0] == EVEN
    scheduler.completed(tickets[0], now_s + 0.01)
    assert rule.ended_after_s == []
    scheduler.completed(tickets[1], now_s + 0.02)
    assert rule.ended_after_s == [pytest.approx(0.02)]


def test_what_is_dropped_has_expired_and_what_left_is_gone() -> None:
    """A dropped request has expired; one whose client has left is offered to no rule."""
    scheduler, now_s = made(Scripted(SWIFT, least_s=0.5))
    dropped, gone, kept = (submitted(scheduler, now_s, budget_s) for budget_s in (0.1, 1.0, 1.0))
    scheduler.withdraw(gone)
    assert scheduler.poll(now_s) == [dropped, kept]
    assert (dropped.stage, gone.stage, kept.stage) == (Stage.EXPIRED, Stage.WAITING, Stage.BEGUN)


def test_a_rule_is_asked_only_while_a_core_is_free() -> None:
    """Once every core has a batch, requests wait for the end of one; a rule has no price and sets no timer."""
    scheduler, now_s = made(Scripted())
    for _ in range(2):  # two cores
        submitted(scheduler, now_s)
        assert len(scheduler.poll(now_s)) == 1
    waiting = submitted(scheduler, now_s)
    assert scheduler.poll(now_s) == [] and waiting.stage is Stage.WAITING
    assert scheduler.price("classify", now_s) == 0.0 and scheduler.wake_s(now_s) is None
