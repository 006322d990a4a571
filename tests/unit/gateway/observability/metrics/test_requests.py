"""The request metrics of an ingress: each request counts once, in series that exist from the start."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import EVEN, GRAND, SWIFT, catalog
from scraped import samples, total

from gateway.model.outcome import Outcome
from gateway.model.tier import Tier
from gateway.observability.metrics import BUCKETS, RequestMetrics
from gateway.observability.record import RequestRecord
from gateway.scheduling.policy import Assessed, Candidate, Reason, Verdict
from gateway.tasks import TASKS


def record(outcome: Outcome, latency_s: float = 0.004, *, answered: bool = True) -> RequestRecord:
    """Return a record with this outcome."""
    return RequestRecord(
        request_id="SECRET-ID",
        task="classify",
        outcome=outcome,
        latency_s=latency_s,
        checkpoint=SWIFT if answered else None,
        tier="realtime" if answered else None,
        service_time_s=0.002 if answered else None,
    )


def counted(*records: RequestRecord) -> str:
    """Return the metrics of a process that saw these records."""
    metrics = RequestMetrics(catalog())
    for one in records:
        metrics.observe(one)
    return metrics.text()


def test_a_request_is_counted_once_under_its_outcome() -> None:
    """A request adds one to one series, whatever its outcome."""
    text = counted(*(record(outcome, answered=outcome is Outcome.IN_TIME) for outcome in Outcome))
    found = [(labels["outcome"], value) for labels, value in samples(text, "punctual_requests_total") if value]
    assert dict(found) == {outcome.value: 1.0 for outcome in Outcome} and len(found) == len(Outcome)
    assert total(text, "punctual_requests_total", checkpoint=SWIFT, tier="realtime") == 1.0


def test_what_may_come_is_there_at_zero() -> None:
    """Every series exists at 0 from the start, so that `rate` sees the first event."""
    found = samples(counted(), "punctual_requests_total")
    assert {value for _, value in found} == {0.0}
    places = {(labels["task"], labels["checkpoint"], labels["tier"]) for labels, _ in found}
    named = {("classify", SWIFT, "realtime"), ("classify", EVEN, "balanced"), ("classify", GRAND, "quality")}
    assert places == {*named, *((task, "", "") for task in TASKS)}
    assert len(found) == len(places) * len(Outcome)
    reasons = [labels["reason"] for labels, _ in samples(counted(), "punctual_routed_requests_total")]
    assert set(reasons) == {reason.value for reason in Reason} and len(reasons) == len(places) * len(Reason)


def test_only_answered_requests_have_a_latency() -> None:
    """Only answers have a latency: quick refusals must not improve it, and an expired answer was not given."""
    refused, expired = record(Outcome.SHED, answered=False), record(Outcome.EXPIRED, 9.0)
    text = counted(record(Outcome.IN_TIME), record(Outcome.LATE, 2.5), refused, expired)
    assert [value for _, value in samples(text, "punctual_request_latency_seconds_count")] == [2.0]
    assert samples(text, "punctual_request_latency_seconds_sum")[0][1] == pytest.approx(2.504)


def test_latency_is_queueing_delay_and_service_time_and_overhead() -> None:
    """Queueing delay, service time and overhead add up to the latency, and overhead is never negative."""
    one = replace(record(Outcome.IN_TIME, 0.5), queueing_delay_s=0.2, service_time_s=0.25)
    text = counted(one)
    parts = [total(text, f"punctual_request_{part}_seconds_sum") for part in ("queueing_delay", "service_time")]
    overhead_s = total(text, "punctual_request_overhead_seconds_sum")
    assert (*parts, overhead_s) == pytest.approx((0.2, 0.25, 0.05))
    text = counted(replace(one, service_time_s=0.31))
    assert total(text, "punctual_request_overhead_seconds_sum") == 0.0


def test_latency_is_held_against_the_budget() -> None:
    """An answer exactly at its budget is within the bucket of 1, and a later one is not."""
    at, over = (replace(record(Outcome.IN_TIME, latency_s), budget_s=0.2) for latency_s in (0.2, 0.21))
    name = "punctual_request_latency_budget_ratio"
    text = counted(at, over, over)
    assert (total(text, f"{name}_bucket", le="1.0"), total(text, f"{name}_count")) == (1.0, 3.0)
    assert total(text, f"{name}_sum") == pytest.approx(3.1)


def test_coverage_is_what_was_covered_of_what_was_forecast() -> None:
    """Coverage counts answers with a forecast, those at or under their quantile, and the shares promised."""
    one = replace(record(Outcome.LATE, 0.3), predicted_s=0.2, quantile_s=0.3, percentile=95.0)
    text = counted(one, replace(one, latency_s=0.31, percentile=50.0), record(Outcome.IN_TIME))
    names = ("answers", "covered_answers", "nominal_answers")
    found = [total(text, f"punctual_forecast_{name}_total", checkpoint=SWIFT) for name in names]
    assert found == pytest.approx([2.0, 1.0, 1.45])
    assert total(text, "punctual_forecast_latency_ratio_sum") == pytest.approx(1.5 + 1.55)


def test_a_decision_is_counted_with_all_it_looked_at() -> None:
    """A decision counts its reason once and the verdict of each candidate, chosen or refused."""
    verdicts = tuple(
        Assessed(Candidate(name, Tier.REALTIME, 1.0, None, None), verdict)
        for name, verdict in ((GRAND, Verdict.TOO_SLOW), (SWIFT, Verdict.FITS))
    )
    chosen = replace(record(Outcome.IN_TIME), verdicts=verdicts, reason="congestion", degraded=True, attempts=2)
    refused = replace(record(Outcome.INFEASIBLE, answered=False), verdicts=verdicts[:1])
    text = counted(chosen, refused)
    found = [(one["checkpoint"], one["verdict"], value) for one, value in samples(text, VERDICTS) if value]
    assert sorted(found) == [(GRAND, "too-slow", 2.0), (SWIFT, "fits", 1.0)]
    routed = [(one["reason"], value) for one, value in samples(text, "punctual_routed_requests_total") if value]
    assert routed == [("congestion", 1.0)]
    assert total(text, "punctual_degraded_requests_total", checkpoint=SWIFT) == 1.0
    assert total(text, "punctual_request_attempts_total") == 2.0


VERDICTS = "punctual_candidate_verdicts_total"


def test_what_was_written_is_counted_where_it_was_answered() -> None:
    """Tokens are counted only for requests that were answered."""
    text = counted(replace(record(Outcome.IN_TIME), kept=7), replace(record(Outcome.EXPIRED), kept=9))
    assert total(text, "punctual_input_tokens_total") == 7.0
    assert total(text, "punctual_output_tokens_total") == 0.0


def test_a_cut_text_is_counted_where_it_was_answered() -> None:
    """A cut text counts once a request, and only if the request was answered."""
    cut = replace(record(Outcome.IN_TIME), truncated=True)
    text = counted(cut, cut, replace(cut, outcome=Outcome.EXPIRED), record(Outcome.IN_TIME))
    assert total(text, "punctual_truncated_requests_total") == 2.0


def test_buckets_tell_milliseconds_apart() -> None:
    """The latency buckets ascend, are finest below 100 ms, and include their upper bound."""
    assert list(BUCKETS) == sorted(set(BUCKETS)) and (BUCKETS[0], BUCKETS[-1]) == (0.001, 60.0)
    assert sum(bucket <= 0.1 for bucket in BUCKETS) >= 10
    text = counted(*(record(Outcome.IN_TIME, latency_s) for latency_s in (0.004, 0.005, 99.0)))
    by_bound = {labels["le"]: value for labels, value in samples(text, "punctual_request_latency_seconds_bucket")}
    assert (by_bound["0.003"], by_bound["0.005"], by_bound["60.0"], by_bound["+Inf"]) == (0.0, 2.0, 2.0, 3.0)


def test_labels_are_closed_lists() -> None:
    """No label has a value that a client chooses, and no series has a creation time."""
    text = counted(record(Outcome.IN_TIME))
    assert "SECRET" not in text and "_created" not in text
