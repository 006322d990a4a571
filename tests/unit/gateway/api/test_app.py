"""The HTTP edge as a client meets it: the answers, and the endpoints that run nothing."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import pytest
from fakes import ANSWER, EVEN, GRAND, SWIFT, scripted
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from worlds import OwnMetrics, client_of, gateway, is_problem, world

from gateway.api import app
from gateway.model.messages import Answer, Failure, FailureKind, InputReport, ReplicaTimings
from gateway.model.outcome import Outcome

pytestmark = pytest.mark.virtual_time

BODY = {"inputs": "a good film"}
SECRET = "SECRET"


async def test_an_answer_is_the_hub_apis_and_its_headers_tell_the_rest() -> None:
    """The body is a list of label scores for each input; the headers give the checkpoint, the reason and the times."""
    told, client = gateway()
    headers = {"X-Latency-SLA-Ms": "250", "X-Request-Id": "mine"}
    response = await client.post("/classify", json=BODY, headers=headers)
    assert response.status_code == 200 and response.headers["content-type"] == "application/json"
    assert response.json() == [[{"label": "positive", "score": 0.75}, {"label": "negative", "score": 0.25}]]
    expected = {
        "X-Request-Id": "mine",
        "X-Checkpoint": GRAND,
        "X-Tier": "quality",
        "X-Route-Reason": "fits",
        "X-Latency-SLA-Ms": "250",
        "X-SLA-Met": "true",
    }
    assert {name: response.headers.get(name) for name in expected} == expected
    assert float(response.headers["X-Predicted-Latency-Ms"]) > 0
    spans = dict(span.split(";dur=") for span in response.headers["Server-Timing"].split(", "))
    assert set(spans) == {"route", "queue", "infer", "total", "predicted"}
    assert (float(spans["queue"]), float(spans["infer"])) == (1.0, 2.0)
    assert "X-Input-Truncated" not in response.headers
    assert told.kept.records[0].request_id == "mine"


async def test_the_default_budget_and_a_made_identity_are_told() -> None:
    """A client that sends no headers reads the effective budget and the request id from the answer."""
    told, client = gateway()
    response = await client.post("/classify", json=BODY)
    assert response.headers["X-Latency-SLA-Ms"] == "1000"
    assert response.headers["X-Request-Id"] == told.kept.records[0].request_id


async def test_details_tell_the_same_in_the_body() -> None:
    """With ?details=true the body has the outputs, the routing, the timings, the input and what was ignored."""
    _, client = gateway()
    document = (await client.post("/classify?details=true", json=BODY)).json()
    assert set(document) == {"outputs", "routing", "timings_ms", "input", "ignored"}
    assert document["outputs"] == (await client.post("/classify", json=BODY)).json()
    routing = document["routing"]
    assert (routing["checkpoint"], routing["tier"], routing["reason"]) == (GRAND, "quality", "fits")
    assert (routing["sla_met"], routing["budget_ms"], routing["attempts"]) == (True, 1000.0, 1)
    assert document["input"] == {"tokens": 4, "kept": 4, "truncated": False}
    assert set(document["timings_ms"]) == {"route", "queue", "infer", "total", "predicted"}


@pytest.mark.parametrize("query", ["details=true&x=1", "x=1&details=true", "details=true"])
async def test_details_stand_beside_other_parameters(query: str) -> None:
    """?details=true works beside other query parameters, in any order."""
    _, client = gateway()
    assert isinstance((await client.post(f"/classify?{query}", json=BODY)).json(), dict)


@pytest.mark.parametrize("query", ["", "details=false", "x=details=true", "details=true2"])
async def test_without_details_the_body_is_the_outputs(query: str) -> None:
    """The body is the outputs alone unless the query says details=true."""
    _, client = gateway()
    assert isinstance((await client.post(f"/classify?{query}", json=BODY)).json(), list)


@pytest.mark.parametrize("budget", ["123456.789", "0.0001", "0.000001", "99999.125", "50", "599999.999999"])
async def test_the_budget_told_is_the_budget_sent(budget: str) -> None:
    """The answer repeats the budget exactly, to the last decimal and without an exponent, in header and body."""
    _, client = gateway()
    headers = {"X-Latency-SLA-Ms": budget}
    response = await client.post("/classify?details=true", json=BODY, headers=headers)
    assert response.headers["X-Latency-SLA-Ms"] == budget
    assert response.json()["routing"]["budget_ms"] == float(budget)
    route = await client.post("/route", json={"task": "classify", **BODY}, headers=headers)
    assert route.json()["budget_ms"] == float(budget)


async def test_truncation_is_never_silent() -> None:
    """An answer on a cut text says so in a header and in the details."""
    cut = Answer(ANSWER.outputs, InputReport(900, 64, True), ReplicaTimings(0.0, 0.002, 0.002, 1))
    _, client = gateway(scripted(cut))
    response = await client.post("/classify?details=true", json=BODY)
    assert response.headers["X-Input-Truncated"] == "true"
    assert response.json()["input"] == {"tokens": 900, "kept": 64, "truncated": True}


async def test_route_decides_and_runs_nothing() -> None:
    """`/route` returns the decision with each candidate's forecast and verdict; nothing runs or is recorded."""
    told, client = gateway()
    told.down(SWIFT)
    headers = {"X-Latency-SLA-Ms": "30"}
    document = (await client.post("/route", json={"task": "classify", **BODY}, headers=headers)).json()
    assert (document["checkpoint"], document["tier"], document["reason"]) == (EVEN, "balanced", "fits")
    assert (document["budget_ms"], document["percentile"], document["mode"]) == (30.0, 95.0, "best-effort")
    by_name = {one["checkpoint"]: one for one in document["candidates"]}
    assert {name: one["verdict"] for name, one in by_name.items()} == {
        GRAND: "too-slow",
        EVEN: "fits",
        SWIFT: "unavailable",
    }
    assert by_name[SWIFT]["forecast_ms"] is None
    assert by_name[EVEN]["forecast_ms"]["at_percentile"] <= 30.0 < by_name[GRAND]["forecast_ms"]["at_percentile"]
    assert not told.backend.dispatches and not told.kept.records


async def test_route_tells_refusals_as_decisions() -> None:
    """`/route` returns a strict refusal as a 200 whose least feasible budget is admitted; an unknown task is a 404."""
    _, client = gateway()
    strict = {"X-Latency-SLA-Ms": "1", "X-SLA-Mode": "strict"}
    document = (await client.post("/route", json={"task": "classify", **BODY}, headers=strict)).json()
    assert (document["checkpoint"], document["refusal"]) == (None, "infeasible")
    again = {**strict, "X-Latency-SLA-Ms": str(document["min_feasible_ms"])}
    document = (await client.post("/route", json={"task": "classify", **BODY}, headers=again)).json()
    assert (document["checkpoint"], document["refusal"]) == (SWIFT, None)
    unknown = await client.post("/route", json={"task": "summarize", **BODY})
    assert is_problem(unknown, "unknown_task", 404)
    assert unknown.json()["tasks"] == ["classify"]


async def test_the_catalog_is_told_with_its_live_load() -> None:
    """`/checkpoints` lists every checkpoint with its quality, variant, profile and current load."""
    told, client = gateway()
    told.up(GRAND, backlog_s=0.5)
    told.down(SWIFT)
    listed = {one["name"]: one for one in (await client.get("/checkpoints")).json()["checkpoints"]}
    assert list(listed) == [SWIFT, EVEN, GRAND]
    assert listed[GRAND]["load"] == {"replicas_up": 1, "backlog_ms": 500.0, "memory_bytes": 0}
    assert listed[SWIFT]["load"] == {"replicas_up": 0, "backlog_ms": None, "memory_bytes": None}
    assert listed[EVEN]["quality"]["value"] == 85.0 and listed[EVEN]["variant"] == "onnx-int8"
    assert len(listed[EVEN]["latency_profile"]["service_time_ms"]) == 8


async def test_where_a_folder_lies_is_not_told() -> None:
    """`/checkpoints` shows only the last part of a folder on the gateway's disk, and other sources whole."""
    told = world()
    router = told.service.router
    entry = router.entries[EVEN].model_copy(update={"source": "/srv/SECRET/mine"})
    source = router.manifests[EVEN].source.model_copy(update={"location": "/srv/SECRET/mine"})
    router.entries[EVEN] = entry
    router.manifests = {**router.manifests, EVEN: router.manifests[EVEN].model_copy(update={"source": source})}
    response = await client_of(told).get("/checkpoints")
    listed = {one["name"]: one for one in response.json()["checkpoints"]}
    assert (listed[EVEN]["source"], listed[EVEN]["provenance"]["location"]) == ("mine", "mine")
    assert listed[SWIFT]["source"] == listed[SWIFT]["provenance"]["location"] == "starter:by-hand"
    assert SECRET not in response.text


async def test_ready_means_every_task_has_a_checkpoint_up() -> None:
    """The gateway is alive from the start, ready once its task has a checkpoint up, and lists those that are down."""
    told = world(up=False)
    client = client_of(told)
    assert (await client.get("/healthz")).status_code == 200
    response = await client.get("/readyz")
    unready = {"ready": False, "missing": [SWIFT, EVEN, GRAND], "coming": []}
    assert (response.status_code, response.json()) == (503, unready)
    told.up(EVEN)
    response = await client.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"ready": True, "missing": [SWIFT, GRAND], "coming": []})


async def test_nobody_is_told_ready_while_another_answers_at_the_port() -> None:
    """Who reads 200 from `/readyz` meets a ready gateway by every later connection to the port."""
    told, others = world(), ["what stands in"]
    limits = told.catalog.limits
    application = app.build(told.service, OwnMetrics(told.catalog), limits, told.clock, is_shared=lambda: bool(others))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://gateway") as client:
        assert (await client.get("/readyz")).status_code == 503
        others.clear()
        assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_metrics_come_as_openmetrics_where_that_is_accepted(encoding: str) -> None:
    """A scraper that accepts OpenMetrics gets what its parser reads, packed or not; any other gets the text format."""
    _, client = gateway()
    await client.post("/classify", json=BODY)
    accepts = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.2"
    opened = await client.get("/metrics", headers={"Accept": accepts, "Accept-Encoding": encoding})
    assert opened.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "Accept" in opened.headers["Vary"] and opened.text.endswith("# EOF\n")
    assert any(one.name == "punctual_requests" for one in openmetrics(opened.text))  # type: ignore[no-untyped-call]
    plain = await client.get("/metrics", headers={"Accept": "text/plain"})
    assert plain.headers["content-type"].startswith("text/plain") and "# EOF" not in plain.text


async def test_metrics_count_each_request_once() -> None:
    """The metrics count each request once by its outcome, and no probe."""
    _, client = gateway(scripted(ANSWER, Failure(FailureKind.ENGINE), ANSWER))
    for _ in range(3):
        await client.post("/classify", json=BODY)
    await client.post("/classify", content=b"nonsense")
    await client.post("/route", json={"task": "classify", **BODY})
    await client.get("/healthz")
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    counted = Counter[str]()
    for one in families["punctual_requests"].samples:
        counted[one.labels["outcome"]] += int(one.value)
    assert {outcome: count for outcome, count in counted.items() if count} == {"in_time": 2, "failed": 1, "invalid": 1}
    latency = [one for one in families["punctual_request_latency_seconds"].samples if one.name.endswith("_count")]
    assert sum(one.value for one in latency) == 2


async def test_requests_side_by_side_get_their_own_answers() -> None:
    """Concurrent requests each get their own id and answer."""
    told, client = gateway()
    responses = await asyncio.gather(
        *(client.post("/classify", json=BODY, headers={"X-Request-Id": f"r-{at}"}) for at in range(20))
    )
    assert [response.headers["X-Request-Id"] for response in responses] == [f"r-{at}" for at in range(20)]
    assert told.kept.outcomes == [Outcome.IN_TIME] * 20
