"""From values that are read at a scrape to the text format, by the library's own hand: for all that is few lines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector


class Reading(NamedTuple):
    """One series of a gauge: the values of its labels and its own. None is not told."""

    labels: tuple[str, ...]
    value: float | None


def gauge(name: str, about: str, labels: Iterable[str], readings: Iterable[Reading]) -> Metric:
    """A gauge `punctual_NAME` with its series."""
    family = GaugeMetricFamily(f"punctual_{name}", about, labels=list(labels))
    for reading in readings:
        if reading.value is not None:
            family.add_metric(reading.labels, reading.value)
    return family


def text_of(families: Iterable[Metric]) -> str:
    """The families in the text format, without those that nothing is told of."""
    return generate_latest(_Made(families)).decode()


class _Made(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return [family for family in self._families if family.samples]
