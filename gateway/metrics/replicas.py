"""What one replica tells of itself: its totals, how large its runs were, and what its variant was proven to be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import inf

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from gateway.metrics.gauges import text_of
from gateway.metrics.series import bound_text

RUN_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Inputs of a run; no classifier's run takes more than 16."""

_LABELS = ("checkpoint", "task", "tier")


@dataclass(frozen=True, slots=True)
class ReplicaFacts:
    """What stays as it is while a replica lives: whose it is, and since when, in Unix seconds.

    `agreement` is how far its variant agrees with its source, from 0 to 1, as its manifest proves: of a classifier the
    share of like labels, of a summarizer that of texts with the same tokens, or of sentences that both choose.
    """

    checkpoint: str
    task: str
    tier: str
    agreement: float
    started_s: float


def replica_text(
    facts: ReplicaFacts, counters: Mapping[str, float], gauges: Mapping[str, float], run_sizes: Mapping[int, int]
) -> str:
    """A replica in the text format: metrics `punctual_replica_NAME` labelled with its checkpoint.

    `run_sizes` has how many runs there were of each size.
    """
    return text_of(_families(facts, counters, gauges, run_sizes))


def _families(
    facts: ReplicaFacts, counters: Mapping[str, float], gauges: Mapping[str, float], run_sizes: Mapping[int, int]
) -> Iterator[Metric]:
    of = (facts.checkpoint, facts.task, facts.tier)
    told = {
        **gauges,
        "self_test_agreement_ratio": facts.agreement,
        "self_test_passed": 1.0,  # one that did not pass serves nothing, a scrape included
        "start_time_seconds": facts.started_s,
    }
    for name, value in counters.items():
        counter = CounterMetricFamily(f"punctual_replica_{name}", f"{_words(name)}, since the start.", labels=_LABELS)
        counter.add_metric(of, value)
        yield counter
    for name, value in told.items():
        gauge = GaugeMetricFamily(f"punctual_replica_{name}", f"{_words(name)}, now.", labels=_LABELS)
        gauge.add_metric(of, value)
        yield gauge
    about = "Inputs of a run; where texts take turns, those that shared it."
    sizes = HistogramMetricFamily("punctual_replica_batch_size", about, labels=_LABELS)
    within = [sum(runs for size, runs in run_sizes.items() if low < size <= high) for low, high in _steps()]
    buckets = zip(map(bound_text, (*RUN_SIZES, inf)), accumulate(within), strict=True)
    sizes.add_metric(of, list(buckets), sum(size * runs for size, runs in run_sizes.items()))
    yield sizes


def _steps() -> Iterator[tuple[float, float]]:
    return zip((0, *RUN_SIZES), (*RUN_SIZES, inf), strict=True)


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()
