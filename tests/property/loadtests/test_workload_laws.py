"""Laws of offered requests: their number and spacing follow the rate, and equal seeds give equal requests."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pstdev

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from small_scenarios import ONE, scenario

from loadtests.workload.arrivals import MOST_REQUESTS, Offered, RatePiece, instants, offered_of, rate_over_time
from loadtests.workload.files import ScenarioError
from loadtests.workload.scenario import RequestClass, Scenario, tokens_of

CVS = st.sampled_from([0.1, 0.5, 1.0, 2.0, 4.0])
SEEDS = st.integers(0, 2**40)
RATES = st.one_of(st.just(0.0), st.floats(0.1, 300.0))
PIECES = st.lists(st.builds(RatePiece, st.floats(0.01, 3.0), RATES, RATES), min_size=1, max_size=6)

MIXED = (
    RequestClass(share=3, budget_ms=(50, 100), words=(5, 60)),
    RequestClass(share=1, task="summarize", budget_ms=(500, 1000), words=(60, 300), texts=2, mode="strict", domain="d"),
)


def whole(seconds: float, rate_per_s: float) -> tuple[RatePiece, ...]:
    """A constant rate."""
    return (RatePiece(seconds, rate_per_s, rate_per_s),)


def offered(made: Scenario, load: float = 1.0, cv: float = 1.0, seed: int = 1) -> list[Offered]:
    """The requests of a run on the one classifier."""
    return offered_of(made, ONE, load, cv, seed)


def seen(requests: list[Offered]) -> list[tuple[object, ...]]:
    """Every attribute of the offered requests, to compare."""
    return [(r.sequence, r.task, r.arrived_s, r.budget_s, r.tokens, r.texts, r.strict, r.kind) for r in requests]


@given(PIECES, CVS, SEEDS)
@example([RatePiece(3.0, 0.0, 264.0)], 4.0, 1)  # two arrivals so near that rounding once changed their order
def test_arrivals_are_in_order_within_the_run_and_never_where_the_rate_is_nothing(
    pieces: list[RatePiece], cv: float, seed: int
) -> None:
    """Arrivals are in order and within the run, and none lies where the rate is zero."""
    arrived = list(instants(pieces, cv, random.Random(seed)))
    ends = [0.0]
    for piece in pieces:
        ends.append(ends[-1] + piece.seconds)
    assert all(earlier <= later for earlier, later in pairwise(arrived))
    assert all(0 <= at <= ends[-1] for at in arrived)
    for piece, (begin, end) in zip(pieces, pairwise(ends), strict=True):
        if piece.expected == 0:
            assert not [at for at in arrived if begin < at < end]


@given(st.floats(0.01, 100.0), RATES, RATES, st.floats(0.0, 1.0))
def test_the_rate_is_reached_when_it_is_due(seconds: float, begin: float, end: float, share: float) -> None:
    """`reached_s` is the inverse of the expected number of arrivals up to an instant."""
    piece = RatePiece(seconds, begin, end)
    if piece.expected == 0:
        return
    at = piece.reached_s(share * piece.expected)
    until = RatePiece(at, begin, begin + (end - begin) * at / seconds)
    assert 0 <= at <= seconds
    assert until.expected == pytest.approx(share * piece.expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("cv", [0.2, 1.0, 4.0])
def test_gaps_have_the_mean_and_the_coefficient_of_variation_asked_for(cv: float) -> None:
    """Gaps between arrivals have the requested mean (within 4 standard errors) and CV (within 6 %)."""
    arrived = list(instants(whole(100.0, 500.0), cv, random.Random(11)))
    gaps = [later - earlier for earlier, later in pairwise(arrived)]
    assert fmean(gaps) == pytest.approx(1 / 500, rel=4 * cv / len(gaps) ** 0.5)
    assert pstdev(gaps) / fmean(gaps) == pytest.approx(cv, rel=0.06)


@pytest.mark.parametrize("cv", [0.2, 1.0, 4.0])
def test_a_run_begins_like_any_other_moment(cv: float) -> None:
    """A run begins like any other moment: its first seconds offer as many requests as the rate says."""
    counts = [len(list(instants(whole(5.0, 1.0), cv, random.Random(seed)))) for seed in range(4000)]
    assert fmean(counts) == pytest.approx(5.0, abs=4 * pstdev(counts) / 4000**0.5)


def test_a_shape_in_time_is_followed_whatever_the_burstiness() -> None:
    """Steps and ramps are followed at any CV; the warm-up has the rate that they begin with."""
    steps = scenario(
        seconds=40.0,
        warmup_s=10.0,
        arrivals={"process": "step", "steps": [{"start_s": 10, "factor": 3}, {"start_s": 20, "factor": 0}]},
    )
    for cv in (0.5, 2.0):
        at = [request.arrived_s for request in offered(steps, cv=cv)]
        tens = [sum(begin <= one < begin + 10 for one in at) for begin in (0, 10, 20, 30, 40)]
        assert tens == pytest.approx([2000, 2000, 6000, 0, 0], rel=0.15)
    ramp = scenario(seconds=40.0, warmup_s=0.0, arrivals={"process": "ramp", "ramp": [0, 2]})
    at = [request.arrived_s for request in offered(ramp, cv=0.5)]
    tens = [sum(begin <= one < begin + 10 for one in at) for begin in (0, 10, 20, 30)]
    assert tens == pytest.approx([500, 1500, 2500, 3500], rel=0.05)


def test_a_later_step_than_the_run_never_comes() -> None:
    """A step after the end of the run changes nothing, and a step at 0 s leaves nothing before it."""
    late = scenario(
        seconds=5.0, warmup_s=0.0, arrivals={"steps": [{"start_s": 0, "factor": 2}, {"start_s": 9, "factor": 5}]}
    )
    assert rate_over_time(late, 10.0) == (RatePiece(5.0, 20.0, 20.0),)


def test_a_trace_has_the_mean_of_the_run_and_its_own_shape(tmp_path: Path) -> None:
    """A trace is scaled to the mean rate of the run and keeps its shape; without a load it is replayed as recorded."""
    file = tmp_path / "t.csv"
    file.write_text("start_s,rate_per_s\n7,10\n8,30\n", encoding="utf-8")
    trace = {"process": "trace", "trace": str(file)}
    scaled = scenario(seconds=3.0, warmup_s=2.0, loads=(1.0,), arrivals=trace)
    expected = [240, 120, 360, 120]  # a mean of 200/s over 10, 30, 10
    assert [piece.expected for piece in rate_over_time(scaled, 200.0)] == pytest.approx(expected)
    as_is = scenario(seconds=3.0, warmup_s=0.0, arrivals=trace)
    assert len(offered(as_is, cv=0.05)) == pytest.approx(50, abs=2)
    file.write_text("start_s,rate_per_s\n0,0\n5,30\n", encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"by-hand: arrivals.trace: offers nothing in its first 3 s"):
        offered(scaled)


@given(SEEDS, CVS)
def test_equal_seeds_offer_equal_requests_and_others_do_not(seed: int, cv: float) -> None:
    """Equal seeds offer equal requests, so that every policy meets the same ones; other seeds offer others."""
    short = scenario(seconds=0.3, warmup_s=0.2, requests=MIXED[:1])
    once = seen(offered(short, cv=cv, seed=seed))
    assert once == seen(offered(short, cv=cv, seed=seed))
    assert once != seen(offered(short, cv=cv, seed=seed + 1))
    assert [entry[0] for entry in once] == list(range(len(once)))


@given(SEEDS, st.floats(0.2, 3.0), CVS)
def test_load_and_burstiness_move_requests_and_change_nothing_else_of_them(seed: int, load: float, cv: float) -> None:
    """Load and CV move arrivals but change nothing else; at twice the load the n-th comes in half the time."""
    made = scenario(seconds=0.4, warmup_s=0.0, requests=MIXED[:1])
    one, other = offered(made, seed=seed, cv=cv), offered(made, load=load, seed=seed, cv=2.5)
    for left, right in zip(one, other, strict=False):
        assert (left.budget_s, left.tokens, left.kind) == (right.budget_s, right.tokens, right.kind)
    faster = offered(made, load=2 * load, seed=seed, cv=2.5)
    for left, right in zip(other, faster, strict=False):
        assert left.arrived_s == pytest.approx(2 * right.arrived_s)


def test_a_class_is_drawn_alike_whoever_else_is_there() -> None:
    """Requests of one class have equal budgets and lengths whatever other classes there are."""
    given_rate = {"rate_per_s": 500.0}
    alone = offered(scenario(requests=MIXED[:1], arrivals=given_rate))
    beside = [request for request in offered(scenario(requests=MIXED, arrivals=given_rate)) if request.kind == 0]
    assert len(beside) > 1000
    for left, right in zip(alone, beside, strict=False):
        assert (left.budget_s, left.tokens) == (right.budget_s, right.tokens)


def test_requests_are_what_their_class_says() -> None:
    """Requests follow their class: its share, budgets and lengths uniform over its ranges, and the rest as given."""
    made = offered(scenario(requests=MIXED, arrivals={"rate_per_s": 500.0}))
    first, second = ([request for request in made if request.kind == kind] for kind in (0, 1))
    assert len(first) / len(made) == pytest.approx(0.75, abs=0.02)
    for of_kind, asked in ((first, MIXED[0]), (second, MIXED[1])):
        low_s, high_s = (budget_ms / 1000 for budget_ms in asked.budget_ms)
        assert all(low_s <= request.budget_s <= high_s for request in of_kind)
        assert fmean(request.budget_s for request in of_kind) == pytest.approx((low_s + high_s) / 2, rel=0.02)
        least, most = (tokens_of(words) for words in asked.words)
        assert {least, most} <= {request.tokens for request in of_kind} <= set(range(least, most + 1))
    told = {(r.task, r.texts, r.strict, r.percentile, r.domain) for r in second}
    assert told == {("summarize", 2, True, 95.0, "d")}
    assert {(r.task, r.strict, r.domain) for r in first} == {("classify", False, None)}


def test_poisson_is_poisson_whatever_the_run_says() -> None:
    """The Poisson process has a CV of 1, whatever CV the run has."""
    made = scenario(arrivals={"process": "poisson"})
    assert seen(offered(made, cv=4.0)) == seen(offered(scenario(), cv=1.0))


def test_a_run_that_would_not_fit_is_refused() -> None:
    """A run with too many requests is refused with their number before any is drawn."""
    with pytest.raises(ScenarioError, match=rf"at load 1 would offer 1e\+09 requests, more than {MOST_REQUESTS}"):
        offered(scenario(seconds=10.0, warmup_s=0.0, arrivals={"rate_per_s": 1e8}))
