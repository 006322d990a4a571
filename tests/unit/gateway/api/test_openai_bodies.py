"""OpenAI's bodies, answers and problems, translated: what each becomes, and what is refused by which name."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import numpy as np
import pytest
from pydantic import ValidationError

from gateway.api import openai
from gateway.api.openai import ChatBody, CompletionBody, EmbeddingsBody, Told, UnknownModel
from gateway.model.errors import InputTooLong, InvalidRequest, Overloaded
from gateway.model.messages import Answer, FinishReason, Generation, InputReport, ReplicaTimings
from gateway.model.request import Terms
from gateway.model.tier import Tier
from gateway.tasks import TASKS

CHECKPOINTS = {"scribbler": ("generate",), "scribe": ("summarize",), "vectors": ("embed", "similarity")}
TOLD = Told("r-1", 1_700_000_000, "scribbler")
HELLO = [{"role": "user", "content": "Hello?"}]


def chat(**given: Any) -> ChatBody:
    """A body of the chat endpoint."""
    return ChatBody.model_validate({"model": "punctual", "messages": HELLO, **given})


def answer(*outputs: object, reason: FinishReason = "stop") -> Answer:
    """An answer that read nine tokens and wrote four for each output."""
    how = Generation(reason, 5, 4, 1, 40, 1, 0.5)
    timings = ReplicaTimings(0.001, 0.06, 0.061, 1)
    return Answer(outputs, InputReport(9, 9, False), timings, (how,) * len(outputs))


def plain(document: object) -> Any:
    """A document as a client reads it."""
    return msgspec.json.decode(msgspec.json.encode(document))


def test_a_conversation_is_that_of_the_tasks_own_endpoint() -> None:
    """Developers are the system, parts are joined, empty system messages go, and all of it is a valid body there."""
    body = chat(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "system", "content": ""},
            {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo?"}]},
        ],
        max_completion_tokens=5,
        temperature=0,
        stop="\n",
        seed=-1,
    )
    document = openai.document_of(body, "chat", TASKS["generate"])
    assert document["inputs"] == [{"role": "system", "content": "Be brief."}, *HELLO]
    parameters: Any = TASKS["generate"].read(TASKS["generate"].body.model_validate(document))[0]
    assert (parameters.max_new_tokens, parameters.sample, parameters.stop) == (5, False, ("\n",))


@pytest.mark.parametrize(
    "given",
    [
        {"n": 2},
        {"tools": [{}]},
        {"logprobs": True},
        {"response_format": {"type": "json_object"}},
        {"logit_bias": {"1": 2}},
        {"messages": []},
        {"messages": [{"role": "tool", "content": "a"}]},
        {"unheard_of": 1},
    ],
)
def test_what_would_change_the_answer_and_is_not_done_is_refused(given: dict[str, Any]) -> None:
    """Nothing that shapes an answer is dropped silently."""
    with pytest.raises(ValidationError):
        chat(**given)


@pytest.mark.parametrize("number", [0, 1, 5])
def test_probabilities_of_tokens_are_refused(number: int) -> None:
    """A completion with `logprobs` would have another shape, even with none of the less likely tokens."""
    with pytest.raises(ValidationError):
        openai.CompletionBody.model_validate({"model": "punctual", "prompt": "a", "logprobs": number})
    assert openai.CompletionBody.model_validate({"model": "punctual", "prompt": "a", "logprobs": None})


def test_what_changes_nothing_is_accepted_and_listed() -> None:
    """Fields for the keeping of logs and the like are ignored by name."""
    assert list(chat(user="me", store=False, metadata={"a": "b"}).ignored()) == ["user", "metadata.a", "store"]


@pytest.mark.parametrize(
    ("model", "task", "asked"),
    [
        ("scribbler", "generate", Terms(pinned="scribbler")),
        ("scribe", "summarize", Terms(pinned="scribe")),
        ("balanced", "generate", Terms(min_tier=Tier.BALANCED)),
        ("summarize", "summarize", Terms()),
        ("punctual", "generate", Terms()),
        ("tgi", "generate", Terms()),  # by huggingface_hub before 0.27, which knows an address alone
        ("dummy", "generate", Terms()),  # by later ones
        ("http://127.0.0.1:8000/v1", "generate", Terms()),  # by @huggingface/inference
    ],
)
def test_a_model_is_a_checkpoint_a_tier_or_a_task(model: str, task: str, asked: Terms) -> None:
    """The name of the model decides the task and the terms."""
    assert openai.placed("completions", model, CHECKPOINTS) == (TASKS[task], asked)


def test_a_model_that_cannot_answer_is_not_found() -> None:
    """The error lists those that can."""
    for model in ("vectors", "gpt-4o", "dummy-2", "ftp://127.0.0.1", ""):
        with pytest.raises(UnknownModel) as refused:
            openai.placed("chat", model, CHECKPOINTS)
        assert refused.value.members["models"] == ["scribbler", *Tier, "generate", "punctual"]
    status, document = openai.problem_document(refused.value)
    assert (status, document.error.code) == (404, "model_not_found")


def test_the_models_that_are_listed_may_all_be_asked() -> None:
    """Each name that `/v1/models` lists places a body of some endpoint."""
    for listed in openai.models_of(CHECKPOINTS, 0).data:
        assert any(_is_placed(endpoint.name, listed.id) for endpoint in openai.ENDPOINTS.values()), listed.id


def _is_placed(endpoint: str, model: str) -> bool:
    try:
        openai.placed(endpoint, model, CHECKPOINTS)
    except UnknownModel:
        return False
    return True


@pytest.mark.parametrize(("reason", "ended"), [("stop", "stop"), ("length", "length"), ("deadline", "length")])
def test_an_answer_of_the_assistant_has_openais_form(reason: FinishReason, ended: str) -> None:
    """Text, reason and tokens are where OpenAI's clients look for them."""
    document = plain(chat().answer(answer({"generated_text": "Hi."}, reason=reason), TOLD))
    assert (document["id"], document["object"], document["model"]) == ("chatcmpl-r-1", "chat.completion", "scribbler")
    choice = document["choices"][0]
    assert choice["message"] == {"content": "Hi.", "role": "assistant", "refusal": None}
    assert choice["finish_reason"] == ended
    assert document["usage"] == {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}


def test_a_completion_is_of_any_task_that_writes() -> None:
    """Prompts are written on, or summarised by a checkpoint that reads first; echo repeats the prompt."""
    body = CompletionBody.model_validate({"model": "a", "prompt": ["a", "b"], "echo": True, "stop": "."})
    asked = openai.document_of(body, "completions", TASKS["generate"])
    assert asked["parameters"] == {"stop": ["."], "return_full_text": True}
    plainly = CompletionBody.model_validate(
        {"model": "a", "prompt": "a", "echo": False, "stop": [], "presence_penalty": 0}
    )
    assert openai.document_of(plainly, "completions", TASKS["summarize"])["parameters"] == {}
    document = plain(body.answer(answer({"summary_text": "A."}, {"summary_text": "B."}), TOLD))
    assert [one["text"] for one in document["choices"]] == ["A.", "B."]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"stop": ["Cats"]}, "stop"),
        ({"stop": "Cats"}, "stop"),
        ({"echo": True}, "echo"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"frequency_penalty": -0.5}, "frequency_penalty"),
    ],
)
def test_what_a_task_does_not_do_is_refused_by_its_name(given: dict[str, Any], field: str) -> None:
    """What would change a completion is not dropped where it goes to a task that does not take it."""
    body = CompletionBody.model_validate({"model": "a", "prompt": "a", "max_tokens": 20, **given})
    with pytest.raises(InvalidRequest, match=f"^{field}: ") as caught:
        openai.document_of(body, "completions", TASKS["summarize"])
    assert caught.value.members["errors"] == [{"field": field, "message": "is not done by summarize"}]


def test_vectors_come_as_numbers_or_packed() -> None:
    """The base64 that OpenAI's own client asks for unpacks to the numbers, as 32-bit floats."""
    vector = [0.25, -1.5, 3.0]
    body = EmbeddingsBody.model_validate({"model": "a", "input": "a"})
    assert plain(body.answer(answer(vector), TOLD))["data"][0]["embedding"] == vector
    packed = body.model_copy(update={"encoding_format": "base64"})
    said = plain(packed.answer(answer(vector), TOLD))["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(said), dtype="<f4").tolist() == vector


def test_faults_are_told_by_the_fields_of_the_clients_own_body() -> None:
    """What is found in the body of the task names the field that the client sent."""
    fault = InvalidRequest(
        "inputs[1].content: must not be empty", [{"field": "parameters.max_new_tokens", "message": "too many"}]
    )
    told = openai.in_their_words(fault, chat().names)
    assert told.detail == "messages[1].content: must not be empty"
    status, document = openai.problem_document(told)
    assert status == 400 and document.error.param == "max_tokens"
    assert document.error.type == "invalid_request_error"


def test_problems_have_openais_form_and_their_own_beside() -> None:
    """Statuses are the contract's, but for what does not validate and what is too long; numbers stay readable."""
    status, document = openai.problem_document(InputTooLong("over the window", {"limit": 9}))
    assert (status, document.error.code) == (400, "context_length_exceeded")
    assert plain(document)["punctual"]["status"] == 400, "a document says the status that it comes with"
    status, document = openai.problem_document(Overloaded("full", 1.5))
    told = plain(document)
    assert (status, told["error"]["type"]) == (429, "rate_limit_error")
    assert told["punctual"]["retry_after_ms"] >= 1500
