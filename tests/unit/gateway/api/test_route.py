"""A decision as a client sees it: `/route` and `punctual explain`."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from fakes import EVEN, GRAND, MEDIANS_S, SWIFT, TERMS, catalog, manifest
from worlds import World, strict, world

from gateway.api.responses import decision_document, utility_left
from gateway.model.request import Terms
from gateway.router import explain
from gateway.scheduling.policy import Reason, Verdict


def routed(told: World, price: float | None = None, terms: Terms = TERMS) -> dict[str, Any]:
    """Return the body of `/route` at this price."""
    request = told.request(terms)
    deadline = told.service.router.deadline(request)
    decision = told.service.router.decide(request, deadline, price, every=True)
    document: dict[str, Any] = msgspec.to_builtins(decision_document(request, decision, deadline.budget_s, ()))
    return document


def by_name(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the candidates of a body by name."""
    return {candidate["checkpoint"]: candidate for candidate in document["candidates"]}


def test_a_price_and_what_it_leaves_are_told() -> None:
    """`/route` gives utility, cost and price of each candidate, from which a reader can compute the choice."""
    document = routed(world(), price=130.0)
    assert (document["price"], document["checkpoint"], document["reason"]) == (130.0, EVEN, Reason.CONGESTION)
    assert document["ceiling"] == 85.0
    candidates = by_name(document)
    assert [candidates[name]["worth"] for name in (SWIFT, EVEN, GRAND)] == [80.0, 85.0, 90.0]
    assert candidates[GRAND]["verdict"] == Verdict.TOO_DEAR
    for candidate in candidates.values():
        paid = candidate["worth"] - document["price"] * candidate["cost_ms"] / 1000
        assert candidate["worth_after_price"] == pytest.approx(paid, abs=0.002)
    most = max(candidates.values(), key=lambda candidate: candidate["worth_after_price"])
    assert most["checkpoint"] == EVEN


def test_without_a_price_there_is_no_ceiling() -> None:
    """Without a price there is no ceiling, and each candidate keeps its whole utility."""
    document = routed(world())
    assert (document["price"], document["ceiling"]) == (0.0, None)
    assert all(candidate["worth_after_price"] == candidate["worth"] for candidate in document["candidates"])


def test_a_forecast_tells_its_least() -> None:
    """The optimistic forecast is below the median, and strict admits a budget exactly from there on."""
    told = world()
    forecast_ms = by_name(routed(told))[SWIFT]["forecast_ms"]
    assert 0 < forecast_ms["least"] < forecast_ms["latency"] < forecast_ms["at_percentile"]
    at_risk = routed(told, terms=strict(forecast_ms["least"] / 1000 + 1e-6))
    assert (at_risk["checkpoint"], at_risk["reason"]) == (SWIFT, Reason.AT_RISK)
    refused = routed(told, terms=strict(forecast_ms["least"] / 1000 - 2e-6))
    assert (refused["checkpoint"], refused["refusal"]) == (None, "infeasible")


def test_what_is_down_has_no_forecast_cost_or_remainder() -> None:
    """A candidate that is down is listed with its utility, and null for forecast, cost and remaining utility."""
    told = world()
    told.down(GRAND)
    candidate = by_name(routed(told, price=10.0))[GRAND]
    assert (candidate["forecast_ms"], candidate["cost_ms"], candidate["worth_after_price"]) == (None, None, None)
    assert (candidate["verdict"], candidate["worth"]) == (Verdict.UNAVAILABLE, 90.0)


@pytest.mark.parametrize(("price", "chosen"), [(None, GRAND), (0.0, GRAND), (130.0, EVEN), (5000.0, SWIFT)])
def test_explaining_tries_a_price(price: float | None, chosen: str) -> None:
    """`punctual explain` decides as an idle gateway does at the given price."""
    manifests = {name: manifest(name, median_s) for name, median_s in MEDIANS_S.items()}
    decision = explain(catalog(), manifests, "classify", "a good film", Terms(budget_s=1.0), price)
    assert decision.chosen is not None and decision.chosen.name == chosen
    assert decision.price == (price or 0.0)
    left = {one.candidate.name: utility_left(one, decision.price) for one in decision.assessed}
    assert len(left) == 3 and all(points is not None for points in left.values())
