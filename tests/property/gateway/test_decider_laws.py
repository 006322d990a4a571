"""Laws of the decider with forecasts, load and running batches, at one price and one load."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fakes import TERMS, latency_profile, reraise
from hypothesis import given
from hypothesis import strategies as st
from worlds import summarizing, world

from gateway.forecasting.forecaster import Forecaster, PooledCalibration, ServedCheckpoint
from gateway.forecasting.load import LoadTracker, QueueAhead
from gateway.model.deadline import Deadline
from gateway.model.messages import LoadReport
from gateway.model.request import RequestShape, Terms
from gateway.model.tier import Tier
from gateway.scheduling.policy import Decision
from gateway.scheduling.scheduler import Decider
from gateway.tasks.classify import ClassifyParameters
from gateway.tasks.service_time import BatchedModel

NOW_S = 1000.0
ASKED = RequestShape(((13,),), ClassifyParameters())
budgets = st.one_of(st.floats(0.0001, 0.3), st.sampled_from([0.002, 0.01, 0.05, 1.0, 60.0]))
prices = st.sampled_from([0.0, 20.0, 200.0, 2000.0, 1e6])
percentiles = st.sampled_from([50.0, 95.0, 99.9])
terms_of_any_kind = st.builds(
    Terms,
    strict=st.booleans(),
    min_tier=st.one_of(st.none(), st.sampled_from(Tier)),
    pinned=st.one_of(st.none(), st.none(), st.sampled_from(["a", "b"])),
    domain=st.sampled_from([None, "law"]),
    able=st.one_of(st.none(), st.none(), st.frozensets(st.sampled_from("abcd"), min_size=1)),
)


@dataclass(frozen=True)
class Drawn:
    """A checkpoint as hypothesis draws it. `learnt` are the latencies of answers it has given; `ahead_s` is queued."""

    name: str
    tier: Tier
    quality: float
    median_s: float
    domain: str | None
    threads: int
    ahead_s: float | None
    learnt: Sequence[float]


@st.composite
def checkpoints(draw: st.DrawFn) -> list[Drawn]:
    """Draw up to four checkpoints; some are equal in quality, down, queued by other gateways, or have given answers."""
    return [
        Drawn(
            name,
            draw(st.sampled_from(Tier)),
            draw(st.sampled_from([80.0, 85.0, 90.0])),
            draw(st.sampled_from([0.001, 0.005, 0.05])),
            draw(st.sampled_from([None, None, None, "law"])),
            draw(st.sampled_from([1, 2])),
            draw(st.sampled_from([None, 0.0, 0.0, 0.004, 0.1])),
            draw(st.sampled_from([(), (0.01,) * 50, (0.0005, 0.2) * 30])),
        )
        for name in "abcd"[: draw(st.integers(1, 4))]
    ]


def decider_of(drawn: Sequence[Drawn], under_way: int) -> Decider:
    """Return a decider of these on four cores, with running batches where they fit and an empty queue."""
    pooled = PooledCalibration()
    load = LoadTracker()
    served = {}
    for one in sorted(drawn, key=lambda one: one.name):
        forecaster = Forecaster(BatchedModel(latency_profile(one.median_s), 64), pooled, one.threads)
        past = forecaster.forecast(ASKED, QueueAhead(0.0), 95.0, NOW_S, 1.0)
        for latency_s in one.learnt:
            forecaster.learn_latency(past, latency_s, 0.001, NOW_S)
        if one.ahead_s is not None:
            load.reported(one.name, "replica", LoadReport(one.ahead_s, 0, cores=4.0), NOW_S)
        served[one.name] = ServedCheckpoint(
            one.name, one.tier, one.quality, one.quality, one.domain, forecaster, load, one.threads, 4
        )
    decider = Decider([served[one.name] for one in drawn], load, reraise)
    for _ in range(under_way):
        decider.arrived(ASKED, Deadline(NOW_S, 1.0))
        decision = decider.decide(ASKED, Terms(), Deadline(NOW_S, 1.0), NOW_S, 0.0)
        if decision.chosen is not None:
            decider.queue.enter(decider.queued(ASKED, Terms(), Deadline(NOW_S, 1.0), NOW_S))
    decider.queue.expired(NOW_S)
    while decider.queue.next_batch(NOW_S):
        pass
    return decider


def quality_given(decision: Decision) -> float:
    """Return the quality of the choice, or -1 for a refusal."""
    return decision.chosen.quality if decision.chosen else -1.0


@given(checkpoints(), st.integers(0, 3), budgets, budgets, terms_of_any_kind, percentiles, prices)
def test_more_time_is_never_worse(
    drawn: list[Drawn], under_way: int, one_s: float, other_s: float, terms: Terms, percentile: float, price: float
) -> None:
    """At one price and load a client that grants more time is never given a worse checkpoint, nor refused for it."""
    decider = decider_of(drawn, under_way)
    less, more = (
        decider.decide(ASKED, replace(terms, percentile=percentile), Deadline(NOW_S, budget_s), NOW_S, price)
        for budget_s in sorted((one_s, other_s))
    )
    assert quality_given(more) >= quality_given(less)


@given(checkpoints(), budgets, terms_of_any_kind, percentiles, prices, st.randoms(use_true_random=False))
def test_the_order_of_checkpoints_never_matters(
    drawn: list[Drawn], budget_s: float, terms: Terms, percentile: float, price: float, chance: random.Random
) -> None:
    """The decision and the place in the queue do not depend on the order of the catalog."""
    shuffled = drawn.copy()
    chance.shuffle(shuffled)
    deadline = Deadline(NOW_S, budget_s)
    told = []
    for those in (drawn, shuffled):
        decider = decider_of(those, 0)
        decision = decider.decide(ASKED, replace(terms, percentile=percentile), deadline, NOW_S, price)
        held = (
            decider.queued(ASKED, replace(terms, percentile=percentile), deadline, NOW_S) if decision.chosen else None
        )
        waits = held and (held.deadline_s, held.last_s, held.eligible)
        told.append((decision.chosen, decision.reason, decision.refusal, decision.degraded, waits))
    assert told[0] == told[1]


@given(checkpoints(), st.integers(0, 3), budgets, terms_of_any_kind, percentiles, prices)
def test_looking_no_further_than_matters_decides_the_same(
    drawn: list[Drawn], under_way: int, budget_s: float, terms: Terms, percentile: float, price: float
) -> None:
    """The decider decides on few candidates as `/route` does on all."""
    decider = decider_of(drawn, under_way)
    brief, whole = (
        decider.decide(ASKED, replace(terms, percentile=percentile), Deadline(NOW_S, budget_s), NOW_S, price, every=of)
        for of in (False, True)
    )
    assert (brief.chosen, brief.reason, brief.refusal) == (whole.chosen, whole.reason, whole.refusal)


@given(checkpoints(), st.integers(0, 3), budgets, terms_of_any_kind, percentiles, prices)
def test_who_is_let_in_does_not_wait_in_vain_from_the_first(
    drawn: list[Drawn], under_way: int, budget_s: float, terms: Terms, percentile: float, price: float
) -> None:
    """An admitted strict request can still be in time when it is queued, so it never waits in vain from the start."""
    decider = decider_of(drawn, under_way)
    deadline = Deadline(NOW_S, budget_s)
    strict = replace(terms, strict=True, percentile=percentile)
    decision = decider.decide(ASKED, strict, deadline, NOW_S, price)
    if decision.chosen is not None:
        held = decider.queued(ASKED, strict, deadline, NOW_S)
        assert held.last_s >= NOW_S - 1e-9 and not decider.queue.stranded(held)


@given(budgets, budgets, st.booleans(), prices, st.sampled_from([0.0, 0.02, 1.0]), st.sampled_from([None, "software"]))
def test_more_time_is_never_worse_for_a_summary(
    one_s: float, other_s: float, strict: bool, price: float, backlog_s: float, domain: str | None
) -> None:
    """A client that grants more time for a summary is never given a worse checkpoint."""
    told = summarizing()
    told.up("study", backlog_s, sharing=2 if backlog_s else None)
    router = told.service.router
    qualities = []
    for budget_s in sorted((one_s, other_s)):
        request = told.page(replace(TERMS, budget_s=budget_s, strict=strict), domain)
        qualities.append(quality_given(router.decide(request, router.deadline(request), price)))
    assert qualities[1] >= qualities[0]


@given(budgets, budgets, st.booleans(), prices, st.sampled_from([0.0, 0.02, 1.0]))
def test_more_time_is_never_worse_for_labels(
    one_s: float, other_s: float, strict: bool, price: float, backlog_s: float
) -> None:
    """A client that grants more time for a classification is never given a worse checkpoint."""
    told = world()
    told.up("even", backlog_s)
    router = told.service.router
    qualities = []
    for budget_s in sorted((one_s, other_s)):
        request = told.request(replace(TERMS, budget_s=budget_s, strict=strict))
        qualities.append(quality_given(router.decide(request, router.deadline(request), price)))
    assert qualities[1] >= qualities[0]
