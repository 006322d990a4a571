"""The figures of one live run: what every run has, and what only a live one can have.

A run whose generator sent late is not valid, whatever the gateway did; nor is one in which nothing but failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from msgspec import Struct, structs

from gateway.model.tier import Tier
from loadtests.offered_load import Quantiles
from loadtests.offering.capacity import Capacity
from loadtests.offering.histograms import histograms_of
from loadtests.offering.landings import ANSWERED, EXPIRED, LAG_BOUND_S, LATE_SHARE, Landing, late_share
from loadtests.results.counting import Scored, result_of
from loadtests.results.run import Conditions, RunResult, Sample
from loadtests.scenarios.model import RequestClass
from loadtests.simulator.requests import Fate


class Shadows(Struct, frozen=True, kw_only=True):
    """What became of refused requests that were sent once more, best effort, with what was left of their budgets.

    `needless` ones were answered in time after all; `failed` ones say nothing. At a percentile of 95, up to 95 of 100
    such answers may be in time and every refusal still be by the rule: what was refused is the promise, not the try.
    """

    sent: int
    needless: int
    failed: int

    @property
    def rightly(self) -> float | None:
        """The share of refusals whose requests could not have been in time, of those that can be told."""
        told = self.sent - self.failed
        return None if not told else 1 - self.needless / told


class LiveResult(RunResult, frozen=True, kw_only=True):
    """A live run. Latencies are the client's, from the intended send time.

    `coverage_at_gateway` is by the gateway's own clock, which alone its forecast knows, and unlike `coverage` has the
    strict requests in it that expired; `late_sends` is the share of
    requests that the generator sent later than its bound. `refusals` is how long a no took. `details` counts what was
    said of the refused and failed; `reasons` counts the route reasons of answers. `histograms` are as
    `offering.histograms` encodes them. `capacity_per_s` is the rate that a load of 1 stands for.
    """

    capacity_per_s: float
    capacity_measured: bool
    late_sends: float
    refusals: Quantiles | None
    details: Mapping[str, int]
    reasons: Mapping[str, int]
    shadows: Shadows | None
    coverage_at_gateway: float | None
    histograms: Mapping[str, str]


def live_result(
    conditions: Conditions,
    landings: Sequence[Landing],
    variants: Sequence[Scored],
    classes: Sequence[RequestClass],
    capacity: Capacity,
    note: str = "",
) -> LiveResult:
    """Counts the landings of a run, those of its warm-up left out beforehand. Raises ValueError of none."""
    why = why_invalid(landings)
    result = result_of(
        conditions,
        [sample_of(landing) for landing in landings],
        variants,
        classes,
        lag=Quantiles.of([landing.lag_s for landing in landings]),
        valid=not why,
        note="; ".join(filter(None, (note, why))),
    )
    return LiveResult(
        **structs.asdict(result),
        capacity_per_s=capacity.per_s,
        capacity_measured=capacity.measured,
        late_sends=late_share(landings),
        refusals=Quantiles.of([landing.latency_s for landing in landings if landing.fate is Fate.REFUSED]),
        details=dict(Counter(landing.detail for landing in landings if landing.detail).most_common()),
        reasons=_reasons(landings),
        shadows=_shadows(landings),
        coverage_at_gateway=_coverage_at_gateway(landings),
        histograms=histograms_of(landings),
    )


def why_invalid(landings: Sequence[Landing]) -> str:
    """Why the figures of a run are not the gateway's, in words; nothing where they are."""
    if (share := late_share(landings)) > LATE_SHARE:
        return f"{share:.1%} of the requests were sent more than {LAG_BOUND_S * 1000:g} ms late"
    if landings and all(landing.fate is Fate.FAILED for landing in landings):
        return f"every request failed, most with: {Counter(one.detail for one in landings).most_common(1)[0][0]}"
    return ""


def sample_of(landing: Landing) -> Sample:
    """A live request as counts and plots need it."""
    answered = landing.fate in ANSWERED
    foretold = landing.foretold
    return Sample(
        kind=landing.kind,
        arrived_s=landing.due_s,
        budget_s=landing.budget_s,
        fate=landing.fate,
        latency_s=landing.latency_s if answered else None,
        variant=foretold.checkpoint if answered and foretold else None,
        tier=Tier(foretold.tier) if answered and foretold else None,
        predicted_s=foretold.predicted_s if foretold else None,
        quantile_s=foretold.quantile_s if foretold else None,
    )


def _reasons(landings: Sequence[Landing]) -> Mapping[str, int]:
    answered = [one.foretold.reason for one in landings if one.fate in ANSWERED and one.foretold]
    return dict(sorted(Counter(answered).items()))


def _shadows(landings: Sequence[Landing]) -> Shadows | None:
    """Of those that were sent; None where none was."""
    fates = Counter(landing.shadow.fate for landing in landings if landing.shadow)
    sent = fates.total()
    return Shadows(sent=sent, needless=fates[Fate.IN_TIME], failed=fates[Fate.FAILED]) if sent else None


def _coverage_at_gateway(landings: Sequence[Landing]) -> float | None:
    """Of answers, and of the admitted that expired: theirs is a forecast that did not hold, not one without an end."""
    covered = [
        one.foretold.gateway_s <= one.foretold.quantile_s
        for one in landings
        if (one.fate in ANSWERED or one.detail == EXPIRED)
        and one.foretold
        and one.foretold.gateway_s is not None
        and one.foretold.quantile_s is not None
    ]
    return fmean(covered) if covered else None
