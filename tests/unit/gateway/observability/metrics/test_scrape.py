"""How the metrics of many processes become one scrape, and what it adds about the application."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from fakes import SWIFT, catalog
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from sample_records import RECORD
from scraped import samples, series, total

from gateway.model.outcome import Outcome
from gateway.observability.metrics import (
    CONTENT_TYPE,
    Process,
    ReplicaFacts,
    RequestMetrics,
    SeenDeployment,
    application_text,
    counter,
    exposition,
    formatted,
    one_scrape,
    replica_text,
)
from gateway.observability.record import RequestRecord

FACTS = ReplicaFacts(SWIFT, "classify", "realtime", agreement=0.995, started_s=1.7e9)


def ingress(*outcomes: Outcome) -> str:
    """Return the metrics of an ingress whose requests had these outcomes."""
    metrics = RequestMetrics(catalog())
    for outcome in outcomes:
        record = RequestRecord(
            request_id="r", task="classify", outcome=outcome, latency_s=0.1, checkpoint=SWIFT, tier="realtime"
        )
        metrics.observe(record)
    return metrics.text()


TRACED = "0af7651916cd43dd8448eb211c80319c"


def traced(flags: str) -> RequestRecord:
    """Return the record of an answer with a trace of these flags."""
    return replace(RECORD, checkpoint=SWIFT, tier="realtime", traceparent=f"00-{TRACED}-b7ad6b7169203331-{flags}")


def test_openmetrics_has_the_traces_of_latencies_and_the_text_format_none() -> None:
    """Who asks for OpenMetrics gets what its parser takes, with a trace that is kept for a latency; others never."""
    metrics = RequestMetrics(catalog())
    metrics.observe(traced("01"))
    replica = replica_text(FACTS, {"batches": 3.0}, {"queued_inputs": 2.0}, {})
    scrape = one_scrape([Process("a", "gateway", metrics.text()), Process("b", SWIFT, replica)], application_text([]))
    plain, kind = formatted(scrape, open_metrics=False)
    assert kind == CONTENT_TYPE and TRACED.encode() not in plain and series(plain)
    opened, kind = formatted(scrape, open_metrics=True)
    assert kind.startswith("application/openmetrics-text")
    families = [*openmetrics(opened.decode())]  # type: ignore[no-untyped-call]
    held = [one for family in families for one in family.samples if one.exemplar]
    assert [(one.name, one.labels["replica"], one.exemplar.labels) for one in held] == [
        ("punctual_request_latency_seconds_bucket", "a", {"trace_id": TRACED})
    ]
    there = {(one.name, frozenset(one.labels.items())) for family in families for one in family.samples}
    assert there == set(series(plain))


def test_a_trace_that_nobody_keeps_is_no_example() -> None:
    """A request whose trace is not sampled leaves no exemplar."""
    metrics = RequestMetrics(catalog())
    metrics.observe(traced("00"))
    assert TRACED not in metrics.text()


def test_several_processes_are_one_scrape() -> None:
    """Each metric is described once, and each sample keeps its value and names its process."""
    texts = {
        "in-1": ingress(Outcome.IN_TIME, Outcome.IN_TIME),
        "in-2": ingress(Outcome.IN_TIME, Outcome.LATE),
        "re-1": replica_text(FACTS, {"batches": 3.0}, {"queued_inputs": 2.0}, {}),
    }
    scrape = one_scrape([Process(name, "any", text) for name, text in texts.items()])
    lines = scrape.decode().splitlines()
    for kind in ("HELP", "TYPE"):
        described = [line.split()[2] for line in lines if line.startswith(f"# {kind}")]
        assert len(described) == len(set(described)) and "punctual_requests_total" in described
    found = [(one, value) for one, value in samples(scrape, "punctual_requests_total") if value]
    by_place = {(labels["replica"], labels["outcome"]): value for labels, value in found}
    assert by_place == {("in-1", "in_time"): 2.0, ("in-2", "in_time"): 1.0, ("in-2", "late"): 1.0}
    assert total(scrape, "punctual_request_latency_seconds_count") == 4.0
    of_replica = {"checkpoint": SWIFT, "task": "classify", "tier": "realtime", "replica": "re-1"}
    assert samples(scrape, "punctual_replica_batches_total") == [(of_replica, 3.0)]
    for name, text in texts.items():
        moved = {
            (one, frozenset(labels - {("replica", name)}))
            for one, labels in series(scrape)
            if ("replica", name) in labels
        }
        assert series(text) <= moved


async def test_requests_pass_between_two_metrics() -> None:
    """Writing all metrics yields to the event loop between any two, and gives an unchanged text."""
    metrics = RequestMetrics(catalog())
    metrics.observe(replace(RECORD, checkpoint=SWIFT, tier="realtime"))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    text = await exposition(metrics)
    beside.cancel()
    assert text == metrics.text() and turns >= text.count("# TYPE ")


def test_samples_of_one_family_stand_together() -> None:
    """All samples of a metric stand together, whichever process they are from."""
    text = ingress(Outcome.IN_TIME)
    lines = one_scrape([Process("a", "gateway", text), Process("b", "gateway", text)]).decode().splitlines()
    where = [at for at, line in enumerate(lines) if line.startswith("punctual_requests_total")]
    assert where == list(range(where[0], where[0] + len(where)))
    assert len(where) == 2 * len(samples(text, "punctual_requests_total"))


async def test_a_series_without_labels_gets_its_first() -> None:
    """A series without labels gets the process's name as its only label."""
    lost = counter("lost", "About.", ())
    lost.inc(3)
    text = await exposition(lost)
    scrape = one_scrape([Process("x", "gateway", "# HELP a_b About.\n# TYPE a_b gauge\na_b 2.0\n" + text)])
    assert samples(scrape, "a_b") == [({"replica": "x"}, 2.0)]
    assert b'punctual_lost_total{replica="x"} 3.0\n' in scrape and "punctual_lost_total 3.0\n" in text


def test_a_silent_process_is_seen_to_be_silent() -> None:
    """Every process has an `up` of 1 or 0, with its deployment."""
    asked = [Process("a", "gateway", ingress()), Process("b", SWIFT, ""), Process("c", SWIFT, None)]
    up = {
        (one["replica"], one["deployment"]): value for one, value in samples(one_scrape(asked), "punctual_replica_up")
    }
    assert up == {("a", "gateway"): 1.0, ("b", SWIFT): 1.0, ("c", SWIFT): 0.0}


def test_nobody_answering_is_still_a_scrape() -> None:
    """A scrape of no processes parses, and has its duration."""
    scrape = one_scrape([], took_s=1.5)
    assert samples(scrape, "punctual_replica_up") == []
    assert samples(scrape, "punctual_scrape_duration_seconds") == [({}, 1.5)]
    assert CONTENT_TYPE.startswith("text/plain")


def test_a_replicas_totals_bear_its_checkpoint() -> None:
    """Counters of a replica end in _total and have its checkpoint; special characters in names survive."""
    odd = ReplicaFacts('odd"name\\\n{', "classify", "realtime", 1.0, 0.0)
    text = replica_text(odd, {"service_time_seconds": 0.1 + 0.2}, {"backlog_seconds": float("inf")}, {})
    scrape = one_scrape([Process('re"1\\', "odd", text)])
    labels = {"checkpoint": 'odd"name\\\n{', "task": "classify", "tier": "realtime", "replica": 're"1\\'}
    assert samples(scrape, "punctual_replica_service_time_seconds_total") == [(labels, 0.1 + 0.2)]
    assert samples(scrape, "punctual_replica_backlog_seconds") == [(labels, float("inf"))]


def test_a_replica_says_what_it_was_proven_to_be() -> None:
    """A replica exports its self-test, its agreement with the source and its start time."""
    text = replica_text(FACTS, {}, {}, {})
    assert total(text, "punctual_replica_self_test_agreement_ratio") == 0.995
    assert total(text, "punctual_replica_self_test_passed") == 1.0
    assert total(text, "punctual_replica_start_time_seconds") == 1.7e9


def test_batches_are_counted_by_their_size() -> None:
    """Each batch counts in the smallest bucket that holds its size; the sum counts all inputs."""
    text = replica_text(FACTS, {}, {}, {1: 5, 4: 2, 5: 1, 99: 1})
    name = "punctual_replica_batch_size"
    within = {one["le"]: value for one, value in samples(text, f"{name}_bucket")}
    assert (within["1.0"], within["3.0"], within["4.0"], within["6.0"]) == (5.0, 5.0, 7.0, 8.0)
    assert (within["32.0"], within["+Inf"], total(text, f"{name}_count")) == (8.0, 9.0, 9.0)
    assert total(text, f"{name}_sum") == 5 + 8 + 5 + 99


def test_a_deployment_is_in_one_state_of_a_closed_list() -> None:
    """A deployment has 1 for its state and 0 for every other state, and so have its replicas."""
    seen = [
        SeenDeployment("gateway", "healthy", {"running": 2}),
        SeenDeployment(SWIFT, "updating", {"running": 1, "starting": 3}, self_test_failed=True),
    ]
    text = application_text(seen)
    states = samples(text, "punctual_deployment_state")
    assert {(one["deployment"], one["state"]) for one, value in states if value} == {
        ("gateway", "healthy"), (SWIFT, "updating")
    }  # fmt: skip
    assert len(states) == 2 * 6
    assert total(text, "punctual_deployment_replicas", deployment=SWIFT, state="starting") == 3.0
    assert total(text, "punctual_deployment_replicas", deployment="gateway", state="starting") == 0.0
    assert samples(text, "punctual_checkpoint_self_test_failed") == [({"checkpoint": SWIFT}, 1.0)]
    assert application_text([]) == ""
