"""The figures of one live run: what every run has, and what only a live one can have.

A run whose generator sent late is not valid, whatever the gateway did; nor is one in which nothing but failed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from statistics import fmean
from typing import TypeAlias

from msgspec import Struct, structs

from gateway.model.tier import Tier
from loadtests.generator.capacity import Capacity
from loadtests.generator.results import ANSWERED, EXPIRED, LAG_BOUND_S, LATE_SHARE, Result, late_share
from loadtests.offered_load import Quantiles
from loadtests.reports.runs import Conditions, RunResult, Sample, Scored, result_of
from loadtests.workload.arrivals import Fate
from loadtests.workload.scenario import RequestClass

ALL, REFUSED = "answered", "refused"

Histogram: TypeAlias = Mapping[str, int]
"""How many latencies there are of each value, in seconds to four digits; its sums are the histograms of several runs.

Nothing is corrected for coordinated omission. In an open loop there is none: latency counts from when a request was
due.
"""


def histograms_of(results: Sequence[Result]) -> dict[str, Histogram]:
    """Latency of the answered, of the answered of each class (`answered/0`), and of the refused.

    What has nothing in it is left out.
    """
    answered = [result for result in results if result.fate in ANSWERED]
    groups = {ALL: answered}
    for kind in sorted({result.kind for result in answered}):
        groups[f"{ALL}/{kind}"] = [result for result in answered if result.kind == kind]
    groups[REFUSED] = [result for result in results if result.fate is Fate.REFUSED]
    return {name: histogram_of(one.latency_s for one in group) for name, group in groups.items() if group}


def histogram_of(latencies_s: Iterable[float]) -> Histogram:
    """The histogram of these latencies."""
    return Counter(f"{latency_s:.4g}" for latency_s in latencies_s)


def merged_by_name(runs: Iterable[Mapping[str, Histogram]]) -> dict[str, Histogram]:
    """The histograms of several runs, each name's merged."""
    whole: dict[str, Counter[str]] = defaultdict(Counter)
    for run in runs:
        for name, histogram in run.items():
            whole[name].update(histogram)
    return dict(whole)


def quantiles_of(histogram: Histogram) -> Quantiles | None:
    """Quantiles of the latencies, in seconds; None of an empty histogram."""
    if not histogram:
        return None
    values_s = sorted(histogram, key=float)
    up_to = list(accumulate(histogram[value] for value in values_s))
    shares = (up_to[-1] * percent / 100 for percent in (50, 95, 99, 100))
    return Quantiles(*(float(values_s[bisect_left(up_to, share)]) for share in shares))


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
        """The share of refusals that were right: tried again, the request was late. Failed tries do not count."""
        judged = self.sent - self.failed
        return None if not judged else 1 - self.needless / judged


class LiveResult(RunResult, frozen=True, kw_only=True):
    """A live run. Latencies are the client's, from the intended send time.

    `coverage_at_gateway` is by the gateway's own clock, which alone its forecast knows, and unlike `coverage` has the
    strict requests in it that expired; `late_sends` is the share of
    requests that the generator sent later than its bound. `refusals` is how long a no took. `details` counts what was
    said of the refused and failed; `reasons` counts the route reasons of answers. `histograms` are of
    latencies, by the names of `histograms_of`. `capacity_per_s` is the rate that a load of 1 stands for.
    """

    capacity_per_s: float
    capacity_measured: bool
    late_sends: float
    refusals: Quantiles | None
    details: Mapping[str, int]
    reasons: Mapping[str, int]
    shadows: Shadows | None
    coverage_at_gateway: float | None
    histograms: Mapping[str, Histogram]


def live_result(
    conditions: Conditions,
    results: Sequence[Result],
    variants: Sequence[Scored],
    classes: Sequence[RequestClass],
    capacity: Capacity,
    note: str = "",
) -> LiveResult:
    """Counts the results of a run, those of its warm-up left out beforehand. Raises ValueError of none."""
    why = why_invalid(results)
    result = result_of(
        conditions,
        [sample_of(result) for result in results],
        variants,
        classes,
        lag=Quantiles.of([result.lag_s for result in results]),
        valid=not why,
        note="; ".join(filter(None, (note, why))),
    )
    return LiveResult(
        **structs.asdict(result),
        capacity_per_s=capacity.per_s,
        capacity_measured=capacity.measured,
        late_sends=late_share(results),
        refusals=Quantiles.of([result.latency_s for result in results if result.fate is Fate.REFUSED]),
        details=dict(Counter(result.detail for result in results if result.detail).most_common()),
        reasons=_reasons(results),
        shadows=_shadows(results),
        coverage_at_gateway=_coverage_at_gateway(results),
        histograms=histograms_of(results),
    )


def why_invalid(results: Sequence[Result]) -> str:
    """Why the figures of a run are not the gateway's, in words; nothing where they are."""
    if (share := late_share(results)) > LATE_SHARE:
        return f"{share:.1%} of the requests were sent more than {LAG_BOUND_S * 1000:g} ms late"
    if results and all(result.fate is Fate.FAILED for result in results):
        return f"every request failed, most with: {Counter(one.detail for one in results).most_common(1)[0][0]}"
    return ""


def sample_of(result: Result) -> Sample:
    """A live request as counts and plots need it."""
    answered = result.fate in ANSWERED
    prediction = result.prediction
    return Sample(
        kind=result.kind,
        arrived_s=result.due_s,
        budget_s=result.budget_s,
        fate=result.fate,
        latency_s=result.latency_s if answered else None,
        variant=prediction.checkpoint if answered and prediction else None,
        tier=Tier(prediction.tier) if answered and prediction else None,
        predicted_s=prediction.predicted_s if prediction else None,
        quantile_s=prediction.quantile_s if prediction else None,
    )


def _reasons(results: Sequence[Result]) -> Mapping[str, int]:
    answered = [one.prediction.reason for one in results if one.fate in ANSWERED and one.prediction]
    return dict(sorted(Counter(answered).items()))


def _shadows(results: Sequence[Result]) -> Shadows | None:
    """Counts the refused requests that were sent once more; None without any."""
    fates = Counter(result.shadow.fate for result in results if result.shadow)
    sent = fates.total()
    return Shadows(sent=sent, needless=fates[Fate.IN_TIME], failed=fates[Fate.FAILED]) if sent else None


def _coverage_at_gateway(results: Sequence[Result]) -> float | None:
    """The share within their forecast quantile, of answers and of admitted requests that expired."""
    covered = [
        one.prediction.gateway_s <= one.prediction.quantile_s
        for one in results
        if (one.fate in ANSWERED or one.detail == EXPIRED)
        and one.prediction
        and one.prediction.gateway_s is not None
        and one.prediction.quantile_s is not None
    ]
    return fmean(covered) if covered else None
