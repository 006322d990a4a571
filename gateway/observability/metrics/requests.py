"""Metrics of finished requests in one ingress process: an observer of their records.

Every counter that a request can touch is made at the start, from the catalog: nothing a client sends can add a series,
and `rate` sees the first event. The histograms of a checkpoint come with its first answer. Native histograms are not
offered: the library cannot record them, and Prometheus takes them only as protobuf. A newer Prometheus can convert
these as it scrapes them (`convert_classic_histograms_to_nhcb`).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gateway.catalogs.catalog import Catalog
from gateway.model.outcome import Outcome
from gateway.observability.metrics.exposition import counter, histogram, text_of
from gateway.observability.record import RequestRecord
from gateway.scheduling.policy import Reason, Verdict
from gateway.tasks import TASKS

_MILLISECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1)
BUCKETS = (*_MILLISECONDS, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds: from a short text on an idle replica to the longest budget."""

BUDGET_RATIOS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 5.0, 10.0)
"""Latency divided by budget: finest around 1, where in time and late part."""

FORECAST_RATIOS = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0, 8.0)
"""Latency divided by its median forecast: half of the answers belong at or under 1."""

_LABELS = ("task", "checkpoint", "tier")


class _Families:
    """Every metric of requests, in the order of a scrape."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.ended = self._count("requests", "Requests that ended, each once, by how they ended.", "outcome")
        self.routed = self._count("routed_requests", "Requests for which a checkpoint was chosen, by why.", "reason")
        self.degraded = self._count("degraded_requests", "Requests that got less than the best checkpoint on offer.")
        self.attempts = self._count("request_attempts", "Dispatches; more than requests where replicas were lost.")
        self.verdicts = counter(
            "candidate_verdicts",
            "Candidates that decisions looked at, by what was found of them.",
            ("task", "checkpoint", "verdict"),
            self.registry,
        )
        self.forecast = self._count("forecast_answers", "Answers whose latency had been forecast.")
        self.covered = self._count("forecast_covered_answers", "Answers no later than their forecast quantile.")
        self.nominal = self._count("forecast_nominal_answers", "Sum of the shares at which quantiles were forecast.")
        self.tokens_in = self._count("input_tokens", "Tokens of answered texts that engines were given.")
        self.tokens_out = self._count("output_tokens", "Tokens of summaries.")
        self.truncated = self._count("truncated_requests", "Answered requests whose texts were not read to their end.")
        self.finished = self._count(
            "summaries", "Requests answered with summaries, by why those ended.", "finish_reason"
        )
        self.latency = self._seconds("latency", "From arrival at the gateway to the answer")
        self.queueing_delay = self._seconds("queueing_delay", "Waiting for a batch, at the gateway and at the replica")
        self.service_time = self._seconds("service_time", "The engine's runs that carried the request")
        self.overhead = self._seconds("overhead", "Latency minus queueing delay and service time")
        self.first_delta = self._spread(
            "request_first_delta_seconds",
            "From arrival at the gateway to the first text that was told of an answer, of answers that were streamed.",
            BUCKETS,
        )
        self.first_tokens = self._count(
            "first_tokens",
            "Requests that were let in, whose first text had a budget of its own, by whether it came within it.",
            "met",
        )
        self.budget_ratio = self._spread(
            "request_latency_budget_ratio", "Latency of answered requests divided by their budgets.", BUDGET_RATIOS
        )
        self.forecast_ratio = self._spread(
            "forecast_latency_ratio", "Latency of answered requests divided by its median forecast.", FORECAST_RATIOS
        )

    def _count(self, name: str, about: str, *more: str) -> Counter:
        return counter(name, about, (*_LABELS, *more), self.registry)

    def _spread(self, name: str, about: str, bounds: tuple[float, ...]) -> Histogram:
        return histogram(name, about, _LABELS, bounds, self.registry)

    def _seconds(self, name: str, about: str) -> Histogram:
        return self._spread(f"request_{name}_seconds", f"{about}, of answered requests.", BUCKETS)


class _Tally:
    """The series of one checkpoint, or of a task's requests for which no checkpoint was chosen."""

    def __init__(self, families: _Families, task: str, checkpoint: str, tier: str) -> None:
        self._families = families
        self._of = of = (task, checkpoint, tier)
        reasons = TASKS[task].finish_reasons
        verdicts = Verdict if checkpoint else ()
        self.ended = {outcome: families.ended.labels(*of, outcome) for outcome in Outcome}
        self.routed = {reason.value: families.routed.labels(*of, reason) for reason in Reason}
        self.verdicts = {verdict: families.verdicts.labels(task, checkpoint, verdict) for verdict in verdicts}
        self.finished = {reason: families.finished.labels(*of, reason) for reason in reasons}
        self.degraded = families.degraded.labels(*of)
        self.attempts = families.attempts.labels(*of)
        self.forecast = families.forecast.labels(*of)
        self.covered = families.covered.labels(*of)
        self.nominal = families.nominal.labels(*of)
        self.tokens_in = families.tokens_in.labels(*of)
        self.tokens_out = families.tokens_out.labels(*of)
        self.truncated = families.truncated.labels(*of)

    def first_token(self, met: str) -> Counter:
        """The count of requests whose first text came within its budget, or did not; made with the first of them."""
        return self._families.first_tokens.labels(*self._of, met)

    @cached_property
    def spreads(self) -> _Spreads:
        """The histograms, made with the first answer: they are most of the lines of a scrape."""
        return _Spreads(self._families, self._of)


class _Spreads:
    """The histograms of one checkpoint; that of streamed answers is made with the first of them."""

    def __init__(self, families: _Families, of: tuple[str, str, str]) -> None:
        self._families = families
        self._of = of
        self.latency = families.latency.labels(*of)
        self.queueing_delay = families.queueing_delay.labels(*of)
        self.service_time = families.service_time.labels(*of)
        self.overhead = families.overhead.labels(*of)
        self.budget_ratio = families.budget_ratio.labels(*of)
        self.forecast_ratio = families.forecast_ratio.labels(*of)

    @cached_property
    def first_delta(self) -> Histogram:
        """The time to the first text of a streamed answer."""
        return self._families.first_delta.labels(*self._of)


class RequestMetrics(Collector):
    """Counts finished requests of one ingress process, each once."""

    def __init__(self, catalog: Catalog) -> None:
        self._families = families = _Families()
        self._chosen = {
            (task, entry.name): _Tally(families, task, entry.name, entry.tier)
            for entry in catalog.checkpoints
            for task in entry.tasks
        }
        self._none_chosen = {task: _Tally(families, task, "", "") for task in TASKS}

    def observe(self, record: RequestRecord) -> None:
        """Counts one request by its outcome, its decision and, if it was answered, its durations."""
        task, name = record.task, record.checkpoint
        tally = self._none_chosen[task] if name is None else self._chosen[task, name]
        tally.ended[record.outcome].inc()
        for assessed in record.verdicts:
            self._chosen[task, assessed.candidate.name].verdicts[assessed.verdict].inc()
        if record.attempts:
            tally.attempts.inc(record.attempts)
        if record.reason is not None:
            tally.routed[record.reason].inc()
        if record.degraded:
            tally.degraded.inc()
        if record.first_met is not None and record.attempts and record.outcome is not Outcome.CANCELLED:
            tally.first_token("true" if record.first_met else "false").inc()
        if record.answered:
            _observe_answer(tally, record)
            _observe_forecast(tally, record)

    def collect(self) -> Iterable[Metric]:
        """Every metric, for `exposition`."""
        return self._families.registry.collect()

    def text(self) -> str:
        """Writes all metrics at once. An ingress under load uses `exposition`, which lets requests run in between."""
        return text_of(self.collect())


def _observe_answer(tally: _Tally, record: RequestRecord) -> None:
    latency_s, spreads = record.latency_s, tally.spreads
    queueing_s, service_s = record.queueing_delay_s or 0.0, record.service_time_s or 0.0
    spreads.latency.observe(latency_s, _exemplar(record))
    spreads.queueing_delay.observe(queueing_s)
    spreads.service_time.observe(service_s)
    spreads.overhead.observe(max(latency_s - queueing_s - service_s, 0.0))
    if record.first_delta_s is not None:
        spreads.first_delta.observe(record.first_delta_s)
    if record.budget_s:
        spreads.budget_ratio.observe(latency_s / record.budget_s)
    tally.tokens_in.inc(record.kept)
    if record.truncated:
        tally.truncated.inc()
    if record.finish_reason is not None:
        tally.finished[record.finish_reason].inc()
        tally.tokens_out.inc(record.output_tokens)


def _exemplar(record: RequestRecord) -> dict[str, str] | None:
    """The trace of the request, if it is one that is kept: W3C's flag `sampled`, the last bit of its `traceparent`."""
    if record.traceparent is None:
        return None
    _, trace_id, _, flags = record.traceparent.split("-", 3)
    return {"trace_id": trace_id} if int(flags[:2], 16) & 1 else None


def _observe_forecast(tally: _Tally, record: RequestRecord) -> None:
    if record.predicted_s and record.quantile_s is not None and record.percentile is not None:
        tally.forecast.inc()
        tally.covered.inc(record.latency_s <= record.quantile_s)
        tally.nominal.inc(record.percentile / 100)
        tally.spreads.forecast_ratio.observe(record.latency_s / record.predicted_s)
