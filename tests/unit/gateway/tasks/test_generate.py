"""Bodies of `/generate`, what is made of them, and how long a checkpoint takes for them."""

from __future__ import annotations

from typing import Any

import pytest
from byte_prompts import OUTPUT_TOKENS, WINDOW, manifest
from pydantic import ValidationError

from gateway.model.errors import InvalidRequest
from gateway.model.messages import Answer, Generation, InputReport, ReplicaTimings
from gateway.tasks.generate import GENERATE, MOST_STOPS, CausalModel, GenerateBody, GenerateParameters

USER = {"role": "user", "content": "Hello?"}


def read(inputs: object = "Say:", **parameters: Any) -> GenerateParameters:
    """What a body with these parameters asks for."""
    made, _ = GENERATE.read(GenerateBody.model_validate({"inputs": inputs, "parameters": parameters}))
    assert isinstance(made, GenerateParameters)
    return made


def test_a_body_is_a_prompt_prompts_or_a_conversation() -> None:
    """What a replica is sent are the prompts, or what each message says, with who says it beside."""
    assert GenerateBody.model_validate({"inputs": "a"}).texts() == ("a",)
    assert GenerateBody.model_validate({"inputs": ["a", "b"]}).texts() == ["a", "b"]
    said = GenerateBody.model_validate({"inputs": [{"role": "system", "content": "Be brief."}, USER]})
    assert (said.texts(), said.roles()) == (["Be brief.", "Hello?"], ("system", "user"))
    assert read([USER]).roles == ("user",) and read(["a", "b"]).roles == ()


@pytest.mark.parametrize(
    "inputs",
    ["", [""], [USER, "text"], ["text", USER], [{"role": "tool", "content": "a"}], [{"role": "user"}], 7, {"a": 1}],
)
def test_what_is_neither_is_refused(inputs: object) -> None:
    """Messages and texts do not mix, every message has a known role and says something."""
    with pytest.raises(ValidationError):
        GenerateBody.model_validate({"inputs": inputs})


@pytest.mark.parametrize(
    ("given", "sample"),
    [
        ({}, None),
        ({"do_sample": False}, False),
        ({"do_sample": True}, True),
        ({"temperature": 0.7}, True),
        ({"top_p": 0.9}, True),
        ({"top_k": 5, "do_sample": False}, False),
        ({"temperature": 0}, False),
        ({"temperature": 0, "top_p": 1.0}, False),
    ],
)
def test_tokens_are_drawn_where_a_request_shapes_the_draw(given: dict[str, Any], sample: bool | None) -> None:
    """`do_sample` decides; where it is absent, a parameter of draws does; a temperature of 0 is the likeliest token."""
    assert read(**given).sample is sample


def test_stop_texts_go_by_two_names() -> None:
    """`stop_sequences` is the older word for `stop`, and their number is limited."""
    assert read(stop=["a"]).stop == read(stop_sequences=["a"]).stop == ("a",)
    with pytest.raises(ValidationError):
        read(stop=["a"] * (MOST_STOPS + 1))


@pytest.mark.parametrize(
    ("field", "given"),
    [("min_new_tokens", {"min_new_tokens": 9, "max_new_tokens": 8}), ("details", {"details": True})],
)
def test_what_cannot_be_met_is_refused_by_name(field: str, given: dict[str, Any]) -> None:
    """A fault names its field."""
    with pytest.raises(InvalidRequest) as refused:
        read(**given)
    assert refused.value.members["errors"][0]["field"] == f"parameters.{field}"  # type: ignore[index]


@pytest.mark.parametrize(
    "given", [{"num_beams": 2}, {"best_of": 3}, {"watermark": True}, {"typical_p": 0.5}, {"grammar": {}}]
)
def test_what_would_change_the_answer_and_is_not_done_is_refused(given: dict[str, Any]) -> None:
    """Nothing that shapes an answer is dropped silently."""
    with pytest.raises(ValidationError):
        read(**given)


def model() -> CausalModel:
    """A checkpoint that reads in 20 ms and writes a token in 10."""
    return CausalModel(manifest())


def test_an_answer_takes_its_prompt_and_its_expected_tokens() -> None:
    """20 ms for the prompt, 10 for each of the 12 tokens that are expected; fewer if fewer are asked for or fit."""
    asked, least = model().service_times_s([8], GenerateParameters(), 9.0)
    assert asked == least == pytest.approx(0.02 + OUTPUT_TOKENS * 0.01)
    assert model().service_times_s([8], GenerateParameters(max_new_tokens=4), 9.0)[0] == pytest.approx(0.06)
    assert model().service_times_s([8], GenerateParameters(), 0.07)[0] == pytest.approx(0.07)
    assert model().service_times_s([WINDOW - 3], GenerateParameters(), 9.0)[0] == pytest.approx(0.05)


def test_a_conversation_is_one_prompt_and_prompts_are_many() -> None:
    """Prompts are read one after the other and step together; two messages are read together and answered once."""
    one, _ = model().service_times_s([8], GenerateParameters(), 9.0)
    both, _ = model().service_times_s([8, 8], GenerateParameters(), 9.0)
    assert both == pytest.approx(2 * 0.02 + OUTPUT_TOKENS * 0.015) == model().run_s(2, 8)
    beside, _ = model().service_times_s([8], GenerateParameters(), 9.0, companions=1)
    assert beside == pytest.approx(0.02 + OUTPUT_TOKENS * 0.015), "who is under way has been read"
    ten, _ = model().service_times_s([8] * 10, GenerateParameters(), 9.0)
    assert ten == pytest.approx(model().run_s(8, 8) + model().run_s(2, 8)) == model().run_s(10, 8)
    together, _ = model().service_times_s([4, 4], GenerateParameters(roles=("system", "user")), 9.0)
    assert together == pytest.approx(one)


def test_lengths_are_learnt_from_answers_that_had_time() -> None:
    """Answers that end by themselves move the expected length; one that was made longer by force does not."""

    def learnt(asked: GenerateParameters) -> float:
        known = model()
        for _ in range(100):
            how = Generation("stop", 31, 30, 1, 40, 1, 5.0)
            answer = Answer(({},), InputReport(8, 8, False), ReplicaTimings(0.0, 0.32, 0.32, 1), (how,))
            known.learn([8], asked, answer)
        return known.service_times_s([8], GenerateParameters(), 9.0)[0]

    assert learnt(GenerateParameters()) == pytest.approx(0.02 + 30 * 0.01, rel=0.05)
    assert learnt(GenerateParameters(min_new_tokens=30)) == pytest.approx(0.02 + OUTPUT_TOKENS * 0.01, rel=0.05)
