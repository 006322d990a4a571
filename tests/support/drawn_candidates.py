"""Candidates, terms and prices drawn by hypothesis, and which candidates are allowed and up, computed independently."""

from __future__ import annotations

from hypothesis import strategies as st

from gateway.forecasting.forecaster import Forecast
from gateway.model.request import Terms
from gateway.model.tier import Tier
from gateway.scheduling.policy import Candidate

NAMES = ("a", "b", "c", "d")
DOMAINS = (None, None, None, "law", "news")
budgets = st.one_of(st.floats(-0.5, 2.0), st.sampled_from([0.0, 0.1, 0.25, 1.0]))
tight = st.floats(0.0, 0.3)
seconds = st.one_of(st.floats(0.001, 1.0), st.sampled_from([0.1, 0.25, 1.0]))


@st.composite
def forecasts(draw: st.DrawFn) -> Forecast:
    """Draw a forecast whose quantile is at least the idle quantile and the optimistic forecast."""
    idle_s, queue_s = draw(seconds), draw(st.one_of(st.just(0.0), seconds))
    least_s = draw(st.sampled_from([0.05, 0.5, 1.0])) * (idle_s + queue_s)
    backlog_s = queue_s * draw(st.sampled_from([1.0, 3.0]))
    cost_s = draw(st.sampled_from([0.01, 0.1, 1.0]))
    return Forecast(queue_s, idle_s / 2, queue_s + idle_s / 2, queue_s + idle_s, idle_s, least_s, cost_s, backlog_s)


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    """Draw up to four checkpoints; some are equal in quality, down, or of one domain."""
    return [
        Candidate(
            name,
            draw(st.sampled_from(list(Tier))),
            quality,
            draw(st.sampled_from(DOMAINS)),
            draw(st.one_of(st.none(), forecasts(), forecasts(), forecasts())),
            utility=quality,
        )
        for name in NAMES[: draw(st.integers(0, 4))]
        for quality in (draw(st.sampled_from([70.0, 80.0, 80.0, 90.0])),)
    ]


terms_of_any_kind = st.builds(
    Terms,
    strict=st.booleans(),
    min_tier=st.one_of(st.none(), st.sampled_from(list(Tier))),
    pinned=st.one_of(st.none(), st.none(), st.sampled_from(NAMES)),
    domain=st.sampled_from(DOMAINS),
    able=st.one_of(st.none(), st.none(), st.frozensets(st.sampled_from(NAMES), min_size=1)),
)


def allowed(candidate: Candidate, terms: Terms) -> bool:
    """Return whether the terms allow the candidate, computed independently from the contract."""
    if terms.min_tier is not None and candidate.tier.rank < terms.min_tier.rank:
        return False
    if terms.able is not None and candidate.name not in terms.able:
        return False
    if terms.pinned is not None:
        return candidate.name == terms.pinned
    return candidate.domain in (None, terms.domain)


def up(offered: list[Candidate], terms: Terms) -> dict[str, Forecast]:
    """Return the forecasts of the candidates that are allowed and up."""
    return {one.name: one.forecast for one in offered if one.forecast is not None and allowed(one, terms)}


prices = st.one_of(st.just(0.0), st.sampled_from([5.0, 11.0, 90.0, 1e4]), st.floats(0.0, 200.0))
"""Prices in points of quality per core-second."""
