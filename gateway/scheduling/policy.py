"""The decision: which candidate answers a request, or why none may. A pure function of a snapshot.

It knows no clock, no replica and no HTTP. The live gateway and the simulator call the same `decide`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from functools import cached_property

from msgspec import Struct
from msgspec.structs import replace

from gateway.forecasting.forecaster import Forecast, ServedCheckpoint
from gateway.model.request import Terms
from gateway.model.tier import Tier


class Verdict(StrEnum):
    """What a decision found of one candidate."""

    FITS = "fits"
    TOO_DEAR = "too-dear"
    CONGESTED = "congested"
    TOO_SLOW = "too-slow"
    UNAVAILABLE = "unavailable"
    BELOW_MIN_TIER = "below-min-tier"
    NOT_PINNED = "not-pinned"
    OTHER_DOMAIN = "other-domain"
    UNABLE = "unable"

    @property
    def eligible(self) -> bool:
        """True if the request's own terms allow the candidate, whether in time or not, up or down."""
        return self in _ELIGIBLE


class Reason(StrEnum):
    """Why the chosen candidate was chosen: the values of `X-Route-Reason`."""

    FITS = "fits"
    CONGESTION = "congestion"
    AT_RISK = "at-risk"
    BEST_EFFORT = "best-effort"
    PINNED = "pinned"
    ONLY_CANDIDATE = "only-candidate"


class Refusal(StrEnum):
    """Why no candidate was chosen."""

    INFEASIBLE = "infeasible"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    NO_CANDIDATE = "no-candidate"


class Room(Struct, frozen=True, gc=False):
    """The seconds that are left of a request's budgets: for the answer, and for its first text if that has one too."""

    remaining_s: float
    first_s: float = math.inf

    def holds(self, forecast: Forecast) -> bool:
        """True if the forecast fits, at the percentile that was asked for."""
        first = forecast.first
        return forecast.quantile_s <= self.remaining_s and (first is None or first.quantile_s <= self.first_s)

    def holds_idle(self, forecast: Forecast) -> bool:
        """True if it would fit with nothing queued."""
        first = forecast.first
        return forecast.idle_quantile_s <= self.remaining_s and (first is None or first.idle_quantile_s <= self.first_s)

    def may_hold(self, forecast: Forecast) -> bool:
        """True if it fits with luck."""
        first = forecast.first
        return forecast.least_s <= self.remaining_s and (first is None or first.least_s <= self.first_s)

    def over_s(self, forecast: Forecast) -> float:
        """By how many seconds it is over one of them; negative if it fits."""
        over_s = forecast.quantile_s - self.remaining_s
        return over_s if forecast.first is None else max(over_s, forecast.first.quantile_s - self.first_s)


def first_left_s(terms: Terms, elapsed_s: float) -> float:
    """The seconds that are left for the first text; infinite where it has no budget of its own."""
    return math.inf if terms.first_token_s is None else terms.first_token_s - elapsed_s


class Candidate(Struct, frozen=True, gc=False):
    """A checkpoint that could serve this request, with its forecast; None while no replica is up.

    `quality` orders the candidates. `utility`, in points of quality, is compared with the price and rises with
    `quality`.
    """

    name: str
    tier: Tier
    quality: float
    domain: str | None
    forecast: Forecast | None
    utility: float = 0.0


class Assessed(Struct, frozen=True, gc=False):
    """A candidate and its verdict."""

    candidate: Candidate
    verdict: Verdict


class Decision(Struct, frozen=True, dict=True):
    """The chosen candidate and its reason, or a refusal, with the snapshot that the decision was made on.

    `price` is in points of quality per core-second. `ceiling` is the highest quality that is worth its cost at that
    price. `retry_after_s` is set for OVERLOADED: after this wait the forecast would fit. `min_feasible_s` is set for
    INFEASIBLE: the least budget that an idle gateway would meet, including the time that passed before the decision.
    `first_s` is what is left for the first text, as `remaining_s` is for the answer, and `min_feasible_first_s` the
    least budget for it, beside one for the answer that is feasible.
    """

    candidates: Sequence[Candidate]
    remaining_s: float
    terms: Terms
    price: float = 0.0
    ceiling: float = math.inf
    chosen: Candidate | None = None
    reason: Reason | None = None
    refusal: Refusal | None = None
    retry_after_s: float = 0.0
    min_feasible_s: float = 0.0
    first_s: float = math.inf
    min_feasible_first_s: float = 0.0

    @property
    def room(self) -> Room:
        """What is left of the request's budgets."""
        return Room(self.remaining_s, self.first_s)

    @cached_property
    def assessed(self) -> tuple[Assessed, ...]:
        """Every candidate that was considered, with its verdict, best quality first."""
        return tuple(sorted(self.verdicts(), key=lambda one: _rank(one.candidate)))

    def verdicts(self) -> tuple[Assessed, ...]:
        """Every candidate that was considered, with its verdict, in the order of `candidates`.

        Unsorted, since every request calls it.
        """
        room = self.room
        return tuple([Assessed(one, self._verdict(one, room)) for one in self.candidates])

    @property
    def degraded(self) -> bool:
        """True if a better eligible checkpoint exists, even one that is down."""
        if self.chosen is None:
            return False
        quality = self.chosen.quality
        return any(one.quality > quality for one in _eligible(self.candidates, self.terms))

    def _verdict(self, candidate: Candidate, room: Room) -> Verdict:
        unmet = barred(candidate, self.terms)
        if unmet is not None:
            return unmet
        if candidate.forecast is None:
            return Verdict.UNAVAILABLE
        if room.holds(candidate.forecast):
            return Verdict.FITS if candidate.quality <= self.ceiling else Verdict.TOO_DEAR
        if room.holds_idle(candidate.forecast):
            return Verdict.CONGESTED
        return Verdict.TOO_SLOW


def decide(
    candidates: Sequence[Candidate], remaining_s: float, terms: Terms, elapsed_s: float = 0.0, price: float = 0.0
) -> Decision:
    """Picks the highest quality that is worth its price and whose forecast quantile fits the remaining budget.

    At one price, more remaining budget never gives lower quality. The order of candidates never matters: ties in
    quality go to the lower forecast, then to the name. No candidate better than the one of highest utility after cost
    is given, even if it fits.

    If nothing fits, best effort takes the fastest; strict takes it only if some candidate may still be in time.
    Otherwise strict refuses: OVERLOADED if an idle gateway would fit the request at no price, else INFEASIBLE.
    NO_CANDIDATE says that no candidate meets the terms, UNAVAILABLE that those that do are down. `elapsed_s` is the
    part of the budget already spent. Where the first text has a budget of its own, only what fits both fits.
    """
    first_s = first_left_s(terms, elapsed_s)
    room = Room(remaining_s, first_s)
    eligible = _eligible(candidates, terms)
    ceiling = _ceiling(eligible, price) if price > 0 else math.inf
    best = _best(eligible, ceiling, room)
    if best is not None:
        reason = _reason(best, eligible, room, terms)
        return Decision(candidates, remaining_s, terms, price, ceiling, best, reason, first_s=first_s)
    up = [(one, forecast) for one in eligible if (forecast := one.forecast) is not None]
    if not up:
        refusal = Refusal.UNAVAILABLE if eligible else Refusal.NO_CANDIDATE
        return Decision(candidates, remaining_s, terms, price, refusal=refusal, first_s=first_s)
    offered = [pair for pair in up if pair[0].quality <= ceiling]
    if not terms.strict or any(room.may_hold(forecast) for _, forecast in offered):
        least_s = min(room.over_s(forecast) for _, forecast in offered)
        fastest = min((one for one, forecast in offered if room.over_s(forecast) == least_s), key=_rank)
        reason = Reason.AT_RISK if terms.strict else Reason.PINNED if terms.pinned else Reason.BEST_EFFORT
        return Decision(candidates, remaining_s, terms, price, ceiling, fastest, reason, first_s=first_s)
    return _refused(Decision(candidates, remaining_s, terms, price, ceiling, first_s=first_s), up, elapsed_s)


def _refused(decision: Decision, up: Sequence[tuple[Candidate, Forecast]], elapsed_s: float) -> Decision:
    """The refusal of a strict request: OVERLOADED if an idle gateway would fit it at no price, else INFEASIBLE."""
    room = decision.room
    waits = [_wait_s(forecast, room) for _, forecast in up if room.holds_idle(forecast)]
    if waits:
        return replace(decision, refusal=Refusal.OVERLOADED, retry_after_s=min(waits))
    least_s = min(forecast.idle_quantile_s for _, forecast in up)
    whole = [forecast for _, forecast in up if forecast.idle_quantile_s <= max(least_s, room.remaining_s)]
    firsts_s = [forecast.first.idle_quantile_s for forecast in whole if forecast.first is not None]
    return replace(
        decision,
        refusal=Refusal.INFEASIBLE,
        min_feasible_s=elapsed_s + least_s,
        min_feasible_first_s=elapsed_s + min(firsts_s) if firsts_s and math.isfinite(room.first_s) else 0.0,
    )


def bind(decision: Decision, chosen: Candidate, remaining_s: float, price: float) -> Decision:
    """Binds a request that waited to the candidate of its batch, at the price of the batch.

    The other candidates keep the forecasts of the request's arrival.
    """
    candidates = [chosen, *(one for one in decision.candidates if one.name != chosen.name)]
    terms = decision.terms
    first_s = decision.first_s - (decision.remaining_s - remaining_s)
    if chosen.forecast is not None and Room(remaining_s, first_s).holds(chosen.forecast):
        reason = _reason(chosen, _eligible(candidates, terms), decision.room, terms)
    else:
        reason = Reason.AT_RISK if terms.strict else Reason.PINNED if terms.pinned else Reason.BEST_EFFORT
    ceiling = chosen.quality if price > 0 else math.inf
    return Decision(candidates, remaining_s, terms, price, ceiling, chosen, reason, first_s=first_s)


def barred(checkpoint: Candidate | ServedCheckpoint, terms: Terms) -> Verdict | None:
    """Returns the verdict of the first term that the checkpoint fails; None if it meets all, even if down or late."""
    if terms.pinned is not None:
        if checkpoint.name != terms.pinned:
            return Verdict.NOT_PINNED
    elif checkpoint.domain is not None and checkpoint.domain != terms.domain:
        return Verdict.OTHER_DOMAIN
    if terms.min_tier is not None and checkpoint.tier.rank < terms.min_tier.rank:
        return Verdict.BELOW_MIN_TIER
    if terms.able is not None and checkpoint.name not in terms.able:
        return Verdict.UNABLE
    return None


_ELIGIBLE = frozenset({Verdict.FITS, Verdict.TOO_DEAR, Verdict.CONGESTED, Verdict.TOO_SLOW, Verdict.UNAVAILABLE})


def _eligible(candidates: Sequence[Candidate], terms: Terms) -> Sequence[Candidate]:
    """The candidates that the request's terms allow."""
    if terms.pinned is None and terms.min_tier is None and terms.able is None:
        domain = terms.domain
        return [one for one in candidates if one.domain is None or one.domain == domain]
    return [one for one in candidates if barred(one, terms) is None]


def _ceiling(eligible: Sequence[Candidate], price: float) -> float:
    """The quality of the candidate that is up and has the most utility after cost; among equals the highest."""
    most, ceiling = -math.inf, -math.inf
    for one in eligible:
        if one.forecast is not None:
            left = one.utility - price * one.forecast.cost_s
            if left > most or (left == most and one.quality > ceiling):
                most, ceiling = left, one.quality
    return ceiling


def _best(eligible: Sequence[Candidate], ceiling: float, room: Room) -> Candidate | None:
    """The highest quality that fits, None if none does; among equals the lower forecast, then the first by name."""
    best: Candidate | None = None
    best_s = quality = -math.inf
    for one in eligible:
        forecast = one.forecast
        if forecast is None or one.quality < quality or one.quality > ceiling or not room.holds(forecast):
            continue
        if best is None or one.quality > quality or (forecast.quantile_s, one.name) < (best_s, best.name):
            best, best_s, quality = one, forecast.quantile_s, one.quality
    return best


def _reason(best: Candidate, eligible: Sequence[Candidate], room: Room, terms: Terms) -> Reason:
    """Why `best` was chosen: CONGESTION if a better candidate would fit an idle gateway at no price."""
    if terms.pinned:
        return Reason.PINNED
    quality, others = best.quality, False
    for one in eligible:
        if one.forecast is not None:
            if one.quality > quality and room.holds_idle(one.forecast):
                return Reason.CONGESTION
            others = others or one is not best
    return Reason.FITS if others else Reason.ONLY_CANDIDATE


def _wait_s(forecast: Forecast, room: Room) -> float:
    """Seconds until the forecast would fit; 0 if it fits already and only the price was against it.

    The backlog shrinks one second per second. With time slicing the delay is less than the backlog, and shrinks only
    once the backlog is smaller than it.
    """
    unfelt_s = forecast.backlog_s - forecast.queueing_delay_s
    return max(0.0, min(forecast.backlog_s, unfelt_s + room.over_s(forecast)))


def _rank(candidate: Candidate) -> tuple[float, float, str]:
    quantile_s = candidate.forecast.quantile_s if candidate.forecast else math.inf
    return (-candidate.quality, quantile_s, candidate.name)


class Shortlist:
    """Tells the router when the remaining, lower-quality checkpoints can no longer change the decision.

    Starts from the candidates considered when the first of them fits. Utility must not rise as quality falls.
    """

    def __init__(self, candidates: Sequence[Candidate], room: Room, terms: Terms, price: float) -> None:
        self._room = room
        self._terms = terms
        self._price = price
        self._up = 0
        self._most_left = self._enough = -math.inf
        for one in candidates:
            self.look(one)

    def look(self, candidate: Candidate) -> None:
        """Considers the next candidate."""
        forecast = candidate.forecast
        if forecast is None or barred(candidate, self._terms) is not None:
            return
        self._up += 1
        left = candidate.utility - self._price * forecast.cost_s
        if left > self._most_left:  # the ceiling is here; a candidate above it is not given
            self._most_left, self._enough = left, -math.inf
        if self._enough == -math.inf and self._room.holds(forecast):
            self._enough = candidate.quality

    def over(self, quality: float, utility: float) -> bool:
        """True if no candidate of this quality and utility, or less, can be chosen or lower the ceiling."""
        return self._up > 1 and quality < self._enough and utility <= self._most_left
