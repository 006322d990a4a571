"""Answers as server-sent events: which clients get them, what stands in them, and what is said once one was sent."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from fake_summaries import SUMMARY
from fakes import Kept
from virtual_time import turns
from waiting import until
from worlds import World, client_of, is_problem, summarizing, took

from gateway.api.streaming import is_asked_for
from gateway.model.messages import Answer, Delta, Failure, FailureKind
from gateway.observability.record import RequestRecord
from gateway.tasks.classify import ClassifyBody
from gateway.tasks.summarize import SummarizeBody

pytestmark = pytest.mark.virtual_time

BODY = {"inputs": "The river rose. The bridge was closed for hours."}
EVENTS = {"Accept": "text/event-stream"}
DELTAS = (Delta(0, "In"), Delta(0, " short."))


def events_of(response: httpx.Response) -> list[tuple[str, Any]]:
    """The events of an answer: the name of each, "message" where it has none, and its data."""
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    events = []
    for block in response.text.removesuffix("\n\n").split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        events.append((lines.get("event", "message"), json.loads(lines["data"])))
    return events


async def test_the_deltas_come_as_events_and_the_last_one_tells_the_rest() -> None:
    """Each delta is an event; the last one is the document of the details, with the reason why the text ended."""
    told = summarizing()
    told.backend.deltas = DELTAS
    client = client_of(told)
    response = await client.post("/summarize", json={**BODY, "stream": True})
    *deltas, (name, done) = events_of(response)
    assert deltas == [("message", {"index": 0, "text": "In"}), ("message", {"index": 0, "text": " short."})]
    plain = (await client.post("/summarize?details=true", json=BODY)).json()
    assert name == "done" and done["outputs"] == plain["outputs"] == [{"summary_text": "In short."}]
    assert set(done) == {*plain, "finish_reason"} and done["finish_reason"] == "stop"
    assert done["generation"] == plain["generation"] and done["routing"]["sla_met"]
    assert [record.first_delta_s is None for record in told.kept.records] == [False, True]


async def test_the_headers_tell_what_is_known_at_the_first_event() -> None:
    """The decision is in the headers; what only the end can tell, such as whether it was in time, is not."""
    told = summarizing()
    told.backend.deltas = DELTAS
    headers = {"X-Latency-SLA-Ms": "250", "X-Request-Id": "mine", **EVENTS}
    response = await client_of(told).post("/summarize", json=BODY, headers=headers)
    assert response.headers["X-Checkpoint"] == "study" and response.headers["X-Request-Id"] == "mine"
    assert response.headers["X-Latency-SLA-Ms"] == "250" and float(response.headers["X-Predicted-Latency-Ms"]) > 0
    assert response.headers["Cache-Control"] == "no-store"
    assert not {"X-SLA-Met", "X-Outcome", "Server-Timing", "Content-Length"} & {*response.headers}


@pytest.mark.parametrize(
    ("accept", "stream", "expected"),
    [
        ("text/event-stream", None, True),
        ("text/event-stream;q=0.9, text/html", None, True),
        ("text/event-stream", False, False),
        ("application/json", True, True),
        ("application/json, text/event-stream", None, False),
        ("text/event-stream, */*", None, False),
        ("text/event-streams", None, False),
        ("text/event-stream;q=0", None, False),
        ("text/event-stream;q=0.0, application/json;q=0", None, False),
        ("text/event-stream, */*;q=0", None, True),
        ("", None, False),
    ],
)
def test_who_reads_events(accept: str, stream: bool | None, expected: bool) -> None:
    """The body decides; where it says nothing, a client that accepts events and no JSON gets events."""
    assert is_asked_for(accept, SummarizeBody(inputs="a", stream=stream)) is expected


async def test_a_task_that_is_not_told_on_its_way_answers_by_one_event() -> None:
    """A task without deltas answers a client that reads events alone by one; its body has no `stream`."""
    client = client_of(summarizing())
    response = await client.post("/classify", json={"inputs": "good"}, headers=EVENTS)
    ((name, done),) = events_of(response)
    assert name == "done" and done["outputs"] == [
        [{"label": "positive", "score": 0.75}, {"label": "negative", "score": 0.25}]
    ]
    refused = await client.post("/classify", json={"inputs": "good", "stream": True})
    assert is_problem(refused, "invalid_request", 422) and refused.json()["errors"][0]["field"] == "stream"
    assert is_asked_for("text/event-stream", ClassifyBody(inputs="a"))


async def test_a_refusal_before_the_first_event_is_a_problem() -> None:
    """A request that is refused, or fails before its first delta, is answered as any other."""
    told = summarizing(lambda checkpoint, work: Failure(FailureKind.ENGINE))
    response = await client_of(told).post("/summarize", json=BODY, headers=EVENTS)
    assert is_problem(response, "inference_failed", 500)
    infeasible = {**EVENTS, "X-SLA-Mode": "strict", "X-Latency-SLA-Ms": "0.001"}
    assert is_problem(await client_of(told).post("/summarize", json=BODY, headers=infeasible), "budget_infeasible", 422)


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (Failure(FailureKind.UNAVAILABLE, "the connection was lost"), "checkpoint_unavailable"),
        (Failure(FailureKind.EXPIRED), "deadline_exceeded"),
        (Failure(FailureKind.ENGINE), "inference_failed"),
        (SUMMARY, "deadline_exceeded"),
    ],
)
async def test_what_goes_wrong_after_the_first_event_is_the_last_one(result: Answer | Failure, code: str) -> None:
    """Once an event was sent, a lost replica, a missed deadline or a failure is an event with its problem document."""
    told = summarizing()
    told.backend.behaviour = took(told, 2.0, result)
    headers = {**EVENTS, "X-SLA-Mode": "strict", "X-Latency-SLA-Ms": "1000"}
    response = await after_the_first_event(told, headers)
    assert response.status_code == 200
    first, (name, problem) = events_of(response)
    assert first == ("message", {"index": 0, "text": "In"})
    assert (name, problem["code"]) == ("error", code) and problem["title"] and problem["detail"]
    assert len(told.kept.records) == 1 and not told.kept.records[0].answered


async def after_the_first_event(told: World, headers: dict[str, str]) -> httpx.Response:
    """The answer to a request whose replica goes on only once its first delta was sent."""
    told.backend.deltas, told.backend.pause = DELTAS[:1], asyncio.Event()
    asking = asyncio.create_task(client_of(told).post("/summarize", json=BODY, headers=headers))
    await until(lambda: len(told.backend.dispatches) == 1)
    await turns()
    told.backend.pause.set()
    return await asking


async def test_a_fault_of_the_gateway_after_the_first_event_is_the_last_one() -> None:
    """Even an internal fault is told as an event, without its cause."""

    class Broken(Kept):
        def observe(self, record: RequestRecord) -> None:
            raise ArithmeticError("SECRET")

    told = summarizing()
    told.kept = Broken()
    first, (name, problem) = events_of(await after_the_first_event(told, EVENTS))
    assert first[0] == "message" and (name, problem["code"], problem["status"]) == ("error", "internal_error", 500)
    assert "SECRET" not in str(problem)


async def test_deltas_that_came_meanwhile_are_written_together() -> None:
    """A client that reads slowly has every delta as an event of its own, whenever it reads."""
    told = summarizing()
    told.backend.deltas = tuple(Delta(at % 2, str(at)) for at in range(100))
    events = events_of(await client_of(told).post("/summarize", json={**BODY, "stream": True}))
    assert [data for _, data in events[:-1]] == [{"index": at % 2, "text": str(at)} for at in range(100)]
