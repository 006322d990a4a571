"""OpenAI's interface over the application: plain answers, streamed ones, models and errors."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from fake_writers import NOVELIST, SCRIBBLER, WRITTEN
from fakes import scripted
from worlds import World, client_of, embedding, generating, summarizing

from gateway.model.messages import Delta, Failure, FailureKind
from gateway.tasks.generate import GENERATE

HELLO = [{"role": "user", "content": "Hello?"}]


async def post(told: World, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    """What the application answers to a body."""
    async with client_of(told) as client:
        return await client.post(path, json={"model": "punctual", **body}, headers=headers)


def chunks(response: httpx.Response) -> list[Any]:
    """The documents of a streamed answer, whose end is `[DONE]`."""
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


async def test_a_conversation_is_answered_within_its_budget() -> None:
    """The answer has OpenAI's form, the contract's headers, and the id of the request."""
    told = generating()
    response = await post(told, "/v1/chat/completions", {"messages": HELLO}, **{"X-Latency-SLA-Ms": "5000"})
    document = response.json()
    assert response.status_code == 200 and response.headers["X-Checkpoint"] == document["model"] == NOVELIST
    assert response.headers["X-Latency-SLA-Ms"] == "5000" and response.headers["X-SLA-Met"] == "true"
    assert document["id"] == f"chatcmpl-{response.headers['X-Request-Id']}"
    assert document["choices"][0]["message"]["content"] == WRITTEN
    (dispatch,) = told.backend.dispatches
    assert dispatch.work.task == GENERATE.name and dispatch.work.parameters.roles == ("user",)
    assert [record.task for record in told.kept.records] == [GENERATE.name]


@pytest.mark.parametrize("turns", [1, 3, 4, 15])
async def test_a_conversation_goes_on_with_what_openais_client_gives_back(turns: int) -> None:
    """A message as that client dumps it has many fields that nobody has set; they refuse no turn."""
    unset = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "tool_calls"))
    said = {"role": "assistant", "content": "Hello.", **unset}
    response = await post(generating(), "/v1/chat/completions", {"messages": [*HELLO, *[said, *HELLO] * turns]})
    assert response.status_code == 200, response.text


async def test_a_model_that_names_a_checkpoint_pins_it() -> None:
    """The budget does not switch what was named."""
    response = await post(generating(), "/v1/completions", {"model": SCRIBBLER, "prompt": ["a", "b"]})
    document = response.json()
    assert document["model"] == SCRIBBLER and [one["text"] for one in document["choices"]] == [WRITTEN] * 2


async def test_a_completion_on_a_summarizer_is_a_summary() -> None:
    """`/v1/completions` takes what reads a text first and then writes."""
    response = await post(summarizing(), "/v1/completions", {"model": "scribe", "prompt": "One thing. Another."})
    assert response.status_code == 200 and response.json()["choices"][0]["text"]


async def test_vectors_are_those_of_the_task() -> None:
    """`/v1/embeddings` answers with the vectors of `/embed`."""
    response = await post(embedding(default="fine"), "/v1/embeddings", {"input": ["a", "b"]})
    assert response.status_code == 200, response.text
    assert [one["index"] for one in response.json()["data"]] == [0, 1]


@pytest.mark.parametrize("deltas", [(), (Delta(0, " all"), Delta(0, " is well."))], ids=len)
async def test_a_streamed_answer_says_what_a_plain_one_does(deltas: tuple[Delta, ...]) -> None:
    """Joined, the chunks are the plain answer; the first has the role, the last the reason, then comes the usage."""
    asked = {"messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
    told = generating()
    told.backend.deltas = deltas
    streamed = chunks(await post(told, "/v1/chat/completions", asked))
    plain = (await post(generating(), "/v1/chat/completions", {"messages": HELLO})).json()
    said = [one["choices"][0]["delta"] for one in streamed if one["choices"]]
    assert said[0]["role"] == "assistant" and all("role" not in one for one in said[1:])
    assert (
        "".join(one.get("content", "") for one in said) == plain["choices"][0]["message"]["content"] or len(said) == 1
    )
    assert streamed[-2]["choices"][0]["finish_reason"] == "stop"
    assert streamed[-1]["choices"] == [] and streamed[-1]["usage"] == plain["usage"]


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": ""}]}, 400, "messages[0].content"),
        ("/v1/chat/completions", {"messages": HELLO, "n": 2}, 400, "n"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": 7}]}, 400, "messages[0].content"),
        ("/v1/embeddings", {"input": 7}, 400, "input"),
        ("/v1/completions", {"prompt": "a", "max_tokens": 5000}, 400, "max_tokens"),
        ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 5000}, 400, "max_tokens"),
        ("/v1/chat/completions", {"messages": HELLO, "max_completion_tokens": 5000}, 400, "max_completion_tokens"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "system", "content": ""}, *HELLO, {"role": "user", "content": ""}]},
            400,
            "messages[2].content",
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]},
            400,
            "messages[0].content",
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]},
            400,
            "messages[0].content[1].type",
        ),
        ("/v1/chat/completions", {"messages": HELLO, "stop": ["a", 7]}, 400, "stop[1]"),
        ("/v1/chat/completions", {"messages": HELLO, "inputs": "a"}, 400, "inputs"),
        ("/v1/completions", {"prompt": ["a", ""]}, 400, "prompt[1]"),
        ("/v1/completions", {"prompt": 7}, 400, "prompt"),
        ("/v1/embeddings", {"input": ["a", ""]}, 400, "input[1]"),
        ("/v1/completions", {"prompt": []}, 400, "prompt"),
        ("/v1/chat/completions", {"messages": HELLO, "model": "gpt-4o"}, 404, "model"),
        ("/v1/embeddings", {"input": "a"}, 404, None),
        ("/v1/nothing", {}, 404, None),
    ],
)
async def test_errors_name_the_clients_own_field(
    path: str, body: dict[str, Any], status: int, param: str | None
) -> None:
    """Every error has OpenAI's form, and names the field as the client sent it."""
    response = await post(generating(), path, body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param), error
    assert param in (None, "model") or error["message"].startswith(f"{param}: "), error
    assert response.headers["X-Request-Id"] and error["message"]


async def test_a_refusal_keeps_its_numbers() -> None:
    """What the budget refuses says so in OpenAI's form, with the least budget that would do beside."""
    terms = {"X-Latency-SLA-Ms": "10", "X-SLA-Mode": "strict"}
    response = await post(generating(), "/v1/chat/completions", {"messages": HELLO, "stream": True}, **terms)
    told = response.json()
    assert response.status_code == 422 and told["error"]["code"] == "budget_infeasible"
    assert told["punctual"]["min_feasible_ms"] > 10


async def test_a_template_that_does_not_take_a_conversation_is_the_clients_fault() -> None:
    """A replica's REFUSED is a 400 there, and a 422 of the task's own endpoint."""
    refusing = scripted(Failure(FailureKind.REFUSED, "the checkpoint's chat template does not take these roles"))
    response = await post(generating(refusing), "/v1/chat/completions", {"messages": HELLO})
    assert response.status_code == 400 and "does not take these roles" in response.json()["error"]["message"]
    async with client_of(generating(refusing)) as client:
        assert (await client.post("/generate", json={"inputs": HELLO})).status_code == 422


async def test_models_are_listed_and_found_one_by_one() -> None:
    """Each that is listed is there by its own path, and no other is."""
    async with client_of(generating()) as client:
        listed = [one["id"] for one in (await client.get("/v1/models")).json()["data"]]
        assert listed == [SCRIBBLER, NOVELIST, "realtime", "balanced", "quality", "generate", "punctual"]
        for name in listed:
            assert (await client.get(f"/v1/models/{name}")).json()["id"] == name
        missing = await client.get("/v1/models/gpt-4o")
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "model_not_found"
