"""`/summarize` on a running gateway, with extractive and seq2seq checkpoints side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from huggingface_hub import InferenceClient
from live import Live, hang_up
from prometheus_client.parser import text_string_to_metric_families
from waiting import wait_until

from exporters.sources.texts import SUMMARIES

pytestmark = pytest.mark.ray

BUDGET = "X-Latency-SLA-Ms"
AMPLE = {BUDGET: "60000"}
PAGE: str = json.loads(Path(SUMMARIES).read_text(encoding="utf-8").splitlines()[0])["text"]


@pytest.fixture
def client(live: Live) -> Iterator[httpx.Client]:
    """One kept-alive connection to the gateway."""
    with httpx.Client(base_url=live.url, timeout=60) as made:
        yield made


def summarize(client: httpx.Client, inputs: object = PAGE, *, details: bool = False, **more: Any) -> httpx.Response:
    """Posts to `/summarize`; `headers` and `parameters` among the keywords."""
    body = {"inputs": inputs} | ({"parameters": more["parameters"]} if "parameters" in more else {})
    return client.post(f"/summarize{'?details=true' * details}", json=body, headers=more.get("headers", {}))


def total(client: httpx.Client, name: str, checkpoint: str) -> float:
    """The total of a checkpoint's metric over all its replicas."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = (sample for family in families for sample in family.samples)
    return sum(s.value for s in samples if s.name == name and s.labels.get("checkpoint") == checkpoint)


def routed(client: httpx.Client, budget_ms: float) -> dict[str, Any]:
    """The decision of `/route` for the page."""
    asked = {"task": "summarize", "inputs": PAGE}
    decision: dict[str, Any] = client.post("/route", json=asked, headers={BUDGET: f"{budget_ms:g}"}).json()
    return decision


def at_percentile_ms(client: httpx.Client, checkpoint: str) -> float:
    """The forecast of `/route` for the page on a checkpoint, at the default percentile."""
    found = next(c for c in routed(client, 10_000)["candidates"] if c["checkpoint"] == checkpoint)
    milliseconds: float = found["forecast_ms"]["at_percentile"]
    return milliseconds


def test_an_unchanged_hub_client_is_answered_with_sentences_of_the_text(live: Live) -> None:
    """An unchanged `InferenceClient` gets sentences of its text, with and without its own parameters."""
    hub = InferenceClient(model=f"{live.url}/summarize", headers={BUDGET: "10000"})
    summary = hub.summarization(PAGE).summary_text
    whole = " ".join(PAGE.split())
    assert summary and all(sentence.strip(" .") in whole for sentence in summary.split(". "))
    short = hub.summarization(PAGE, truncation="longest_first", generate_parameters={"max_new_tokens": 40})
    assert 0 < len(short.summary_text) < len(summary)


def test_a_generous_budget_gives_quality_and_a_tight_one_realtime(client: httpx.Client) -> None:
    """A generous budget is decided for quality and a tight one for realtime, and no domain's checkpoint is a candidate.

    The test asks `/route`, because after bursts of load a request is forecast as the first of one.
    """
    for _ in range(8):  # so that the forecasts are calibrated to this machine
        for name in ("reader", "ranker"):
            summarize(client, headers={"X-Checkpoint": name, BUDGET: "10000"})

    def decided(budget_ms: float) -> tuple[str, str]:
        decision = routed(client, budget_ms)
        return decision["checkpoint"], decision["reason"]

    def between_ms() -> float:
        return (at_percentile_ms(client, "reader") + at_percentile_ms(client, "ranker")) / 2

    wait_until(lambda: decided(60_000) == ("ranker", "fits"))  # waits, because the requests in a row count as load
    wait_until(lambda: decided(between_ms()) == ("reader", "fits"))
    answered = summarize(client, headers={BUDGET: "60000", "X-Checkpoint": "ranker"})
    assert answered.headers["x-sla-met"] == "true"


def test_a_domain_opens_its_checkpoint_and_details_tell_steps_and_tokens(client: httpx.Client) -> None:
    """A domain's checkpoint answers if its domain is named, and the details have steps and tokens."""
    answer = summarize(
        client, "the river bridge was closed", details=True, parameters={"domain": "news"}, headers=AMPLE
    )
    assert (answer.status_code, answer.headers["x-checkpoint"]) == (200, "writer")
    told = answer.json()["generation"][0]
    assert told["finish_reason"] == answer.headers["x-finish-reason"] in ("stop", "length")
    assert told["steps"] >= told["tokens"] > 0 and told["beams"] >= 1 and told["headroom_ms"] > 0
    assert f'desc="{told["steps"]} steps {told["tokens"]} tokens"' in answer.headers["server-timing"]
    assert summarize(client, "the river bridge was closed").headers["x-checkpoint"] != "writer"


def test_no_step_begins_after_its_deadline_and_no_answer_is_empty(client: httpx.Client) -> None:
    """A budget far too small gets the lead of the text in best effort or a problem in strict; no step begins late."""
    headers = {"X-Checkpoint": "writer", BUDGET: "4"}
    for _ in range(10):
        assert summarize(client, headers=headers).json()[0]["summary_text"]
        assert summarize(client, headers={**headers, "X-SLA-Mode": "strict"}).status_code in (200, 422, 429, 504)
    assert total(client, "punctual_replica_late_steps_total", "writer") == 0


def test_a_text_of_twenty_thousand_words_is_read_within_the_budget(client: httpx.Client) -> None:
    """A text of twenty thousand words is answered in time, and what was not read of it is reported."""
    text = " ".join(f"Sentence number {n} speaks of bridge {n % 97} and of nothing else." for n in range(1_900))
    assert len(text.split()) > 20_000
    answer = summarize(client, text, details=True, headers={BUDGET: "60000"})
    assert (answer.status_code, answer.headers["x-sla-met"]) == (200, "true")
    read = answer.json()["input"]
    assert read["truncated"] is (read["kept"] < read["tokens"])


def test_a_long_text_is_written_of_in_pieces(client: httpx.Client) -> None:
    """A text over the window is summarised in pieces with `chunk`, cut with `longest_first`, a 413 with `error`."""
    text = "The bridge over the river was closed in winter. " * 12
    pinned = {"X-Checkpoint": "writer", BUDGET: "60000"}
    chunked = summarize(client, text, details=True, headers=pinned)
    assert chunked.json()["generation"][0]["pieces"] > 1 and "x-input-truncated" not in chunked.headers
    cut = summarize(client, text, headers=pinned, parameters={"truncation": "longest_first"})
    assert cut.headers["x-input-truncated"] == "true"
    refused = summarize(client, text, headers=pinned, parameters={"truncation": "error"})
    assert (refused.status_code, refused.json()["code"], refused.json()["limit"]) == (413, "input_too_long", 64)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"num_beams": 0}, "parameters.num_beams"),
        ({"max_new_tokens": "many"}, "parameters.max_new_tokens"),
        ({"truncation": "tail"}, "parameters.truncation"),
        ({"generate_parameters": {"do_sample": True}}, "parameters.generate_parameters.do_sample"),
        ({"warmth": 1}, "parameters.warmth"),
    ],
)
def test_a_bad_parameter_is_named_and_costs_the_next_request_nothing(
    client: httpx.Client, parameters: dict[str, object], field: str
) -> None:
    """A bad parameter is a 422 with its path, and the next request is answered."""
    refused = summarize(client, parameters=parameters)
    assert refused.status_code == 422 and refused.json()["errors"][0]["field"].startswith(field)
    assert summarize(client).status_code == 200


def test_a_summary_is_read_while_it_is_written(client: httpx.Client) -> None:
    """The events of a replica in another process, joined, are the text of the last event, extracted or written."""
    counted = total(client, "punctual_request_first_delta_seconds_count", "ranker")
    for checkpoint in ("ranker", "writer"):
        headers = {**AMPLE, "X-Checkpoint": checkpoint, "Accept": "text/event-stream"}
        body = {"inputs": PAGE, "parameters": {"num_beams": 1, "truncation": "longest_first"}}
        with client.stream("POST", "/summarize", json=body, headers=headers) as response:
            assert response.headers["X-Checkpoint"] == checkpoint and "X-Outcome" not in response.headers
            *deltas, last = response.read().decode().removesuffix("\n\n").split("\n\n")
        told = [json.loads(one.removeprefix("data: "))["text"] for one in deltas]
        done = json.loads(last.removeprefix("event: done\ndata: "))
        assert told and "".join(told) == done["outputs"][0]["summary_text"]
    assert total(client, "punctual_request_first_delta_seconds_count", "ranker") == counted + 1


def test_a_client_that_hangs_up_stops_its_summary(live: Live, client: httpx.Client) -> None:
    """A summary stops at the next step when its client hangs up."""
    before = total(client, "punctual_replica_cancelled_total", "ranker")
    text = " ".join([PAGE] * 35)  # nearly as long as is allowed: it takes seconds
    hang_up(live, "/summarize", {"inputs": text}, X_Checkpoint="ranker", X_Latency_SLA_Ms="60000")
    wait_until(lambda: total(client, "punctual_replica_cancelled_total", "ranker") > before)
    assert total(client, "punctual_replica_cancelled_total", "ranker") == before + 1


def test_a_summarizer_yields_to_others_and_tells_its_memory(live: Live, client: httpx.Client) -> None:
    """Engine threads have the niceness of their tier, the process that of the command; the memory is reported."""
    process = live.replica("ranker")
    stats = [Path("/proc", str(thread.id), "stat").read_text().rsplit(")")[-1].split() for thread in process.threads()]
    niceness = {int(stat[16]) for stat in stats}  # field 19 of proc(5)
    assert 19 in niceness and process.nice() == psutil.Process(live.process.pid).nice()
    served = {one["name"]: one for one in client.get("/checkpoints").json()["checkpoints"]}
    for name in ("reader", "ranker", "writer"):
        assert served[name]["load"]["memory_bytes"] > 20_000_000
