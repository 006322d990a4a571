"""Laws of the decision, for any candidates, any budget and any terms."""

from __future__ import annotations

import dataclasses
import random

from drawn_candidates import allowed, budgets, candidates, prices, terms_of_any_kind, up
from hypothesis import event, given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.forecasting.forecaster import Forecast
from gateway.model.request import Terms
from gateway.scheduling.policy import Candidate, Decision, Reason, Refusal, Verdict, decide


def quality_given(decision: Decision) -> float:
    """Return the quality of the choice, or less than any for a refusal."""
    return decision.chosen.quality if decision.chosen else -1.0


@given(candidates(), budgets, budgets, terms_of_any_kind, prices)
def test_more_time_is_never_worse(
    offered: list[Candidate], one_s: float, other_s: float, terms: Terms, price: float
) -> None:
    """At one price a client that grants more time is never given a worse checkpoint, nor refused for it."""
    less = decide(offered, min(one_s, other_s), terms, price=price)
    more = decide(offered, max(one_s, other_s), terms, price=price)
    assert quality_given(more) >= quality_given(less)


@given(candidates(), budgets, terms_of_any_kind, prices, st.randoms(use_true_random=False))
def test_the_order_of_candidates_never_matters(
    offered: list[Candidate], remaining_s: float, terms: Terms, price: float, chance: random.Random
) -> None:
    """The decision does not depend on the order of the candidates."""
    shuffled = offered.copy()
    chance.shuffle(shuffled)
    one, other = (decide(those, remaining_s, terms, price=price) for those in (offered, shuffled))
    assert one.assessed == other.assessed
    assert replace(one, candidates=()) == replace(other, candidates=())


@given(candidates(), budgets, terms_of_any_kind)
def test_strict_refuses_only_what_cannot_be_in_time(offered: list[Candidate], remaining_s: float, terms: Terms) -> None:
    """Strict admits exactly if a quantile or an optimistic forecast fits, and says which of the two."""
    decision = decide(offered, remaining_s, dataclasses.replace(terms, strict=True))
    able = up(offered, terms)
    fitting = [forecast for forecast in able.values() if forecast.quantile_s <= remaining_s]
    hoped = any(forecast.least_s <= remaining_s for forecast in able.values())
    assert (decision.chosen is not None) == bool(fitting or hoped)
    if decision.chosen is not None:
        assert (decision.reason is Reason.AT_RISK) == (not fitting)
        if fitting:
            assert decision.chosen.forecast in fitting
        else:
            assert able[decision.chosen.name].quantile_s == min(one.quantile_s for one in able.values())


@given(candidates(), budgets, terms_of_any_kind)
def test_best_effort_always_answers_where_anything_is_up(
    offered: list[Candidate], remaining_s: float, terms: Terms
) -> None:
    """Best effort answers whenever an allowed checkpoint is up, and takes the fastest where none fits."""
    decision = decide(offered, remaining_s, dataclasses.replace(terms, strict=False))
    able = up(offered, terms)
    assert (decision.chosen is not None) == bool(able)
    if decision.chosen is None:
        eligible = any(allowed(one, terms) for one in offered)
        assert decision.refusal is (Refusal.UNAVAILABLE if eligible else Refusal.NO_CANDIDATE)
    elif all(forecast.quantile_s > remaining_s for forecast in able.values()):
        assert able[decision.chosen.name].quantile_s == min(forecast.quantile_s for forecast in able.values())


@given(candidates(), budgets, terms_of_any_kind)
def test_the_best_that_fits_is_chosen(offered: list[Candidate], remaining_s: float, terms: Terms) -> None:
    """Of the candidates that fit, the best is chosen, and the faster of two equally good ones."""
    decision = decide(offered, remaining_s, terms)
    able = up(offered, terms)
    fitting = [one for one in offered if one.name in able and able[one.name].quantile_s <= remaining_s]
    if fitting:
        assert decision.chosen in fitting
        best = min(fitting, key=lambda one: (-one.quality, able[one.name].quantile_s, one.name))
        assert decision.chosen == best


@given(candidates(), budgets, terms_of_any_kind)
def test_only_what_the_terms_allow_is_given(offered: list[Candidate], remaining_s: float, terms: Terms) -> None:
    """A request is never given a checkpoint that its pin, tier or domain forbids."""
    chosen = decide(offered, remaining_s, terms).chosen
    assert chosen is None or (allowed(chosen, terms) and chosen.forecast is not None)


@given(candidates(), budgets, terms_of_any_kind)
def test_reason_and_verdicts_tell_one_story(offered: list[Candidate], remaining_s: float, terms: Terms) -> None:
    """A decision has either a choice with a reason or a refusal, and its reason agrees with the verdicts."""
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
    at_risk = terms.strict and verdict is not Verdict.FITS
    assert (decision.reason is Reason.AT_RISK) == at_risk
    assert (decision.reason is Reason.PINNED) == (terms.pinned is not None and not at_risk)
    assert (decision.reason is Reason.BEST_EFFORT) == (
        verdict is not Verdict.FITS and terms.pinned is None and not terms.strict
    )
    if decision.reason is Reason.CONGESTION:
        assert Verdict.CONGESTED in better
    if decision.reason in (Reason.FITS, Reason.ONLY_CANDIDATE):
        assert Verdict.CONGESTED not in better
        assert (len(up(offered, terms)) == 1) == (decision.reason is Reason.ONLY_CANDIDATE)


def after_s(forecast: Forecast, wait_s: float) -> float:
    """Return the quantile after a wait, in which the backlog shrinks."""
    return forecast.quantile_s - max(forecast.queueing_delay_s - (forecast.backlog_s - wait_s), 0.0)


@given(candidates(), st.floats(0.0, 1.0), terms_of_any_kind)
def test_overload_is_told_from_what_can_never_be(offered: list[Candidate], share: float, terms: Terms) -> None:
    """A refusal is OVERLOADED exactly if an idle gateway would fit the request, and its Retry-After then suffices.

    The budget is always below the optimistic forecast of every checkpoint that is up, so strict refuses.
    """
    able = up(offered, terms)
    least_s = min((forecast.least_s for forecast in able.values()), default=1.0)
    from_s = min((forecast.idle_quantile_s for forecast in able.values()), default=1.0)
    remaining_s = (from_s + share * (least_s - from_s) if from_s < least_s else share * least_s) - 1e-6
    decision = decide(offered, remaining_s, dataclasses.replace(terms, strict=True))
    assert (decision.refusal in (Refusal.OVERLOADED, Refusal.INFEASIBLE)) == bool(able)
    would_fit = any(forecast.idle_quantile_s <= remaining_s for forecast in able.values())
    assert (decision.refusal is Refusal.OVERLOADED) == would_fit
    event("overloaded" if would_fit else "not")
    if would_fit:
        assert decision.retry_after_s > 0
        assert any(
            after_s(forecast, decision.retry_after_s) <= remaining_s + 1e-9
            for forecast in able.values()
            if forecast.idle_quantile_s <= remaining_s
        )


@given(candidates(), st.floats(0.0, 1.0), terms_of_any_kind, st.floats(0.0, 0.5))
def test_the_least_feasible_budget_is_enough(
    offered: list[Candidate], share: float, terms: Terms, elapsed_s: float
) -> None:
    """The budget that an INFEASIBLE refusal names fits an idle gateway, and nothing fits with less.

    It includes the part of the budget that had passed before the decision.
    """
    strict = dataclasses.replace(terms, strict=True)
    able = up(offered, terms).values()
    remaining_s = share * min((min(one.least_s, one.idle_quantile_s) for one in able), default=1.0) - 1e-6
    decision = decide(offered, remaining_s, strict, elapsed_s)
    assert (decision.refusal is Refusal.INFEASIBLE) == bool(able)
    if not able:
        return
    idle = [
        replace(one, forecast=replace(one.forecast, quantile_s=one.forecast.idle_quantile_s)) if one.forecast else one
        for one in offered
    ]
    left_s = decision.min_feasible_s - elapsed_s
    enough, less = (decide(idle, of * left_s, strict) for of in (1 + 1e-9, 0.999))
    assert enough.chosen is not None and enough.reason is not Reason.AT_RISK
    assert less.refusal is Refusal.INFEASIBLE or less.reason is Reason.AT_RISK


@given(candidates(), budgets, terms_of_any_kind)
def test_a_replica_lost_never_gives_a_better_checkpoint(
    offered: list[Candidate], remaining_s: float, terms: Terms
) -> None:
    """Losing a replica never gives a strict client a better checkpoint that fits, nor makes one fit."""
    strict = dataclasses.replace(terms, strict=True)
    before = decide(offered, remaining_s, strict)
    for at, one in enumerate(offered):
        after = decide([*offered[:at], replace(one, forecast=None), *offered[at + 1 :]], remaining_s, strict)
        if after.chosen is not None and after.reason is not Reason.AT_RISK:
            assert before.reason is not Reason.AT_RISK
            assert quality_given(after) <= quality_given(before)
