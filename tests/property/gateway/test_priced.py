"""Laws of the decision at a price for a core-second, and of how many candidates must be looked at."""

from __future__ import annotations

from drawn_candidates import budgets, candidates, prices, terms_of_any_kind, up
from hypothesis import given
from msgspec.structs import replace

from gateway.forecasting.forecaster import Forecast
from gateway.model.request import Terms
from gateway.model.tier import Tier
from gateway.scheduling.policy import Candidate, Reason, Refusal, Room, Shortlist, Verdict, decide, first_left_s


@given(candidates(), budgets, terms_of_any_kind, prices, prices)
def test_a_higher_price_never_gives_a_better_checkpoint(
    offered: list[Candidate], remaining_s: float, terms: Terms, one: float, other: float
) -> None:
    """A higher price never gives a better checkpoint, where a better one also costs more."""
    dearer = [replace(c, forecast=replace(c.forecast, cost_s=c.quality / 1000)) if c.forecast else c for c in offered]
    low, high = (decide(dearer, remaining_s, terms, price=price) for price in sorted((one, other)))
    assert high.ceiling <= low.ceiling


@given(candidates(), budgets, terms_of_any_kind, prices)
def test_nothing_is_given_over_what_is_worth_most_after_its_cost(
    offered: list[Candidate], remaining_s: float, terms: Terms, price: float
) -> None:
    """No checkpoint is chosen above the one with the highest utility after its cost."""
    decision = decide(offered, remaining_s, terms, price=price)
    able = [one for one in offered if one.name in up(offered, terms)]
    if decision.chosen is None or not price:
        return
    left = {one.name: one.utility - price * one.forecast.cost_s for one in able if one.forecast}
    best = max(able, key=lambda one: (left[one.name], one.quality))
    assert decision.chosen.quality <= best.quality == decision.ceiling
    assert (decision.price, decision.remaining_s) == (price, remaining_s)


@given(candidates(), budgets, terms_of_any_kind, prices)
def test_only_as_many_are_looked_at_as_matter(
    offered: list[Candidate], remaining_s: float, terms: Terms, price: float
) -> None:
    """Looking at candidates best first until the search is over decides as looking at all does."""
    ordered = sorted(offered, key=lambda one: -one.quality)
    seen: list[Candidate] = []
    search: Shortlist | None = None
    for one in ordered:
        if search is not None and search.over(one.quality, one.utility):
            break
        seen.append(one)
        if search is not None:
            search.look(one)
        elif one.forecast is not None and Room(remaining_s, first_left_s(terms, 0.0)).holds(one.forecast):
            search = Shortlist(seen, Room(remaining_s, first_left_s(terms, 0.0)), terms, price)
    part, whole = (decide(those, remaining_s, terms, price=price) for those in (seen, ordered))
    assert (part.chosen, part.reason, part.refusal) == (whole.chosen, whole.reason, whole.refusal)
    assert part.degraded == whole.degraded


def test_the_search_ends_where_the_best_fits() -> None:
    """Where many candidates fit, only the best two are looked at, at a price of 0 and at a low one."""
    quick = Forecast(0.0, 0.01, 0.01, 0.02, 0.02, 0.01, cost_s=0.01)
    ordered = [Candidate(f"c{n}", Tier.QUALITY, 90.0 - n, None, quick, 90.0 - n) for n in range(30)]
    for price in (0.0, 50.0):
        search = Shortlist(ordered[:1], Room(1.0), Terms(), price)
        assert not search.over(ordered[1].quality, ordered[1].utility)
        search.look(ordered[1])
        assert search.over(ordered[2].quality, ordered[2].utility)


@given(candidates(), budgets, terms_of_any_kind, prices)
def test_what_the_price_ruled_out_is_told(
    offered: list[Candidate], remaining_s: float, terms: Terms, price: float
) -> None:
    """A candidate is too dear exactly if it is in time and above the ceiling; a lesser choice then names congestion."""
    decision = decide(offered, remaining_s, terms, price=price)
    able = up(offered, terms)
    dear = {one.candidate.name for one in decision.assessed if one.verdict is Verdict.TOO_DEAR}
    assert dear == {
        one.name
        for one in offered
        if one.name in able and able[one.name].quantile_s <= remaining_s and one.quality > decision.ceiling
    }
    assert price > 0 or not dear
    if dear and decision.reason not in (Reason.PINNED, Reason.AT_RISK, Reason.BEST_EFFORT, None):
        assert decision.reason is Reason.CONGESTION
        assert decision.degraded


def test_a_price_decides_between_worth_and_cost() -> None:
    """A better checkpoint is chosen up to the price at which its gain in quality equals its additional cost."""
    small = Candidate("small", Tier.REALTIME, 1.0, None, Forecast(0.0, 0.1, 0.1, 0.2, 0.2, 0.05, 0.1), 80.0)
    large = Candidate("large", Tier.QUALITY, 2.0, None, Forecast(0.0, 0.2, 0.2, 0.4, 0.4, 0.1, 0.2), 90.0)
    at = {price: decide((small, large), 1.0, Terms(), price=price) for price in (0.0, 100.0, 101.0)}
    assert [one.chosen and one.chosen.name for one in at.values()] == ["large", "large", "small"]
    assert [one.reason for one in at.values()] == [Reason.FITS, Reason.FITS, Reason.CONGESTION]
    assert [one.verdict for one in at[101.0].assessed] == [Verdict.TOO_DEAR, Verdict.FITS]
    strict = decide((small, large), 0.01, Terms(strict=True), price=101.0)
    assert strict.refusal is not None and strict.min_feasible_s == 0.2


def test_what_is_too_dear_is_no_way_out() -> None:
    """Where nothing fits, the fastest checkpoint under the ceiling is chosen, never one that is too dear."""
    quick = Candidate("quick", Tier.QUALITY, 2.0, None, Forecast(0.0, 0.1, 0.1, 0.2, 0.2, 0.05, 0.9), 90.0)
    slow = Candidate("slow", Tier.REALTIME, 1.0, None, Forecast(0.0, 0.2, 0.2, 0.4, 0.4, 0.08, 0.1), 80.0)
    for remaining_s, strict in ((0.1, False), (0.1, True), (0.3, False), (0.3, True), (0.5, True)):
        decision = decide((quick, slow), remaining_s, Terms(strict=strict), price=100.0)
        assert decision.chosen is slow
    assert decide((quick, slow), 0.06, Terms(strict=True), price=100.0).refusal is Refusal.INFEASIBLE
