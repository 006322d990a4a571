"""The scheduler of a node: what a request finds when it comes, and what it costs to decide one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fakes import ANSWER, EVEN, GRAND, MEDIANS_S, SWIFT, TERMS
from worlds import World, strict, world

from gateway.forecasting.forecaster import Forecaster
from gateway.model.messages import LoadReport
from gateway.model.profile import LoneRuns
from gateway.model.request import Terms
from gateway.scheduling.policy import Reason
from gateway.scheduling.scheduler import ALONE_AFTER, Stage, Ticket

PATIENT = replace(TERMS, budget_s=10.0)


def submit(told: World, terms: Terms = PATIENT) -> Ticket:
    """Submit a request that arrives now."""
    router, request = told.service.router, told.request(terms)
    return router.submit(request, router.deadline(request))


def answered(told: World, ticket: Ticket, after_s: float = 0.0) -> list[Ticket]:
    """Report an answer, and return what follows."""
    told.clock.advance(after_s)
    scheduler = told.service.router.scheduler
    scheduler.completed(ticket, told.clock(), ANSWER)
    return scheduler.poll(told.clock())


def rush(told: World) -> None:
    """Let 5,000 requests a second come for a fifth of a second, and answer in no time those that have begun."""
    begun: list[Ticket] = []

    def note(moved: list[Ticket]) -> None:
        begun.extend(ticket for ticket in moved if ticket.stage is Stage.BEGUN)

    for _ in range(1000):
        told.clock.advance(0.0002)
        note([submit(told, replace(TERMS, budget_s=0.06)), *told.service.router.scheduler.poll(told.clock())])
    while begun:
        note(answered(told, begun.pop()))
    assert not len(told.service.router.scheduler)


def test_on_an_idle_node_a_request_begins_at_once() -> None:
    """On an idle node a request begins when it is submitted, alone, on the checkpoint of its decision."""
    told = world()
    ticket = submit(told)
    assert ticket.stage is Stage.BEGUN and ticket.promise[0] == GRAND
    assert ticket.batch is not None and len(ticket.batch.members) == 1
    assert ticket.batch.ends_s == pytest.approx(told.clock() + MEDIANS_S[GRAND], rel=0.01)
    assert not told.service.router.scheduler.poll(told.clock())


def test_who_comes_while_another_runs_waits_for_poll() -> None:
    """A request that comes while another of its task runs waits, until `poll` says that it begins."""
    told = world()
    submit(told)
    second = submit(told)
    stages = [second.stage]
    assert told.service.router.scheduler.poll(told.clock()) == [second]
    assert [*stages, second.stage] == [Stage.WAITING, Stage.BEGUN]


def lone_world() -> World:
    """Return a world whose best checkpoint takes half the time for a lone run."""
    told = world()
    scheduler = told.service.router.scheduler
    for decider in scheduler.deciders.values():
        for one in decider.checkpoints:
            if one.name == GRAND:
                one.forecaster.lone, decider.may_be_lone = LoneRuns(2, (8,), (0.5,)), True
    told.load.reported(GRAND, "replica", LoadReport(0.0, 0, cores=2.0, lone=True), told.clock())
    return told


def test_a_request_that_finds_the_node_empty_has_it_for_itself() -> None:
    """Its forecast is that of a lone run, and it is sent as one; who comes meanwhile is not, and slows the first."""
    told = lone_world()
    alone = submit(told)
    now_s = told.clock()
    assert alone.promise[1].lone and alone.batch is not None
    assert alone.batch.ends_s == pytest.approx(now_s + MEDIANS_S[GRAND] / 2, rel=0.01)
    told.clock.advance(MEDIANS_S[GRAND] / 4)
    second = submit(told)
    assert told.service.router.scheduler.poll(told.clock()) == [second]
    assert not second.promise[1].lone
    assert alone.batch.ends_s == pytest.approx(now_s + MEDIANS_S[GRAND] * 3 / 4, rel=0.01)
    answered(told, alone)
    answered(told, second)
    assert submit(told).promise[1].lone


def test_a_lone_run_brings_a_better_checkpoint_into_a_tight_budget() -> None:
    """A budget that only a lone run of the best checkpoint fits gets it on an empty node, and the next one beside."""
    told = lone_world()
    terms = replace(TERMS, budget_s=0.8 * MEDIANS_S[GRAND])
    assert submit(told, terms).promise[0] == GRAND
    second = submit(told, terms)
    told.service.router.scheduler.poll(told.clock())
    assert second.promise[0] != GRAND


def test_a_decision_that_runs_nothing_is_that_of_a_request_that_would() -> None:
    """`/route` on an empty node tells of a lone run too, and of none beside another request."""
    told = lone_world()
    router, request = told.service.router, told.request(replace(TERMS, budget_s=0.8 * MEDIANS_S[GRAND]))
    chosen = router.decide(request, router.deadline(request)).chosen
    assert chosen is not None and chosen.name == GRAND and chosen.forecast is not None and chosen.forecast.lone
    submit(told)
    beside = router.decide(request, router.deadline(request)).chosen
    assert beside is not None and beside.name != GRAND


def test_a_replica_that_makes_no_lone_runs_is_promised_none() -> None:
    """A replica that has too few processors, or whose second session could not be opened, says so."""
    told = lone_world()
    told.load.reported(GRAND, "replica", LoadReport(0.0, 0, cores=2.0), told.clock())
    assert not submit(told).promise[1].lone


def test_a_lone_run_that_was_joined_teaches_no_error() -> None:
    """What a lone run takes beside another says nothing of lone runs."""
    told = lone_world()
    alone = submit(told)
    second = submit(told)
    told.service.router.scheduler.poll(told.clock())
    assert alone.batch is not None and alone.batch.learnt
    assert second.batch is not None and not second.batch.learnt


def test_a_strict_request_is_refused_by_what_an_empty_node_could_keep() -> None:
    """Of a budget that nothing keeps the refusal says the least one that a lone run would."""
    told = lone_world()
    terms = replace(TERMS, budget_s=0.0005, strict=True, pinned=GRAND)
    refused = submit(told, terms)
    assert refused.stage is Stage.REFUSED
    assert refused.decision.min_feasible_s < MEDIANS_S[GRAND]


def counted(told: World) -> Counter[str]:
    """Count the forecasts of each checkpoint from now on."""
    counts: Counter[str] = Counter()

    def counting(name: str, forecast: Callable[..., Any]) -> Callable[..., Any]:
        def count(*given: Any) -> Any:
            counts[name] += 1
            return forecast(*given)

        return count

    for name, one in told.service.router.served.items():
        one.forecaster.forecast = counting(name, Forecaster.forecast.__get__(one.forecaster))  # type: ignore[method-assign]
    return counts


def test_on_an_idle_node_each_checkpoint_is_forecast_once_at_most() -> None:
    """An idle request forecasts each checkpoint once at most, and none that cannot change the decision."""
    told = world()
    counts = counted(told)
    submit(told, strict(1.2 * MEDIANS_S[GRAND]))
    assert set(counts) <= {SWIFT, EVEN, GRAND} and set(counts.values()) == {1}


@pytest.mark.parametrize("pause_s", [0.0, 0.001, 0.05])
def test_a_client_that_is_alone_is_never_degraded(pause_s: float) -> None:
    """A client that sends one request after the other gets the best checkpoint, whatever the rate was a moment ago.

    Only the first few after a rush, which may still go on, can be given less: until so many in a row met nobody.
    """
    told = world()
    rush(told)
    for number in range(200):
        ticket = submit(told)
        alone = number >= ALONE_AFTER - 1
        assert ticket.stage is Stage.BEGUN or not alone
        told.service.router.scheduler.poll(told.clock())
        assert (ticket.promise[0] == GRAND and ticket.decision.reason is Reason.FITS) or not alone
        answered(told, ticket, MEDIANS_S[ticket.promise[0]])
        told.clock.advance(pause_s)


def test_who_finds_the_node_busy_is_not_alone() -> None:
    """While others run, requests are decided at the price, however they came before."""
    told = world()
    rush(told)
    price = told.service.router.scheduler.price("classify", told.clock())
    assert price > 0, "the rush was a moment ago"
    first = submit(told)
    second = submit(told)
    assert second.decision.price > 0
    for ticket in (first, second):
        if ticket.stage is Stage.WAITING:
            told.service.router.scheduler.poll(told.clock())
        answered(told, ticket)
    assert submit(told).decision.price >= 0


def test_who_leaves_while_waiting_is_never_begun() -> None:
    """A withdrawn request leaves nothing behind; one that has begun cannot be withdrawn."""
    told = world()
    scheduler = told.service.router.scheduler
    first, second = submit(told), submit(told)
    scheduler.withdraw(second)
    assert not len(scheduler) and not scheduler.poll(told.clock())
    scheduler.withdraw(first)
    assert len(scheduler.deciders["classify"].queue._under_way) == 1


def test_a_request_is_counted_as_arrived_once() -> None:
    """A request that is submitted again after a loss is not a second arrival."""
    told = world()
    router, request = told.service.router, told.request(PATIENT)
    deadline = router.deadline(request)
    arrivals = router.scheduler.deciders["classify"].arrivals
    router.submit(request, deadline)
    rate = arrivals.rate(told.clock())
    router.submit(request, deadline, again=True)
    assert arrivals.rate(told.clock()) == rate > 0
