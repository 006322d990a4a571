"""Prometheus metrics: what is counted in each process, and how many processes become one scrape.

The only file that knows `prometheus_client`. Label sets are closed: task, checkpoint, tier, outcome, finish
reason and replica.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from gateway.records import RequestRecord

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1)
BUCKETS = (*_SECONDS, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class RequestMetrics:
    """Counts finished requests of one ingress process; an observer of their records."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a start time for each series would double the scrape
        self.registry = CollectorRegistry()
        labels = ("task", "checkpoint", "tier")
        self._requests = Counter(
            "punctual_requests",
            "Requests that ended, each once, by how they ended.",
            (*labels, "outcome"),
            registry=self.registry,
        )
        self._latency = Histogram(
            "punctual_request_latency_seconds",
            "Arrival at the gateway to the answer, of answered requests.",
            labels,
            registry=self.registry,
            buckets=BUCKETS,
        )

        self._summaries = Counter(
            "punctual_summaries",
            "Requests answered with summaries, by why their writing ended.",
            (*labels, "finish_reason"),
            registry=self.registry,
        )
        self._tokens_out = Counter("punctual_output_tokens", "Tokens of summaries.", labels, registry=self.registry)
        self._truncated = Counter(
            "punctual_truncated_requests",
            "Answered requests of whose texts not all was read.",
            labels,
            registry=self.registry,
        )

    def observe(self, record: RequestRecord) -> None:
        """Counts one request; its latency too when it was answered, and what was written for it."""
        labels = (record.task, record.checkpoint or "", record.tier or "")
        self._requests.labels(*labels, record.outcome.value).inc()
        if record.answered:
            self._latency.labels(*labels).observe(record.latency_s)
            if record.truncated:
                self._truncated.labels(*labels).inc()
            if record.finish_reason is not None:
                self._summaries.labels(*labels, record.finish_reason).inc()
                self._tokens_out.labels(*labels).inc(record.output_tokens)

    def text(self) -> str:
        """This process's metrics in the text format."""
        return generate_latest(self.registry).decode()


def replica_text(checkpoint: str, counters: Mapping[str, float], gauges: Mapping[str, float]) -> str:
    """A replica's totals in the text format: metrics `punctual_replica_NAME` labelled with its checkpoint."""
    registry = CollectorRegistry()
    registry.register(_Totals(checkpoint, counters, gauges))
    return generate_latest(registry).decode()


def one_scrape(texts: Mapping[str, str], silent: Iterable[str] = ()) -> bytes:
    """Merges the texts of several processes, by replica name, into one exposition with a `replica` label.

    `silent` names who did not answer in time; they appear as `punctual_replica_up 0`.
    """
    registry = CollectorRegistry()
    registry.register(_Merged(texts, tuple(silent)))
    return generate_latest(registry)


class _Totals(Collector):
    def __init__(self, checkpoint: str, counters: Mapping[str, float], gauges: Mapping[str, float]) -> None:
        self._checkpoint, self._counters, self._gauges = checkpoint, counters, gauges

    def collect(self) -> Iterator[Metric]:
        for name, value in self._counters.items():
            counter = CounterMetricFamily(f"punctual_replica_{name}", f"Replica total: {name}.", labels=["checkpoint"])
            counter.add_metric([self._checkpoint], value)
            yield counter
        for name, value in self._gauges.items():
            gauge = GaugeMetricFamily(f"punctual_replica_{name}", f"Replica now: {name}.", labels=["checkpoint"])
            gauge.add_metric([self._checkpoint], value)
            yield gauge


class _Merged(Collector):
    def __init__(self, texts: Mapping[str, str], silent: tuple[str, ...]) -> None:
        self._texts, self._silent = texts, silent

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        up = GaugeMetricFamily("punctual_replica_up", "Whether the process answered this scrape.", labels=["replica"])
        for replica, text in self._texts.items():
            up.add_metric([replica], 1)
            for family in text_string_to_metric_families(text):
                merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    merged.samples.append(sample._replace(labels={**sample.labels, "replica": replica}))
        for replica in self._silent:
            up.add_metric([replica], 0)
        yield from families.values()
        yield up
