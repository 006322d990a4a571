"""The figures of one live run: those of every run, and those that only a live run has.

A run is not valid if its generator sent late, or if every request failed.
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
"""The number of latencies of each value, in seconds with four digits. Adding histograms merges runs.

There is no coordinated omission to correct: in an open loop, latency counts from the intended send time.
"""


def histograms_of(results: Sequence[Result]) -> dict[str, Histogram]:
    """Histograms of answers, of each class's answers (`answered/0`) and of refusals.

    Empty histograms are left out.
    """
    answered = [result for result in results if result.fate in ANSWERED]
    groups = {ALL: answered}
    for kind in sorted({result.kind for result in answered}):
        groups[f"{ALL}/{kind}"] = [result for result in answered if result.kind == kind]
    groups[REFUSED] = [result for result in results if result.fate is Fate.REFUSED]
    return {name: histogram_of(one.latency_s for one in group) for name, group in groups.items() if group}


def histogram_of(latencies_s: Iterable[float]) -> Histogram:
    """The histogram of these latencies, in seconds."""
    return Counter(f"{latency_s:.4g}" for latency_s in latencies_s)


def merged_by_name(runs: Iterable[Mapping[str, Histogram]]) -> dict[str, Histogram]:
    """Merges the histograms of several runs by name."""
    whole: dict[str, Counter[str]] = defaultdict(Counter)
    for run in runs:
        for name, histogram in run.items():
            whole[name].update(histogram)
    return dict(whole)


def quantiles_of(histogram: Histogram) -> Quantiles | None:
    """Quantiles of the latencies, in seconds; None for an empty histogram."""
    if not histogram:
        return None
    values_s = sorted(histogram, key=float)
    up_to = list(accumulate(histogram[value] for value in values_s))
    shares = (up_to[-1] * percent / 100 for percent in (50, 95, 99, 100))
    return Quantiles(*(float(values_s[bisect_left(up_to, share)]) for share in shares))


class Shadows(Struct, frozen=True, kw_only=True):
    """Outcomes of refused requests sent once more, best effort, with the rest of their budgets.

    `needless` refusals were answered in time after all; `failed` retries say nothing. A refusal at percentile 95 means
    that the chance of success was below 95 %, so up to 95 of 100 retries may be in time though every refusal was right.
    """

    sent: int
    needless: int
    failed: int

    @property
    def rightly(self) -> float | None:
        """The share of refusals whose retry was late; failed retries do not count."""
        judged = self.sent - self.failed
        return None if not judged else 1 - self.needless / judged


class LiveResult(RunResult, frozen=True, kw_only=True):
    """A live run. Latencies are the client's, from the intended send time, in seconds.

    `coverage_at_gateway` is by the gateway's clock, which its forecasts use; unlike `coverage` it includes strict
    requests that expired. `met_at_gateway` counts the answers that the gateway reported in time. `late_sends` is the
    share of requests sent later than the bound. `refusals` are latencies of refusals. `details` counts problem codes
    and faults; `reasons` counts the route reasons of answers. `histograms` are named by `histograms_of`.
    `capacity_per_s` is the rate at a load of 1.
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
    met_at_gateway: int | None = None


def live_result(
    conditions: Conditions,
    results: Sequence[Result],
    variants: Sequence[Scored],
    classes: Sequence[RequestClass],
    capacity: Capacity,
    note: str = "",
) -> LiveResult:
    """Counts the results of a run after its warm-up. Raises ValueError if there are none."""
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
        met_at_gateway=sum(bool(one.prediction and one.prediction.met) for one in results if one.fate in ANSWERED),
    )


def why_invalid(results: Sequence[Result]) -> str:
    """Why the figures of a run are not valid, in words; empty if they are."""
    if (share := late_share(results)) > LATE_SHARE:
        return f"{share:.1%} of the requests were sent more than {LAG_BOUND_S * 1000:g} ms late"
    if results and all(result.fate is Fate.FAILED for result in results):
        return f"every request failed, most with: {Counter(one.detail for one in results).most_common(1)[0][0]}"
    return ""


def sample_of(result: Result) -> Sample:
    """The fields of a live request that counts and plots need."""
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
    """Counts the refused requests that were sent once more; None if there are none."""
    fates = Counter(result.shadow.fate for result in results if result.shadow)
    sent = fates.total()
    return Shadows(sent=sent, needless=fates[Fate.IN_TIME], failed=fates[Fate.FAILED]) if sent else None


def _coverage_at_gateway(results: Sequence[Result]) -> float | None:
    """The share of answers and expired admitted requests that met their forecast quantile."""
    covered = [
        one.prediction.gateway_s <= one.prediction.quantile_s
        for one in results
        if (one.fate in ANSWERED or one.detail == EXPIRED)
        and one.prediction
        and one.prediction.gateway_s is not None
        and one.prediction.quantile_s is not None
    ]
    return fmean(covered) if covered else None
