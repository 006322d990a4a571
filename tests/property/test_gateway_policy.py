"""Laws of the decision, for any candidates, any budget and any terms."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.catalog import Tier
from gateway.forecast import Forecast
from gateway.policy import Candidate, Decision, Reason, Refusal, Terms, Verdict, decide

NAMES = ("a", "b", "c", "d")
DOMAINS = (None, None, None, "law", "news")
budgets = st.one_of(st.floats(-0.5, 2.0), st.sampled_from([0.0, 0.1, 0.25, 1.0]))
tight = st.floats(0.0, 0.3)
seconds = st.one_of(st.floats(0.001, 1.0), st.sampled_from([0.1, 0.25, 1.0]))


@st.composite
def forecasts(draw: st.DrawFn) -> Forecast:
    """Any forecast whose quantile behind a queue is no less than with nothing queued."""
    idle_s, queue_s = draw(seconds), draw(st.one_of(st.just(0.0), seconds))
    return Forecast(queue_s, idle_s / 2, queue_s + idle_s / 2, queue_s + idle_s, idle_s)


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    """Up to four checkpoints, some equal in quality, some down, some of one domain."""
    return [
        Candidate(
            name,
            draw(st.sampled_from(list(Tier))),
            draw(st.sampled_from([70.0, 80.0, 80.0, 90.0])),
            draw(st.sampled_from(DOMAINS)),
            draw(st.one_of(st.none(), forecasts(), forecasts(), forecasts())),
        )
        for name in NAMES[: draw(st.integers(0, 4))]
    ]


terms_of_any_kind = st.builds(
    Terms,
    strict=st.booleans(),
    min_tier=st.one_of(st.none(), st.sampled_from(list(Tier))),
    pinned=st.one_of(st.none(), st.none(), st.sampled_from(NAMES)),
    domain=st.sampled_from(DOMAINS),
)


def allowed(candidate: Candidate, terms: Terms) -> bool:
    """Whether the request's terms allow the candidate, written anew from the contract."""
    if terms.min_tier is not None and candidate.tier.rank < terms.min_tier.rank:
        return False
    if terms.pinned is not None:
        return candidate.name == terms.pinned
    return candidate.domain in (None, terms.domain)


def up(offered: list[Candidate], terms: Terms) -> dict[str, Forecast]:
    """The forecasts of those that are allowed and up."""
    return {one.name: one.forecast for one in offered if one.forecast is not None and allowed(one, terms)}


def quality_given(decision: Decision) -> float:
    """The quality answered with; less than any where nothing is."""
    return decision.chosen.quality if decision.chosen else -1.0


@given(candidates(), budgets, budgets, terms_of_any_kind)
def test_more_time_is_never_worse(offered: list[Candidate], one_s: float, other_s: float, terms: Terms) -> None:
    """A client that grants more time is never given a worse checkpoint, nor refused where less was enough."""
    less = decide(offered, min(one_s, other_s), terms)
    more = decide(offered, max(one_s, other_s), terms)
    assert quality_given(more) >= quality_given(less)


@given(candidates(), budgets, terms_of_any_kind, st.randoms(use_true_random=False))
def test_the_order_of_candidates_never_matters(
    offered: list[Candidate], remaining_s: float, terms: Terms, chance: random.Random
) -> None:
    """The decision is about a set."""
    shuffled = offered.copy()
    chance.shuffle(shuffled)
    assert decide(shuffled, remaining_s, terms) == decide(offered, remaining_s, terms)


@given(candidates(), budgets, terms_of_any_kind)
def test_strict_never_admits_what_is_forecast_to_be_late(
    offered: list[Candidate], remaining_s: float, terms: Terms
) -> None:
    """In strict mode the chosen quantile is within what remains; and what is within it is never refused."""
    decision = decide(offered, remaining_s, replace(terms, strict=True))
    fitting = [forecast for forecast in up(offered, terms).values() if forecast.quantile_s <= remaining_s]
    assert (decision.chosen is not None) == bool(fitting)
    assert decision.chosen is None or decision.chosen.forecast in fitting


@given(candidates(), budgets, terms_of_any_kind)
def test_best_effort_always_answers_where_anything_is_up(
    offered: list[Candidate], remaining_s: float, terms: Terms
) -> None:
    """Best effort refuses only where nothing that is allowed is up, and where nothing fits it takes the fastest."""
    decision = decide(offered, remaining_s, replace(terms, strict=False))
    able = up(offered, terms)
    assert (decision.chosen is not None) == bool(able)
    if decision.chosen is None:
        eligible = any(allowed(one, terms) for one in offered)
        assert decision.refusal is (Refusal.UNAVAILABLE if eligible else Refusal.NO_CANDIDATE)
    elif all(forecast.quantile_s > remaining_s for forecast in able.values()):
        assert able[decision.chosen.name].quantile_s == min(forecast.quantile_s for forecast in able.values())


@given(candidates(), budgets, terms_of_any_kind)
def test_the_best_that_fits_is_chosen(offered: list[Candidate], remaining_s: float, terms: Terms) -> None:
    """Of those that fit none is better than the chosen one, nor as good and faster."""
    decision = decide(offered, remaining_s, terms)
    able = up(offered, terms)
    fitting = [one for one in offered if one.name in able and able[one.name].quantile_s <= remaining_s]
    if fitting:
        assert decision.chosen in fitting
        best = min(fitting, key=lambda one: (-one.quality, able[one.name].quantile_s, one.name))
        assert decision.chosen == best


@given(candidates(), budgets, terms_of_any_kind)
def test_only_what_the_terms_allow_is_given(offered: list[Candidate], remaining_s: float, terms: Terms) -> None:
    """A pin gives the pinned, a tier no less, and a domain's checkpoint only those who name the domain or pin it."""
    chosen = decide(offered, remaining_s, terms).chosen
    assert chosen is None or (allowed(chosen, terms) and chosen.forecast is not None)


@given(candidates(), budgets, terms_of_any_kind)
def test_reason_and_verdicts_tell_one_story(offered: list[Candidate], remaining_s: float, terms: Terms) -> None:
    """Either chosen with a reason or refused; every candidate has its verdict, and the reason follows from those."""
    decision = decide(offered, remaining_s, terms)
    assert (decision.chosen is None) == (decision.reason is None) == (decision.refusal is not None)
    verdicts = {one.candidate.name: one.verdict for one in decision.assessed}
    assert sorted(verdicts) == sorted(one.name for one in offered)
    assert all(verdicts[one.name].eligible == allowed(one, terms) for one in offered)
    ranks = [one.candidate.quality for one in decision.assessed]
    assert ranks == sorted(ranks, reverse=True)
    if decision.chosen is None:
        assert Verdict.FITS not in verdicts.values()
        return
    better = {verdicts[one.name] for one in offered if one.quality > decision.chosen.quality}
    verdict = verdicts[decision.chosen.name]
    assert (decision.reason is Reason.PINNED) == (terms.pinned is not None)
    assert (decision.reason is Reason.BEST_EFFORT) == (verdict is not Verdict.FITS and terms.pinned is None)
    if decision.reason is Reason.CONGESTION:
        assert Verdict.CONGESTED in better
    if decision.reason in (Reason.FITS, Reason.ONLY_CANDIDATE):
        assert Verdict.CONGESTED not in better
        assert (len(up(offered, terms)) == 1) == (decision.reason is Reason.ONLY_CANDIDATE)


@given(candidates(), tight, terms_of_any_kind)
def test_overload_is_told_from_what_can_never_be(offered: list[Candidate], remaining_s: float, terms: Terms) -> None:
    """OVERLOADED exactly where something allowed and up would fit an idle gateway; waiting as told then suffices."""
    decision = decide(offered, remaining_s, replace(terms, strict=True))
    able = up(offered, terms)
    assume(decision.refusal in (Refusal.OVERLOADED, Refusal.INFEASIBLE))
    would_fit = any(forecast.idle_quantile_s <= remaining_s for forecast in able.values())
    assert (decision.refusal is Refusal.OVERLOADED) == would_fit
    if would_fit:
        assert decision.retry_after_s > 0
        after = [
            forecast.quantile_s - decision.retry_after_s <= remaining_s + 1e-9
            for forecast in able.values()
            if forecast.idle_quantile_s <= remaining_s
        ]
        assert any(after)


@given(candidates(), tight, terms_of_any_kind, st.floats(0.0, 0.5))
def test_the_least_feasible_budget_is_enough(
    offered: list[Candidate], remaining_s: float, terms: Terms, elapsed_s: float
) -> None:
    """Who comes back to an idle gateway with the budget that an INFEASIBLE refusal names is admitted; less is not.

    What had gone by of the budget before the decision is in it, and goes by again.
    """
    strict = replace(terms, strict=True)
    decision = decide(offered, remaining_s, strict, elapsed_s)
    assume(decision.refusal is Refusal.INFEASIBLE)
    idle = [
        replace(one, forecast=replace(one.forecast, quantile_s=one.forecast.idle_quantile_s)) if one.forecast else one
        for one in offered
    ]
    left_s = decision.min_feasible_s - elapsed_s
    assert decide(idle, left_s * (1 + 1e-9), strict).chosen is not None
    assert decide(idle, left_s * 0.999, strict).refusal is Refusal.INFEASIBLE


@given(candidates(), budgets, terms_of_any_kind)
def test_a_replica_lost_never_gives_a_better_checkpoint(
    offered: list[Candidate], remaining_s: float, terms: Terms
) -> None:
    """Taking any one candidate down never improves what a strict client gets."""
    strict = replace(terms, strict=True)
    before = quality_given(decide(offered, remaining_s, strict))
    for at, one in enumerate(offered):
        fewer = [*offered[:at], replace(one, forecast=None), *offered[at + 1 :]]
        assert quality_given(decide(fewer, remaining_s, strict)) <= before
