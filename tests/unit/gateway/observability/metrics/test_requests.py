"""What an ingress counts of requests: each once, whatever became of it, in series that are there from the start."""

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


def record(outcome: Outcome, latency_s: float = 0.004, *, answered: bool = True) -> RequestRecord:
    """A request that ended so."""
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
    """The text of a process that saw these."""
    metrics = RequestMetrics(catalog())
    for one in records:
        metrics.observe(one)
    return metrics.text()


def test_a_request_is_counted_once_under_its_outcome() -> None:
    """Whatever the outcome, the total rises by one in one series."""
    text = counted(*(record(outcome, answered=outcome is Outcome.IN_TIME) for outcome in Outcome))
    found = [(labels["outcome"], value) for labels, value in samples(text, "punctual_requests_total") if value]
    assert dict(found) == {outcome.value: 1.0 for outcome in Outcome} and len(found) == len(Outcome)
    assert total(text, "punctual_requests_total", checkpoint=SWIFT, tier="realtime") == 1.0


def test_what_may_come_is_there_at_zero() -> None:
    """Every checkpoint under every outcome and reason, and none at all: `rate` sees the first event."""
    found = samples(counted(), "punctual_requests_total")
    assert {value for _, value in found} == {0.0}
    places = {(labels["task"], labels["checkpoint"], labels["tier"]) for labels, _ in found}
    named = {("classify", SWIFT, "realtime"), ("classify", EVEN, "balanced"), ("classify", GRAND, "quality")}
    assert places == {*named, ("classify", "", ""), ("summarize", "", "")}
    assert len(found) == len(places) * len(Outcome)
    reasons = [labels["reason"] for labels, _ in samples(counted(), "punctual_routed_requests_total")]
    assert set(reasons) == {reason.value for reason in Reason} and len(reasons) == len(places) * len(Reason)


def test_only_answered_requests_have_a_latency() -> None:
    """A refusal is quick and must not make the latency look good; a strict answer that expired was not given."""
    refused, expired = record(Outcome.SHED, answered=False), record(Outcome.EXPIRED, 9.0)
    text = counted(record(Outcome.IN_TIME), record(Outcome.LATE, 2.5), refused, expired)
    assert [value for _, value in samples(text, "punctual_request_latency_seconds_count")] == [2.0]
    assert samples(text, "punctual_request_latency_seconds_sum")[0][1] == pytest.approx(2.504)


def test_latency_is_queueing_delay_and_service_time_and_overhead() -> None:
    """The three of an answer add up to its latency; overhead is never negative, however clocks round."""
    one = replace(record(Outcome.IN_TIME, 0.5), queueing_delay_s=0.2, service_time_s=0.25)
    text = counted(one)
    parts = [total(text, f"punctual_request_{part}_seconds_sum") for part in ("queueing_delay", "service_time")]
    overhead_s = total(text, "punctual_request_overhead_seconds_sum")
    assert (*parts, overhead_s) == pytest.approx((0.2, 0.25, 0.05))
    text = counted(replace(one, service_time_s=0.31))
    assert total(text, "punctual_request_overhead_seconds_sum") == 0.0


def test_latency_is_held_against_the_budget() -> None:
    """An answer at its budget is within the bucket of 1, a later one is not."""
    at, over = (replace(record(Outcome.IN_TIME, latency_s), budget_s=0.2) for latency_s in (0.2, 0.21))
    name = "punctual_request_latency_budget_ratio"
    text = counted(at, over, over)
    assert (total(text, f"{name}_bucket", le="1.0"), total(text, f"{name}_count")) == (1.0, 3.0)
    assert total(text, f"{name}_sum") == pytest.approx(3.1)


def test_coverage_is_what_was_covered_of_what_was_forecast() -> None:
    """Answers at or under their quantile, beside the shares that were promised; what had no forecast is in neither."""
    one = replace(record(Outcome.LATE, 0.3), predicted_s=0.2, quantile_s=0.3, percentile=95.0)
    text = counted(one, replace(one, latency_s=0.31, percentile=50.0), record(Outcome.IN_TIME))
    names = ("answers", "covered_answers", "nominal_answers")
    found = [total(text, f"punctual_forecast_{name}_total", checkpoint=SWIFT) for name in names]
    assert found == pytest.approx([2.0, 1.0, 1.45])
    assert total(text, "punctual_forecast_latency_ratio_sum") == pytest.approx(1.5 + 1.55)


def test_a_decision_is_counted_with_all_it_looked_at() -> None:
    """Its reason once, each candidate under its verdict, whether a checkpoint was chosen or none."""
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
    """Tokens of classified texts too; of answers that nobody had, none."""
    text = counted(replace(record(Outcome.IN_TIME), kept=7), replace(record(Outcome.EXPIRED), kept=9))
    assert total(text, "punctual_input_tokens_total") == 7.0
    assert total(text, "punctual_output_tokens_total") == 0.0


def test_a_cut_text_is_counted_where_it_was_answered() -> None:
    """Once a request, and only where an answer was made of what was left."""
    cut = replace(record(Outcome.IN_TIME), truncated=True)
    text = counted(cut, cut, replace(cut, outcome=Outcome.EXPIRED), record(Outcome.IN_TIME))
    assert total(text, "punctual_truncated_requests_total") == 2.0


def test_buckets_tell_milliseconds_apart() -> None:
    """The buckets rise, and are fine where budgets are; a value at a bound is within it."""
    assert list(BUCKETS) == sorted(set(BUCKETS)) and (BUCKETS[0], BUCKETS[-1]) == (0.001, 60.0)
    assert sum(bucket <= 0.1 for bucket in BUCKETS) >= 10
    text = counted(*(record(Outcome.IN_TIME, latency_s) for latency_s in (0.004, 0.005, 99.0)))
    by_bound = {labels["le"]: value for labels, value in samples(text, "punctual_request_latency_seconds_bucket")}
    assert (by_bound["0.003"], by_bound["0.005"], by_bound["60.0"], by_bound["+Inf"]) == (0.0, 2.0, 2.0, 3.0)


def test_labels_are_closed_lists() -> None:
    """Nothing a client chooses freely becomes a label, and no series says when it began."""
    text = counted(record(Outcome.IN_TIME))
    assert "SECRET" not in text and "_created" not in text
