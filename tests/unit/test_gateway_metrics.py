"""Metrics: each request counted once, and several processes read as one scrape."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import BUCKETS, CONTENT_TYPE, RequestMetrics, one_scrape, replica_text
from gateway.outcome import Outcome
from gateway.records import RequestRecord


def record(outcome: Outcome, latency_s: float = 0.004, *, answered: bool = True) -> RequestRecord:
    """A request that ended so."""
    return RequestRecord(
        request_id="SECRET-ID",
        task="classify",
        outcome=outcome,
        latency_s=latency_s,
        checkpoint="swift" if answered else None,
        tier="realtime" if answered else None,
        service_time_s=0.002 if answered else None,
    )


def counted(*records: RequestRecord) -> str:
    """The text of a process that saw these."""
    metrics = RequestMetrics()
    for one in records:
        metrics.observe(one)
    return metrics.text()


def samples(text: str | bytes, name: str) -> list[tuple[dict[str, str], float]]:
    """The labels and values of the samples of that name."""
    text = text.decode() if isinstance(text, bytes) else text
    families = text_string_to_metric_families(text)
    return [(one.labels, one.value) for family in families for one in family.samples if one.name == name]


def test_a_request_is_counted_once_under_its_outcome() -> None:
    """Whatever the outcome, the total rises by one in one series."""
    text = counted(*(record(outcome, answered=outcome is Outcome.IN_TIME) for outcome in Outcome))
    found = samples(text, "punctual_requests_total")
    assert {labels["outcome"]: value for labels, value in found} == {outcome.value: 1.0 for outcome in Outcome}


def test_only_answered_requests_have_a_latency() -> None:
    """A refusal is quick and must not make the latency look good; a strict answer that expired was not given."""
    refused, expired = record(Outcome.SHED, answered=False), record(Outcome.EXPIRED, 9.0)
    text = counted(record(Outcome.IN_TIME), record(Outcome.LATE, 2.5), refused, expired)
    assert [value for _, value in samples(text, "punctual_request_latency_seconds_count")] == [2.0]
    assert samples(text, "punctual_request_latency_seconds_sum")[0][1] == pytest.approx(2.504)


def test_what_was_written_is_counted_where_it_was_answered() -> None:
    """Summaries by why they ended, and their tokens; not of classifications, nor of answers that nobody had."""
    whole = replace(record(Outcome.IN_TIME), task="summarize", finish_reason="stop", output_tokens=40)
    cut = replace(record(Outcome.LATE), task="summarize", finish_reason="deadline", output_tokens=7)
    expired = replace(record(Outcome.EXPIRED), task="summarize", finish_reason="deadline", output_tokens=9)
    text = counted(whole, whole, cut, expired, record(Outcome.IN_TIME))
    summaries = samples(text, "punctual_summaries_total")
    assert {labels["finish_reason"]: value for labels, value in summaries} == {"stop": 2.0, "deadline": 1.0}
    assert [value for _, value in samples(text, "punctual_output_tokens_total")] == [87.0]
    assert all(labels["task"] == "summarize" for labels, _ in summaries)


def test_a_cut_text_is_counted_where_it_was_answered() -> None:
    """Of either task, once a request, and only where an answer was made of what was left."""
    cut = replace(record(Outcome.IN_TIME), truncated=True)
    text = counted(cut, replace(cut, task="summarize"), replace(cut, outcome=Outcome.EXPIRED), record(Outcome.IN_TIME))
    found = samples(text, "punctual_truncated_requests_total")
    assert {labels["task"]: value for labels, value in found} == {"classify": 1.0, "summarize": 1.0}


def test_buckets_tell_milliseconds_apart() -> None:
    """The buckets rise, and are fine where budgets are."""
    assert list(BUCKETS) == sorted(set(BUCKETS))
    assert sum(bucket <= 0.1 for bucket in BUCKETS) >= 10
    text = counted(record(Outcome.IN_TIME, 0.004))
    by_bound = {labels["le"]: value for labels, value in samples(text, "punctual_request_latency_seconds_bucket")}
    assert (by_bound["0.003"], by_bound["0.005"], by_bound["+Inf"]) == (0.0, 1.0, 1.0)


def test_labels_are_closed_lists() -> None:
    """Nothing a client chooses freely becomes a label, and no series says when it began."""
    text = counted(record(Outcome.IN_TIME))
    assert "SECRET" not in text and "_created" not in text


def test_several_processes_are_one_scrape() -> None:
    """Each family is described once; every sample keeps its value and says whose it is."""
    texts = {
        "in-1": counted(record(Outcome.IN_TIME), record(Outcome.IN_TIME)),
        "in-2": counted(record(Outcome.IN_TIME), record(Outcome.LATE)),
        "re-1": replica_text("swift", {"batches": 3.0}, {"queued_inputs": 2.0}),
    }
    scrape = one_scrape(texts)
    lines = scrape.decode().splitlines()
    for kind in ("HELP", "TYPE"):
        described = [line.split()[2] for line in lines if line.startswith(f"# {kind}")]
        assert len(described) == len(set(described)) and "punctual_requests_total" in described
    found = samples(scrape, "punctual_requests_total")
    by_place = {(labels["replica"], labels["outcome"]): value for labels, value in found}
    assert by_place == {("in-1", "in_time"): 2.0, ("in-2", "in_time"): 1.0, ("in-2", "late"): 1.0}
    assert sum(value for _, value in samples(scrape, "punctual_request_latency_seconds_count")) == 4.0
    assert samples(scrape, "punctual_replica_batches_total") == [({"checkpoint": "swift", "replica": "re-1"}, 3.0)]


def test_samples_of_one_family_stand_together() -> None:
    """The text format wants all lines of a metric in one group, also when they come from several processes."""
    text = counted(record(Outcome.IN_TIME))
    lines = one_scrape({"a": text, "b": text}).decode().splitlines()
    names = [line.split("{")[0] for line in lines if line.startswith("punctual_requests_total")]
    first = next(at for at, line in enumerate(lines) if line.startswith("punctual_requests_total"))
    assert all(line.startswith("punctual_requests_total") for line in lines[first : first + len(names)])
    assert len(names) == 2


def test_a_silent_process_is_seen_to_be_silent() -> None:
    """Every process has an `up`: 1 where it answered, 0 where it did not."""
    scrape = one_scrape({"a": counted(), "b": counted()}, silent=["c"])
    up = {labels["replica"]: value for labels, value in samples(scrape, "punctual_replica_up")}
    assert up == {"a": 1.0, "b": 1.0, "c": 0.0}


def test_nobody_answering_is_still_a_scrape() -> None:
    """An empty application gives an exposition that parses."""
    assert samples(one_scrape({}), "punctual_replica_up") == []
    assert CONTENT_TYPE.startswith("text/plain")


def test_a_replicas_totals_bear_its_checkpoint() -> None:
    """Counters end in _total, gauges do not; values and odd names come through unharmed."""
    text = replica_text('odd"name\\\n', {"service_time_seconds": 0.1 + 0.2}, {"backlog_seconds": math.inf})
    assert samples(text, "punctual_replica_service_time_seconds_total") == [({"checkpoint": 'odd"name\\\n'}, 0.1 + 0.2)]
    assert samples(text, "punctual_replica_backlog_seconds") == [({"checkpoint": 'odd"name\\\n'}, math.inf)]
