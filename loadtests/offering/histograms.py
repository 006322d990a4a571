"""Latencies as HDR histograms, encoded so that a results file holds every one of them to three digits.

Runs can be merged later without their samples. Nothing is corrected for coordinated omission: in an open loop there
is none, latency counts from when a request was due. The only file here that knows `hdrh`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped, unused-ignore]

from loadtests.offered_load import Quantiles
from loadtests.offering.landings import ANSWERED, Landing
from loadtests.simulator.requests import Fate

LOWEST_US, HIGHEST_US, DIGITS = 1, 3_600_000_000, 3
"""From a microsecond to an hour; what is beyond counts as either end."""

ALL, REFUSED = "answered", "refused"


def histograms_of(landings: Sequence[Landing]) -> dict[str, str]:
    """Encoded: latency of the answered, of the answered of each class (`answered/0`), and of the refused.

    What has nothing in it is left out.
    """
    answered = [landing for landing in landings if landing.fate in ANSWERED]
    groups = {ALL: answered}
    for kind in sorted({landing.kind for landing in answered}):
        groups[f"{ALL}/{kind}"] = [landing for landing in answered if landing.kind == kind]
    groups[REFUSED] = [landing for landing in landings if landing.fate is Fate.REFUSED]
    return {name: encoded(one.latency_s for one in group) for name, group in groups.items() if group}


def encoded(latencies_s: Iterable[float]) -> str:
    """A histogram of these latencies in microseconds: HdrHistogram's V2 compressed form, base64."""
    histogram = _empty()
    for latency_s in latencies_s:
        histogram.record_value(min(max(round(latency_s * 1e6), LOWEST_US), HIGHEST_US))
    text: str = histogram.encode().decode()
    return text


def merged(histograms: Iterable[str]) -> str:
    """One histogram of all that is in several, as if it had been recorded in one go."""
    whole = _empty()
    for one in histograms:
        whole.decode_and_add(one)
    text: str = whole.encode().decode()
    return text


def merged_by_name(runs: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The histograms of several runs, each name's merged."""
    of: dict[str, list[str]] = {}
    for run in runs:
        for name, histogram in run.items():
            of.setdefault(name, []).append(histogram)
    return {name: merged(group) for name, group in of.items()}


def quantiles_of(histogram: str) -> Quantiles | None:
    """What a results file has of latencies, in seconds; None of an empty one."""
    decoded = HdrHistogram.decode(histogram)
    if not decoded.get_total_count():
        return None
    p50, p95, p99 = (decoded.get_value_at_percentile(percent) / 1e6 for percent in (50, 95, 99))
    return Quantiles(p50, p95, p99, decoded.get_max_value() / 1e6)


def count_of(histogram: str) -> int:
    """How many latencies are in it."""
    count: int = HdrHistogram.decode(histogram).get_total_count()
    return count


def _empty() -> HdrHistogram:
    return HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)
