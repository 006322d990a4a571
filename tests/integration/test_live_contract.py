"""The HTTP contract of a running gateway, with its HTTP server, Ray Serve, the transport and real engines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import httpx
import psutil
import pytest
from huggingface_hub import InferenceClient
from live import Live, hang_up, underway
from prometheus_client.parser import text_string_to_metric_families
from waiting import wait_until

pytestmark = pytest.mark.ray

BUDGET = "X-Latency-SLA-Ms"


@pytest.fixture
def client(live: Live) -> Iterator[httpx.Client]:
    """One kept-alive connection to the gateway."""
    with httpx.Client(base_url=live.url, timeout=60) as made:
        yield made


def classify(client: httpx.Client, inputs: object = "a good film", **headers: str) -> httpx.Response:
    """Posts to `/classify`; keywords are headers, with underscores for hyphens."""
    return client.post(
        "/classify", json={"inputs": inputs}, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def counted(client: httpx.Client, outcome: str) -> float:
    """The number of requests with this outcome in the scrape, over all processes."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = (sample for family in families for sample in family.samples)
    return sum(s.value for s in samples if s.name == "punctual_requests_total" and s.labels["outcome"] == outcome)


def test_an_unchanged_hub_client_is_answered(live: Live) -> None:
    """An unchanged `InferenceClient` works against the gateway as against the API that it was written for."""
    hub = InferenceClient(model=f"{live.url}/classify", headers={BUDGET: "5000"})
    scores = hub.text_classification("a good film", top_k=1)
    assert [score.label for score in scores] == ["positive"] and 0.5 < scores[0].score <= 1


def test_a_generous_budget_gives_quality_and_a_tight_one_realtime(client: httpx.Client) -> None:
    """A generous budget is answered by quality and a tight one by realtime, and the headers say which and why."""
    generous = classify(client, x_latency_sla_ms="30000")
    assert generous.headers["x-checkpoint"] == "slow" and generous.headers["x-tier"] == "quality"
    assert generous.headers["x-route-reason"] == "fits" and generous.headers["x-sla-met"] == "true"
    tight = classify(client, x_latency_sla_ms="0.05")
    assert tight.headers["x-route-reason"] == "best-effort" and tight.headers["x-sla-met"] == "false"
    assert {"x-predicted-latency-ms", "server-timing", "x-request-id", "x-latency-sla-ms"} <= set(tight.headers)


def test_a_client_that_is_alone_is_never_degraded(client: httpx.Client) -> None:
    """One client that sends one request after the other, with time to spare, gets the best checkpoint every time."""
    for _ in range(3):  # what another test left may still be under way
        classify(client, x_latency_sla_ms="30000")
    answers = (classify(client, x_latency_sla_ms="30000") for _ in range(1000))
    given = Counter((one.headers["x-checkpoint"], one.headers["x-route-reason"]) for one in answers)
    assert given == {("slow", "fits"): 1000}


def test_details_account_for_the_time(client: httpx.Client) -> None:
    """With `details=true` the answer has routing, timings and the input's report."""
    answer = client.post("/classify?details=true", json={"inputs": ["a good film", "bad plot"]}).json()
    assert set(answer) == {"outputs", "routing", "timings_ms", "input", "ignored"} and len(answer["outputs"]) == 2
    spans = answer["timings_ms"]
    assert spans["queue"] + spans["infer"] <= spans["total"]


def test_truncation_is_told_or_refused(client: httpx.Client) -> None:
    """A text over the window is cut and reported as such, or refused with its size if the client asks for that."""
    text = "good " * 200
    cut = client.post("/classify?details=true", json={"inputs": text})
    assert cut.headers["x-input-truncated"] == "true" and cut.json()["input"]["truncated"]
    refused = client.post("/classify", json={"inputs": text, "parameters": {"truncation": "error"}})
    problem = refused.json()
    assert refused.status_code == 413 and problem["tokens"] > problem["limit"] == 64


@pytest.mark.parametrize("value", ["0", "-5", "abc", "", "NaN", "inf", "1e9", "9999999"])
def test_a_malformed_budget_names_its_header(client: httpx.Client, value: str) -> None:
    """A malformed budget is an error that names its header, and never means that there is no budget."""
    refused = classify(client, x_latency_sla_ms=value)
    assert refused.status_code == 400 and BUDGET in refused.json()["detail"]


BAD_BODIES: dict[str, tuple[bytes, int, str]] = {
    "no body": (b"", 400, "invalid_request"),
    "not JSON": (b"{not json", 400, "invalid_request"),
    "invalid UTF-8": (b'{"inputs": "\xff\xfe"}', 400, "invalid_request"),
    "a raw control character": (b'{"inputs": "a\x01b"}', 400, "invalid_request"),
    "half an escape": (b'{"inputs": "\\ud8"}', 400, "invalid_request"),
    "a list": (b"[1, 2]", 422, "invalid_request"),
    "a number": (b'{"inputs": 3}', 422, "invalid_request"),
    "a mixed list": (b'{"inputs": ["a", 3]}', 422, "invalid_request"),
    "an empty text": (b'{"inputs": ""}', 422, "invalid_request"),
    "no texts": (b'{"inputs": []}', 422, "invalid_request"),
    "no inputs": (b"{}", 422, "invalid_request"),
    "an unknown field": (b'{"inputs": "a", "colour": 1}', 422, "invalid_request"),
    "an unknown parameter": (b'{"inputs": "a", "parameters": {"beams": 1}}', 422, "invalid_request"),
    "a wrong parameter": (b'{"inputs": "a", "parameters": {"top_k": 0}}', 422, "invalid_request"),
    "1 MB of text": (json.dumps({"inputs": "a " * 500_000}).encode(), 413, "input_too_long"),
    "2 MB of body": (json.dumps({"inputs": "a " * 1_000_000}).encode(), 413, "input_too_long"),
    "10,000 inputs": (json.dumps({"inputs": ["a"] * 10_000}).encode(), 413, "input_too_long"),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_input_gets_its_error_and_costs_the_next_request_nothing(client: httpx.Client, name: str) -> None:
    """Every kind of bad body has a documented problem, and the next request on the connection is served."""
    body, status, code = BAD_BODIES[name]
    refused = client.post("/classify", content=body)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert refused.headers["content-type"] == "application/problem+json" and "x-request-id" in refused.headers
    assert classify(client).status_code == 200


def test_odd_but_valid_text_is_answered(client: httpx.Client) -> None:
    """Escaped control characters, NUL, emoji and right-to-left text are answered."""
    assert classify(client, inputs=["\x00\x07good\x1b", "😀👍🏽", "שלום עולם", " "]).status_code == 200
    assert client.post("/classify", content=b'{"inputs": "good \\ud83d"}').status_code == 200


def test_strict_says_what_would_be_feasible(client: httpx.Client) -> None:
    """An infeasible strict budget is refused at once with the least feasible one, which is then admitted."""
    refused = classify(client, x_latency_sla_ms="0.01", x_sla_mode="strict")
    assert refused.status_code == 422 and refused.json()["code"] == "budget_infeasible"
    assert refused.json()["min_feasible_ms"] > 0.01 and refused.json()["feasible_checkpoints"]


def test_pins_and_tiers_are_kept(client: httpx.Client) -> None:
    """A pinned checkpoint answers whatever the budget, a least tier excludes lower ones, and a wrong name is a 404."""
    assert classify(client, x_checkpoint="fast").headers["x-route-reason"] == "pinned"
    assert classify(client, x_min_tier="quality", x_latency_sla_ms="0.05").headers["x-checkpoint"] == "slow"
    unknown = classify(client, x_checkpoint="none")
    assert unknown.status_code == 404 and unknown.json()["checkpoints"] == ["slow", "fast"]


def test_route_explains_and_runs_nothing(client: httpx.Client) -> None:
    """`/route` shows each candidate with forecast and verdict, and counts no request."""
    before = counted(client, "in_time")
    document = client.post("/route", json={"task": "classify", "inputs": "a good film"}).json()
    assert [c["checkpoint"] for c in document["candidates"]] == ["slow", "fast"]
    assert all(c["forecast_ms"]["service_time"] > 0 for c in document["candidates"])
    assert counted(client, "in_time") == before
    assert client.post("/route", json={"task": "translate", "inputs": "a"}).json()["code"] == "unknown_task"


def test_each_request_is_counted_once(client: httpx.Client) -> None:
    """The scrape covers every process and counts each request once."""
    before = counted(client, "in_time")
    for _ in range(20):
        assert classify(client, x_latency_sla_ms="30000").headers["x-sla-met"] == "true"
    assert counted(client, "in_time") == before + 20
    families = {family.name for family in text_string_to_metric_families(client.get("/metrics").text)}
    assert {"punctual_requests", "punctual_request_latency_seconds", "punctual_replica_batches"} <= families


def test_a_client_that_hangs_up_is_counted_as_cancelled(client: httpx.Client, live: Live) -> None:
    """A client that hangs up is counted as cancelled, its slot is freed and the next request is served."""
    before = counted(client, "cancelled")
    pages = [f"It rained all of day {day}, and nobody went out. " * 30 for day in range(128)]  # writing takes seconds
    hang_up(live, "/summarize", {"inputs": pages}, X_Checkpoint="writer")
    wait_until(lambda: counted(client, "cancelled") > before)
    assert counted(client, "cancelled") == before + 1 and underway(live) == 0
    assert classify(client).status_code == 200


def test_checkpoints_and_openapi_describe_what_is_served(client: httpx.Client) -> None:
    """`/checkpoints` has provenance, profile and load of what is served, and the OpenAPI document is served."""
    first = client.get("/checkpoints").json()["checkpoints"][0]
    assert first["load"]["replicas_up"] == 1 and first["latency_profile"]["service_time_ms"]
    assert first["verification"]["label_agreement"] >= 0.999
    assert "/classify" in client.get("/openapi.json").json()["paths"]


def test_everything_listens_on_loopback(live: Live) -> None:
    """No process of the gateway can be reached from another machine by default."""
    for process in live.family():
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1"), (process.cmdline(), connection)
