"""Laws of a budget for the first text beside that for the whole answer: the decision keeps both, or says what would."""

from __future__ import annotations

import math
from dataclasses import replace

from drawn_candidates import budgets, candidates, terms_of_any_kind
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import structs

from gateway.forecasting.forecaster import FirstToken
from gateway.model.request import Terms
from gateway.refusals import min_admitted_first_s, min_admitted_s, refused
from gateway.scheduling.policy import Candidate, Reason, Refusal, Verdict, decide

shares = st.lists(st.sampled_from([0.05, 0.3, 0.6, 1.0]), min_size=4, max_size=4)
firsts = st.one_of(st.floats(0.001, 1.0), st.sampled_from([0.05, 0.25]))


def with_firsts(offered: list[Candidate], of: list[float]) -> list[Candidate]:
    """The candidates, each with a forecast of its first text that is a share of that of its answer."""
    made = []
    for one, share in zip(offered, of, strict=False):
        whole = one.forecast
        if whole is not None:
            first = FirstToken(
                share * whole.latency_s, share * whole.quantile_s, share * whole.idle_quantile_s, share * whole.least_s
            )
            whole = structs.replace(whole, first=first)
        made.append(structs.replace(one, forecast=whole))
    return made


@given(candidates(), shares, budgets, firsts, terms_of_any_kind)
def test_only_what_fits_both_budgets_fits(
    offered: list[Candidate], of: list[float], remaining_s: float, first_s: float, terms: Terms
) -> None:
    """Who is chosen as fitting is forecast to tell its first text within its budget, and to end within the other."""
    decision = decide(with_firsts(offered, of), remaining_s, replace(terms, first_token_s=first_s))
    chosen = decision.chosen
    if chosen is not None and decision.reason in (Reason.FITS, Reason.CONGESTION, Reason.ONLY_CANDIDATE):
        assert chosen.forecast is not None and chosen.forecast.first is not None
        assert chosen.forecast.quantile_s <= remaining_s and chosen.forecast.first.quantile_s <= first_s
    for one in decision.assessed:
        if one.verdict is Verdict.FITS:
            assert one.candidate.forecast is not None and decision.room.holds(one.candidate.forecast)


@given(candidates(), shares, budgets, firsts, st.floats(0.0, 1.0), terms_of_any_kind)
def test_more_time_for_the_first_text_never_gives_a_lesser_checkpoint(
    offered: list[Candidate], of: list[float], remaining_s: float, first_s: float, more_s: float, terms: Terms
) -> None:
    """Whoever fits with less time for the first text fits with more, and without a budget for it."""
    made = with_firsts(offered, of)
    less = decide(made, remaining_s, replace(terms, first_token_s=first_s))
    assume(less.chosen is not None and less.reason not in (Reason.AT_RISK, Reason.BEST_EFFORT))
    for wider in (first_s + more_s, None):
        more = decide(made, remaining_s, replace(terms, first_token_s=wider))
        assert more.chosen is not None and less.chosen is not None and more.chosen.quality >= less.chosen.quality


@given(candidates(), shares, budgets, terms_of_any_kind)
def test_without_a_budget_for_it_the_first_text_changes_nothing(
    offered: list[Candidate], of: list[float], remaining_s: float, terms: Terms
) -> None:
    """A streamed request without that budget is decided as a plain one."""
    plain, streamed = decide(offered, remaining_s, terms), decide(with_firsts(offered, of), remaining_s, terms)
    assert (plain.chosen and plain.chosen.name) == (streamed.chosen and streamed.chosen.name)
    assert (plain.reason, plain.refusal) == (streamed.reason, streamed.refusal) and math.isinf(streamed.first_s)


@given(candidates(), shares, budgets, firsts, terms_of_any_kind)
def test_a_refusal_names_budgets_that_are_kept(
    offered: list[Candidate], of: list[float], remaining_s: float, first_s: float, terms: Terms
) -> None:
    """What an infeasible strict request is told it needs: an idle gateway takes it, and this one lets it in."""
    made, asked = with_firsts(offered, of), replace(terms, strict=True, first_token_s=first_s)
    decision = decide(made, remaining_s, asked)
    assume(decision.refusal is Refusal.INFEASIBLE)
    members = refused(decision).members
    whole_s, least_s = max(remaining_s, decision.min_feasible_s), decision.min_feasible_first_s
    assert members["min_feasible_first_token_ms"] >= least_s * 1000  # type: ignore[operator]
    again = decide(made, whole_s, replace(asked, first_token_s=max(first_s, least_s)))
    assert again.refusal in (None, Refusal.OVERLOADED)
    admitted_s, admitted_first_s = max(remaining_s, min_admitted_s(decision)), min_admitted_first_s(decision)
    let_in = decide(made, admitted_s, replace(asked, first_token_s=max(first_s, admitted_first_s)))
    assert let_in.refusal in (None, Refusal.OVERLOADED)
