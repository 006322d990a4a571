"""The decider: what it decides when a request arrives and when its batch begins, and how the request waits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_summaries import SCRIBE
from fakes import EVEN, GRAND, SWIFT, TERMS
from worlds import World, strict, summarizing, world

from gateway.model.deadline import Deadline
from gateway.model.request import Request, Terms
from gateway.model.tier import Tier
from gateway.scheduling.batching import QueuedRequest
from gateway.scheduling.policy import Decision, Reason
from gateway.scheduling.scheduler import PRICE_AGE_S, Decider
from gateway.scheduling.task_queue import Batch
from gateway.tasks.summarize import SummarizeParameters


def decider_of(told: World) -> Decider:
    """Return the decider of the classifiers."""
    return told.service.router.scheduler.deciders["classify"]


def come(told: World, terms: Terms = TERMS) -> tuple[Request, Deadline, Decision, QueuedRequest]:
    """Decide a request that arrives now, and return it with its place in the queue."""
    router, request, decider = told.service.router, told.request(terms), decider_of(told)
    deadline = router.deadline(request)
    shape = router.shape(request)
    decider.arrived(shape, deadline)
    decision = router.decide(request, deadline)
    return request, deadline, decision, decider.queued(shape, terms, deadline, told.clock())


def least_s(told: World, request: Request, checkpoint: str) -> float:
    """Return the optimistic forecast of a request on one checkpoint of an idle gateway."""
    router = told.service.router
    decision = router.decide(request, router.deadline(request), 0.0, every=True)
    (forecast,) = (one.forecast for one in decision.candidates if one.name == checkpoint)
    assert forecast is not None
    return forecast.least_s


def test_a_request_waits_until_its_optimistic_forecast_no_longer_fits() -> None:
    """A request admitted at risk can begin until its optimistic forecast no longer fits."""
    told = world()
    budget_s = 1.000001 * least_s(told, told.request(), SWIFT)
    request, deadline, decision, held = come(told, strict(budget_s))
    assert decision.reason is Reason.AT_RISK
    decider = decider_of(told)
    decider.queue.enter(held)
    assert not decider.queue.expired(told.clock())
    assert decider.queue.next_batch(told.clock()) is not None
    assert held.last_s == pytest.approx(deadline.at_s - least_s(told, request, SWIFT))


@pytest.mark.parametrize("percentile", [50.0, 95.0, 99.9])
def test_the_percentile_moves_the_place_in_the_queue_and_not_the_last_moment(percentile: float) -> None:
    """A higher percentile moves a request forward in the queue, but not the latest instant at which it can begin."""
    told = world()
    request, deadline, _, held = come(told, replace(strict(), percentile=percentile))
    moved_s = deadline.at_s - held.deadline_s
    assert (moved_s > 0) == (percentile > 95) and (moved_s < 0) == (percentile < 95)
    assert held.last_s == pytest.approx(deadline.at_s - least_s(told, request, SWIFT))


def test_a_request_may_have_what_its_terms_allow() -> None:
    """A request may have the checkpoints that its tier and pin allow, and can wait as long as one that is up fits."""
    told = world()
    for terms, allowed in (
        (TERMS, None),
        (replace(TERMS, min_tier=Tier.BALANCED), {EVEN, GRAND}),
        (replace(TERMS, pinned=GRAND), {GRAND}),
    ):
        assert come(told, terms)[3].eligible == allowed
    request, deadline, _, held = come(told, strict(pinned=GRAND))
    assert held.last_s == pytest.approx(deadline.at_s - least_s(told, request, GRAND))
    told.down(SWIFT)
    request, deadline, _, held = come(told, strict())
    assert held.last_s == pytest.approx(deadline.at_s - least_s(told, request, EVEN))


def test_best_effort_goes_behind_when_it_is_more_likely_late_than_not() -> None:
    """A best-effort request counts as late once its median no longer fits, so that it takes no core from surer ones."""
    told = world()
    _, deadline, _, held = come(told)
    assert held.last_s == pytest.approx(deadline.at_s - 0.002, abs=1e-4)


def test_a_short_summary_does_not_wait_in_vain_sooner_than_it_would_be_done() -> None:
    """A summary with fewer tokens can wait longer before it is given up."""
    told = summarizing()
    router = told.service.router
    decider = router.scheduler.deciders["summarize"]
    pinned = replace(TERMS, pinned=SCRIBE)
    last_s = []
    for parameters in (SummarizeParameters(), SummarizeParameters(max_new_tokens=5)):
        request = replace(told.page(pinned), parameters=parameters)
        deadline = router.deadline(request)
        last_s.append(decider.queued(router.shape(request), pinned, deadline, told.clock()).last_s)
    assert last_s[0] < last_s[1] - 0.010


def begun(checkpoint: str, *members: QueuedRequest, price: float = 0.0) -> Batch:
    """Return a batch of these requests that can begin."""
    return Batch(checkpoint, members, threads=1, run_s=0.0, ends_s=0.0, price=price, left=len(members))


def test_what_is_bound_is_forecast_as_it_will_run() -> None:
    """A bound request is forecast on its batch's checkpoint, at its price, with its companions and remaining budget."""
    told = world()
    decider = decider_of(told)
    request, deadline, decision, held = come(told)
    others = [come(told)[3] for _ in range(3)]
    told.clock.advance(0.2)
    shape = told.service.router.shape(request)
    alone = decider.bind(shape, decision, begun(EVEN, held), deadline, told.clock())
    bound = decider.bind(shape, decision, begun(EVEN, held, *others, price=7.0), deadline, told.clock())
    for one in (alone, bound):
        assert one.chosen is not None and one.chosen.name == EVEN
        assert one.remaining_s == pytest.approx(0.8)
    assert bound.price == 7.0 and bound.degraded and bound.reason is Reason.CONGESTION
    together, single = (one.chosen.forecast for one in (bound, alone) if one.chosen)
    assert together is not None and single is not None
    assert together.service_time_s == pytest.approx(4 * single.service_time_s)
    assert together.cost_s == pytest.approx(single.cost_s)


def test_what_other_gateways_sent_is_in_what_is_bound() -> None:
    """The forecast of a bound request contains the backlog that other gateways have sent."""
    told = world()
    for name in (SWIFT, EVEN, GRAND):
        told.up(name, backlog_s=3.0)
    request, deadline, decision, held = come(told)
    assert decision.reason is Reason.BEST_EFFORT
    shape = told.service.router.shape(request)
    bound = decider_of(told).bind(shape, decision, begun(SWIFT, held), deadline, told.clock())
    assert bound.reason is Reason.BEST_EFFORT
    assert bound.chosen is not None and bound.chosen.forecast is not None
    assert bound.chosen.forecast.queueing_delay_s == pytest.approx(3.0)


def test_who_comes_behind_queued_requests_is_forecast_behind_those_more_urgent() -> None:
    """A request is forecast to wait for running batches and more urgent requests, and not for less urgent ones."""
    told = world()
    decider = decider_of(told)
    for budget_s in (1.0, 1.0, *[0.5] * 20, *[3.0] * 20):
        decider.queue.enter(come(told, replace(TERMS, budget_s=budget_s))[3])
    while decider.queue.next_batch(told.clock()):
        pass
    delays_s = []
    for budget_s in (0.4, 2.0, 4.0):
        request = told.request(replace(TERMS, budget_s=budget_s))
        decision = told.service.router.decide(request, told.service.router.deadline(request), 0.0, every=True)
        delays_s.append({one.forecast.queueing_delay_s for one in decision.candidates if one.forecast})
    assert [len(of_all) for of_all in delays_s] == [1, 1, 1]
    urgent_s, middling_s, patient_s = (of_all.pop() for of_all in delays_s)
    assert 0 < urgent_s <= middling_s <= patient_s


def test_a_price_is_not_reckoned_for_every_request() -> None:
    """The price is computed anew only after `PRICE_AGE_S`, not for every request."""
    told = world()
    decider = decider_of(told)
    assert decider.price(told.clock()) == 0.0
    told.clock.advance(2 * PRICE_AGE_S)
    for _ in range(20):
        decider.queue.enter(come(told)[3])
    first = decider.price(told.clock())
    for _ in range(400):
        decider.queue.enter(come(told)[3])
    told.clock.advance(0.5 * PRICE_AGE_S)
    assert decider.price(told.clock()) == first
    told.clock.advance(PRICE_AGE_S)
    assert decider.price(told.clock()) > first
