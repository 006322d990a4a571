"""The HTTP edge where a request is refused or fails: problem+json, the request id, and no text of the request."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from fakes import EVEN, GRAND, SWIFT, scripted
from worlds import World, client_of, embedding, gateway, generating, is_problem, summarizing, tagging

from gateway.model.messages import Failure, FailureKind
from gateway.model.outcome import Outcome

pytestmark = pytest.mark.virtual_time

BODY = {"inputs": "a good film"}
SECRET = "SECRET"


async def test_a_problem_after_the_decision_bears_its_headers() -> None:
    """A problem after the decision has the decision's headers, as an answer has."""
    told, client = gateway(scripted(Failure(FailureKind.ENGINE, "ValueError")))
    response = await client.post("/classify", json={"inputs": SECRET}, headers={"X-Request-Id": "mine"})
    assert is_problem(response, "inference_failed", 500)
    assert (response.headers["X-Checkpoint"], response.headers["X-SLA-Met"]) == (GRAND, "false")
    assert response.headers["X-Request-Id"] == "mine" and "Server-Timing" in response.headers
    assert SECRET not in response.text
    assert told.kept.outcomes == [Outcome.FAILED]


@pytest.mark.parametrize(
    ("headers", "content", "code", "status"),
    [
        ({"X-Latency-SLA-Ms": "0"}, b'{"inputs": "SECRET"}', "invalid_request", 400),
        ({}, b"SECRET", "invalid_request", 400),
        ({}, b'{"inputs": ["SECRET", 7]}', "invalid_request", 422),
        ({}, b'{"inputs": ["SECRET", "b", "c"]}', "input_too_long", 413),
        ({}, b'{"inputs": "' + b"SECRET" * 200 + b'"}', "input_too_long", 413),
        ({"X-Checkpoint": "nobody"}, b'{"inputs": "SECRET"}', "unknown_checkpoint", 404),
        ({"X-Latency-SLA-Ms": "1", "X-SLA-Mode": "strict"}, b'{"inputs": "SECRET"}', "budget_infeasible", 422),
    ],
)
async def test_a_refusal_is_a_problem_that_bears_the_identity(
    headers: dict[str, str], content: bytes, code: str, status: int
) -> None:
    """Every refusal is problem+json with the client's request id and one record, and quotes no text."""
    told, client = gateway()
    response = await client.post("/classify", content=content, headers={**headers, "X-Request-Id": "mine"})
    assert is_problem(response, code, status)
    assert response.headers["X-Request-Id"] == "mine"
    assert SECRET not in response.text
    assert len(told.kept.records) == 1 and not told.backend.dispatches
    assert response.headers["X-Outcome"] == told.kept.records[0].outcome


TOO_LONG = Failure(FailureKind.TOO_LONG, "over the checkpoint's window", 600, 512)
COMPARED = {"source_sentence": SECRET, "sentences": ["b", SECRET]}
CONVERSATION = [{"role": "user", "content": "a"}, {"role": "user", "content": SECRET}]


@pytest.mark.parametrize(
    ("made", "path", "inputs", "failed_at", "place", "index"),
    [
        (embedding, "/similarity", COMPARED, 2, "inputs.sentences[1]", 1),
        (embedding, "/similarity", COMPARED, 0, "inputs.source_sentence", None),
        (generating, "/generate", CONVERSATION, 0, "inputs", None),
        (generating, "/generate", ["a", SECRET], 1, "inputs[1]", 1),
        (generating, "/generate", SECRET, 0, "inputs", 0),
        (summarizing, "/summarize", ["a", SECRET], 1, "inputs[1]", 1),
    ],
)
async def test_what_is_too_long_is_named_by_its_place_in_the_body(
    made: Callable[..., World], path: str, inputs: object, failed_at: int, place: str, index: int | None
) -> None:
    """A 413 about one text names that text as the client sent it, and its index if it is one of a list."""
    told = made(scripted(msgspec.structs.replace(TOO_LONG, index=failed_at)))
    async with client_of(told) as client:
        response = await client.post(path, json={"inputs": inputs})
    assert is_problem(response, "input_too_long", 413) and SECRET not in response.text
    document = response.json()
    assert document["detail"].startswith(f"{place}: ") and document.get("index") == index
    assert (document["tokens"], document["limit"], document["unit"]) == (600, 512, "tokens")


async def test_a_conversation_that_is_too_long_is_so_as_a_whole() -> None:
    """OpenAI's interface names the messages, none of them alone."""
    told = generating(scripted(msgspec.structs.replace(TOO_LONG, index=0)))
    async with client_of(told) as client:
        asked = {"model": "punctual", "messages": CONVERSATION}
        response = await client.post("/v1/chat/completions", json=asked)
    document = response.json()
    assert response.status_code == 400 and document["error"]["message"].startswith("messages: ")
    assert "index" not in document["punctual"]


@pytest.mark.parametrize(
    ("counts", "members"),
    [
        ([1, 150], {"windows": 151, "limit": 128, "unit": "windows", "index": 1}),
        ([100, 50], {"windows": 150, "limit": 128, "unit": "windows"}),
    ],
)
async def test_too_many_windows_are_a_413_with_their_numbers(counts: list[int], members: dict[str, object]) -> None:
    """A 413 says the limit with its unit, and what was sent, for windows as for tokens."""
    told = tagging(scripted(Failure.too_many(counts, 128, "windows")))
    async with client_of(told) as client:
        response = await client.post("/tokens", json={"inputs": ["a", SECRET]})
    assert is_problem(response, "input_too_long", 413) and SECRET not in response.text
    document = response.json()
    assert document.items() >= members.items() and ("index" in document) == ("index" in members)


async def test_a_parameter_that_is_null_leaves_a_body_to_its_own_endpoint() -> None:
    """`candidate_labels` of null makes no zero-shot of a classification."""
    _, client = gateway()
    response = await client.post("/classify", json={**BODY, "parameters": {"candidate_labels": None}})
    assert response.status_code == 200, response.text
    asked = {"task": "classify", **BODY, "parameters": {"candidate_labels": None}}
    assert (await client.post("/route", json=asked)).json()["task"] == "classify"


NO_BUDGET = {"X-Latency-SLA-Ms": "0"}


@pytest.mark.parametrize(
    ("path", "made", "task"),
    [
        ("/generate", generating, "generate"),
        ("/v1/chat/completions", generating, "generate"),
        ("/v1/completions", generating, "generate"),
        ("/v1/embeddings", embedding, "embed"),
    ],
)
@pytest.mark.parametrize(
    ("method", "headers", "content"),
    [("POST", NO_BUDGET, b"{}"), ("POST", {}, b"{"), ("POST", {}, b"{}"), ("DELETE", {}, b"")],
)
async def test_what_is_asked_of_a_task_is_counted_for_it_in_either_interface(
    path: str, made: Callable[[], World], task: str, method: str, headers: dict[str, str], content: bytes
) -> None:
    """A refusal at an endpoint of a task, OpenAI's or its own, is one invalid request of the task, and says so."""
    told = made()
    response = await client_of(told).request(method, path, content=content, headers=headers)
    assert [(one.task, one.outcome) for one in told.kept.records] == [(task, Outcome.INVALID)]
    assert response.headers["X-Outcome"] == "invalid"


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/v1/embeddings", 404), ("/route", 400)])
async def test_what_is_asked_of_no_task_has_no_outcome(path: str, status: int) -> None:
    """A refusal at a path of no task that is served is counted for none, and has no outcome."""
    told, client = gateway()
    response = await client.post(path, content=b'{"model": "punctual", "input": "a"' + b"}" * (status == 404))
    assert response.status_code == status and "X-Outcome" not in response.headers and not told.kept.records


async def test_of_a_list_the_text_that_is_too_long_is_named() -> None:
    """A text over the window is a 413 with its index, its tokens and the limit."""
    failure = Failure(FailureKind.TOO_LONG, tokens=700, limit=512, index=1)
    _, client = gateway(scripted(failure))
    response = await client.post("/classify", json={"inputs": [SECRET, SECRET], "parameters": {"truncation": "error"}})
    assert is_problem(response, "input_too_long", 413)
    document = response.json()
    assert (document["index"], document["tokens"], document["limit"], document["unit"]) == (1, 700, 512, "tokens")
    assert document["detail"].startswith("inputs[1]: ") and SECRET not in response.text


async def test_overload_tells_when_to_come_back() -> None:
    """A refusal for load is a 429 with Retry-After."""
    told, client = gateway()
    for name in (SWIFT, EVEN, GRAND):
        told.up(name, backlog_s=5.0)
    response = await client.post("/classify", json=BODY, headers={"X-SLA-Mode": "strict"})
    assert is_problem(response, "overloaded", 429)
    assert int(response.headers["Retry-After"]) == math.ceil(response.json()["retry_after_ms"] / 1000) > 1


async def test_a_body_of_unknown_length_is_read_no_further_than_its_limit() -> None:
    """A body without a content-length is read no further than the limit."""
    _, client = gateway()
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield b"x" * 400

    response = await client.post("/classify", content=endless())
    assert is_problem(response, "input_too_long", 413)
    assert response.json()["limit"] == 1000 and taken <= 4


@pytest.mark.parametrize(
    ("length", "status"), [("9" * 5000, 413), ("1001", 413), ("0" * 5000 + "2", 400), ("1000", 400)]
)
async def test_a_length_that_is_announced_may_have_any_number_of_digits(length: str, status: int) -> None:
    """A body announced as over the limit is not read, however large the number."""
    _, client = gateway()
    assert (await client.post("/classify", content=b"{", headers={"content-length": length})).status_code == status


async def test_a_body_in_pieces_is_a_body() -> None:
    """A body may arrive in any pieces."""

    async def pieces() -> AsyncIterator[bytes]:
        for byte in json.dumps(BODY).encode():
            yield bytes([byte])

    _, client = gateway()
    assert (await client.post("/classify", content=pieces())).status_code == 200


async def test_wrong_paths_and_methods_are_problems() -> None:
    """A 404 and a 405 are problem+json, the latter with Allow."""
    _, client = gateway()
    assert is_problem(await client.get("/nowhere"), "not_found", 404)
    response = await client.get("/classify")
    assert is_problem(response, "method_not_allowed", 405)
    assert response.headers["Allow"] == "POST"
    assert is_problem(await client.delete("/healthz"), "method_not_allowed", 405)
    assert is_problem(await client.post("/classify/", json=BODY), "not_found", 404)


async def test_a_fault_of_the_gateway_is_a_500_and_the_next_request_is_served() -> None:
    """After an unexpected exception the client gets a 500 that hides the cause, and the next request is served."""
    told, client = gateway()
    told.backend.fault = ZeroDivisionError(SECRET)
    response = await client.post("/classify", json=BODY)
    assert is_problem(response, "internal_error", 500)
    assert not any(word in response.text for word in (SECRET, "Traceback", "ZeroDivision", ".py"))
    assert response.headers["X-Outcome"] == "failed"
    told.backend.fault = None
    assert (await client.post("/classify", json=BODY)).status_code == 200
