"""Metrics of one replica: its totals, the sizes of its batches, and how its variant was verified."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import inf

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from gateway.observability.metrics.exposition import text_of

BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Upper bounds of the buckets, in inputs; no classifier's batch takes more than 16."""

_LABELS = ("checkpoint", "task", "tier")
_ABOUT = {
    "turns": "Time slices",
    "batches": "Engine runs, each of one batch",
    "lone": "Engine runs that had the node for themselves, and all processors of the replica",
    "sharing_inputs": "Texts that share the engine by time slicing",
}
"""Descriptions of metrics whose name is not in the glossary's words."""


@dataclass(frozen=True, slots=True)
class ReplicaFacts:
    """What stays constant while a replica lives: its checkpoint, and its start in Unix seconds.

    `agreement` is how far its variant agrees with its source, from 0 to 1, by its manifest: for a classifier the share
    of equal labels, for a summarizer that of texts with the same tokens, or of sentences that both choose.
    """

    checkpoint: str
    task: str
    tier: str
    agreement: float
    started_s: float


def replica_text(
    facts: ReplicaFacts, counters: Mapping[str, float], gauges: Mapping[str, float], sizes: Mapping[int, int]
) -> str:
    """Writes a replica in the text format: metrics `punctual_replica_NAME` labelled with its checkpoint.

    `sizes` maps a batch size to the number of batches that had it.
    """
    return text_of(_families(facts, counters, gauges, sizes))


def _families(
    facts: ReplicaFacts, counters: Mapping[str, float], gauges: Mapping[str, float], sizes: Mapping[int, int]
) -> Iterator[Metric]:
    of = (facts.checkpoint, facts.task, facts.tier)
    now = {
        **gauges,
        "self_test_agreement_ratio": facts.agreement,
        "self_test_passed": 1.0,  # a replica that fails its self-test serves nothing, a scrape included
        "start_time_seconds": facts.started_s,
    }
    for name, value in counters.items():
        counter = CounterMetricFamily(f"punctual_replica_{name}", f"{_words(name)}, since the start.", labels=_LABELS)
        counter.add_metric(of, value)
        yield counter
    for name, value in now.items():
        gauge = GaugeMetricFamily(f"punctual_replica_{name}", f"{_words(name)}, now.", labels=_LABELS)
        gauge.add_metric(of, value)
        yield gauge
    about = "Inputs of a batch; with time slicing, texts that shared the engine."
    family = HistogramMetricFamily("punctual_replica_batch_size", about, labels=_LABELS)
    family.add_metric(of, _buckets(sizes), sum(size * batches for size, batches in sizes.items()))
    yield family


def _buckets(sizes: Mapping[int, int]) -> list[tuple[str, float]]:
    """The upper bound of each bucket, with the number of batches at or under it."""
    steps = zip((0, *BATCH_SIZES), (*BATCH_SIZES, inf), strict=True)
    within = [sum(batches for size, batches in sizes.items() if low < size <= high) for low, high in steps]
    bounds = [str(floatToGoString(bound)) for bound in (*BATCH_SIZES, inf)]  # type: ignore[no-untyped-call]
    return list(zip(bounds, accumulate(within), strict=True))


def _words(name: str) -> str:
    return _ABOUT.get(name) or name.replace("_", " ").capitalize()
