"""What one ingress process counts of finished requests: an observer of their records.

Every series that a request can ever touch is made at the start, from the catalog: nothing that a client sends can add
one, `rate` sees the first event, and a request costs two look-ups and some additions. Native histograms are not
offered: the library cannot record them, and Prometheus takes them by protobuf alone. A newer one makes its own of
these as it scrapes them (`convert_classic_histograms_to_nhcb`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.catalogs.catalog import Catalog
from gateway.metrics.series import Count, Distribution, Family
from gateway.model.outcome import Outcome
from gateway.records import RequestRecord
from gateway.scheduling.policy import Reason, Verdict
from gateway.tasks import TASKS

_MILLISECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1)
BUCKETS = (*_MILLISECONDS, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds: from a short text on an idle replica to the longest budget."""

BUDGET_RATIOS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 5.0, 10.0)
"""Of a latency to its budget: finest about 1, where in time and late part."""

FORECAST_RATIOS = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0, 8.0)
"""Of a latency to its median forecast: half of them belong at or under 1."""


class _Families:
    """Every metric of requests. `all` has them in the order of a scrape."""

    def __init__(self) -> None:
        self.all: list[Family] = []
        self.ended = self._of("requests", "Requests that ended, each once, by how they ended.", "outcome")
        self.routed = self._of("routed_requests", "Requests for which a checkpoint was chosen, by why.", "reason")
        self.degraded = self._of("degraded_requests", "Requests given less than the best that their terms allow.")
        self.attempts = self._of("request_attempts", "Dispatches; more than requests where replicas were lost.")
        self.verdicts = Family(
            "punctual_candidate_verdicts",
            "Candidates that decisions looked at, by what was found of them.",
            ("task", "checkpoint", "verdict"),
        )
        self.all.append(self.verdicts)
        self.forecast = self._of("forecast_answers", "Answers whose latency had been forecast.")
        self.covered = self._of("forecast_covered_answers", "Answers no later than their forecast quantile.")
        self.nominal = self._of("forecast_nominal_answers", "Sum of the shares at which those quantiles were forecast.")
        self.tokens_in = self._of("input_tokens", "Tokens of answered texts that engines were given.")
        self.tokens_out = self._of("output_tokens", "Tokens of summaries.")
        self.truncated = self._of("truncated_requests", "Answered requests of whose texts not all was read.")
        self.finished = self._of("summaries", "Requests answered with summaries, by why they ended.", "finish_reason")
        self.latency = self._seconds("latency", "Arrival at the gateway to the answer")
        self.queueing_delay = self._seconds("queueing_delay", "Waiting for a run, at the gateway and at the replica")
        self.service_time = self._seconds("service_time", "The engine's runs that carried the request")
        self.overhead = self._seconds("overhead", "Latency but for queueing delay and service time")
        self.budget_ratio = self._of(
            "request_latency_budget_ratio", "Latency of answered requests by their budgets.", bounds=BUDGET_RATIOS
        )
        self.forecast_ratio = self._of(
            "forecast_latency_ratio", "Latency of answered requests by its median forecast.", bounds=FORECAST_RATIOS
        )

    def _of(self, name: str, about: str, label: str = "", bounds: Sequence[float] = ()) -> Family:
        labels = ("task", "checkpoint", "tier", *((label,) if label else ()))
        family = Family(f"punctual_{name}", about, labels, bounds)
        self.all.append(family)
        return family

    def _seconds(self, name: str, about: str) -> Family:
        return self._of(f"request_{name}_seconds", f"{about}, of answered requests.", bounds=BUCKETS)


@dataclass(frozen=True, slots=True)
class _Tally:
    """The series of one checkpoint, or those of a task for requests that came to none."""

    ended: dict[Outcome, Count]
    routed: dict[str, Count]
    verdicts: dict[Verdict, Count]
    finished: dict[str, Count]
    degraded: Count
    attempts: Count
    forecast: Count
    covered: Count
    nominal: Count
    tokens_in: Count
    tokens_out: Count
    truncated: Count
    latency: Distribution
    queueing_delay: Distribution
    service_time: Distribution
    overhead: Distribution
    budget_ratio: Distribution
    forecast_ratio: Distribution


class RequestMetrics:
    """Counts finished requests of one ingress process, each once."""

    def __init__(self, catalog: Catalog) -> None:
        families = _Families()
        self._families = tuple(families.all)
        self._chosen = {
            entry.name: _tally(families, entry.task, entry.name, entry.tier) for entry in catalog.checkpoints
        }
        self._none_chosen = {task: _tally(families, task, "", "") for task in TASKS}

    def observe(self, record: RequestRecord) -> None:
        """Counts one request by how it ended, what was decided and, where it was answered, what that took."""
        name = record.checkpoint
        tally = self._none_chosen[record.task] if name is None else self._chosen[name]
        tally.ended[record.outcome].value += 1
        for assessed in record.verdicts:
            self._chosen[assessed.candidate.name].verdicts[assessed.verdict].value += 1
        if record.attempts:
            tally.attempts.value += record.attempts
        if record.reason is not None:
            tally.routed[record.reason].value += 1
        if record.degraded:
            tally.degraded.value += 1
        if record.answered:
            _observe_answer(tally, record)
            _observe_forecast(tally, record)

    def text(self) -> str:
        """What was counted, in the text format."""
        return "".join([family.text() for family in self._families])


def _observe_answer(tally: _Tally, record: RequestRecord) -> None:
    latency_s = record.latency_s
    queueing_s, service_s = record.queueing_delay_s or 0.0, record.service_time_s or 0.0
    tally.latency.observe(latency_s)
    tally.queueing_delay.observe(queueing_s)
    tally.service_time.observe(service_s)
    tally.overhead.observe(max(latency_s - queueing_s - service_s, 0.0))
    if record.budget_s:
        tally.budget_ratio.observe(latency_s / record.budget_s)
    tally.tokens_in.value += record.kept
    if record.truncated:
        tally.truncated.value += 1
    if record.finish_reason is not None:
        tally.finished[record.finish_reason].value += 1
        tally.tokens_out.value += record.output_tokens


def _observe_forecast(tally: _Tally, record: RequestRecord) -> None:
    if record.predicted_s and record.quantile_s is not None and record.percentile is not None:
        tally.forecast.value += 1
        tally.covered.value += record.latency_s <= record.quantile_s
        tally.nominal.value += record.percentile / 100
        tally.forecast_ratio.observe(record.latency_s / record.predicted_s)


def _tally(families: _Families, task: str, checkpoint: str, tier: str) -> _Tally:
    of = (task, checkpoint, tier)
    reasons = TASKS[task].finish_reasons
    return _Tally(
        ended={outcome: families.ended.count(*of, outcome) for outcome in Outcome},
        routed={reason.value: families.routed.count(*of, reason) for reason in Reason},
        verdicts={one: families.verdicts.count(task, checkpoint, one) for one in (Verdict if checkpoint else ())},
        finished={reason: families.finished.count(*of, reason) for reason in reasons},
        degraded=families.degraded.count(*of),
        attempts=families.attempts.count(*of),
        forecast=families.forecast.count(*of),
        covered=families.covered.count(*of),
        nominal=families.nominal.count(*of),
        tokens_in=families.tokens_in.count(*of),
        tokens_out=families.tokens_out.count(*of),
        truncated=families.truncated.count(*of),
        latency=families.latency.distribution(*of),
        queueing_delay=families.queueing_delay.distribution(*of),
        service_time=families.service_time.distribution(*of),
        overhead=families.overhead.distribution(*of),
        budget_ratio=families.budget_ratio.distribution(*of),
        forecast_ratio=families.forecast_ratio.distribution(*of),
    )
