"""The decision: which candidate answers this request, or why none may. A pure function of a snapshot.

It knows no clock, no replica and no HTTP; the live gateway and the simulator call the same `decide`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from gateway.catalog import Tier
from gateway.forecast import Forecast


class Verdict(StrEnum):
    """What the decision found of one candidate."""

    FITS = "fits"
    CONGESTED = "congested"
    TOO_SLOW = "too-slow"
    UNAVAILABLE = "unavailable"
    BELOW_MIN_TIER = "below-min-tier"
    NOT_PINNED = "not-pinned"
    OTHER_DOMAIN = "other-domain"

    @property
    def eligible(self) -> bool:
        """Whether the request's own terms allow the candidate, in time or not, up or not."""
        return self in _ELIGIBLE


class Reason(StrEnum):
    """Why the chosen candidate was chosen: the values of `X-Route-Reason`."""

    FITS = "fits"
    CONGESTION = "congestion"
    BEST_EFFORT = "best-effort"
    PINNED = "pinned"
    ONLY_CANDIDATE = "only-candidate"


class Refusal(StrEnum):
    """Why nothing was chosen."""

    INFEASIBLE = "infeasible"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    NO_CANDIDATE = "no-candidate"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A checkpoint that could serve this request, with its forecast; without one it has no healthy replica."""

    name: str
    tier: Tier
    quality: float
    domain: str | None
    forecast: Forecast | None


@dataclass(frozen=True, slots=True)
class Terms:
    """What the client asked for, as far as the decision cares. `percentile` has gone into the forecasts."""

    strict: bool = False
    min_tier: Tier | None = None
    pinned: str | None = None
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class Assessed:
    """A candidate and its verdict."""

    candidate: Candidate
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Decision:
    """One of `chosen` (with its reason) and `refusal` is set; `assessed` has every candidate, best quality first.

    `retry_after_s` goes with OVERLOADED: the wait after which the forecast would fit. `min_feasible_s` goes with
    INFEASIBLE: the least budget an idle gateway would admit, the time that went by before the decision included.
    """

    assessed: tuple[Assessed, ...]
    chosen: Candidate | None = None
    reason: Reason | None = None
    refusal: Refusal | None = None
    retry_after_s: float = 0.0
    min_feasible_s: float = 0.0


def decide(candidates: Sequence[Candidate], remaining_s: float, terms: Terms, elapsed_s: float = 0.0) -> Decision:
    """Picks the highest quality whose forecast quantile fits the remaining budget.

    More remaining budget never gives a lower quality, and the order of the candidates never matters: ties in
    quality go to the lower forecast, then to the name. Where nothing fits, best effort takes the fastest and
    strict refuses, telling overload (it would fit an idle gateway) from infeasibility (it would not). Terms that no
    candidate meets, up or not, are told from an outage. `elapsed_s` is what of the budget has gone by.
    """
    assessed = tuple(
        Assessed(candidate, _verdict(candidate, remaining_s, terms)) for candidate in sorted(candidates, key=_rank)
    )
    for better in assessed:
        if better.verdict is Verdict.FITS:
            return Decision(assessed, better.candidate, _reason(better.candidate, assessed, terms))
    able = [(a.candidate, a.candidate.forecast) for a in assessed if a.verdict in _ABLE and a.candidate.forecast]
    if not able:
        eligible = any(a.verdict.eligible for a in assessed)
        return Decision(assessed, refusal=Refusal.UNAVAILABLE if eligible else Refusal.NO_CANDIDATE)
    if not terms.strict:
        fastest, _ = min(able, key=lambda pair: (pair[1].quantile_s, _rank(pair[0])))
        reason = Reason.PINNED if terms.pinned else Reason.BEST_EFFORT
        return Decision(assessed, fastest, reason)
    congested = [f.quantile_s - remaining_s for _, f in able if f.idle_quantile_s <= remaining_s]
    if congested:
        return Decision(assessed, refusal=Refusal.OVERLOADED, retry_after_s=min(congested))
    least = min(forecast.idle_quantile_s for _, forecast in able)
    return Decision(assessed, refusal=Refusal.INFEASIBLE, min_feasible_s=elapsed_s + least)


_ABLE = frozenset({Verdict.FITS, Verdict.CONGESTED, Verdict.TOO_SLOW})
_ELIGIBLE = _ABLE | {Verdict.UNAVAILABLE}


def _rank(candidate: Candidate) -> tuple[float, float, str]:
    quantile_s = candidate.forecast.quantile_s if candidate.forecast else float("inf")
    return (-candidate.quality, quantile_s, candidate.name)


def _verdict(candidate: Candidate, remaining_s: float, terms: Terms) -> Verdict:
    if terms.pinned is not None:
        if candidate.name != terms.pinned:
            return Verdict.NOT_PINNED
    elif candidate.domain is not None and candidate.domain != terms.domain:
        return Verdict.OTHER_DOMAIN
    if terms.min_tier is not None and candidate.tier.rank < terms.min_tier.rank:
        return Verdict.BELOW_MIN_TIER
    if candidate.forecast is None:
        return Verdict.UNAVAILABLE
    if candidate.forecast.quantile_s <= remaining_s:
        return Verdict.FITS
    if candidate.forecast.idle_quantile_s <= remaining_s:
        return Verdict.CONGESTED
    return Verdict.TOO_SLOW


def _reason(chosen: Candidate, assessed: Sequence[Assessed], terms: Terms) -> Reason:
    if terms.pinned:
        return Reason.PINNED
    if any(a.verdict is Verdict.CONGESTED and a.candidate.quality > chosen.quality for a in assessed):
        return Reason.CONGESTION
    if sum(a.verdict in _ABLE for a in assessed) == 1:
        return Reason.ONLY_CANDIDATE
    return Reason.FITS
