"""Laws of `/answer`: the bodies that it reads, the shape of what it answers, and what a request costs."""

from __future__ import annotations

from typing import Any

import pytest
from fake_embedders import FINE, QUICK
from fakes import ANSWER, latency_profile
from hypothesis import given
from hypothesis import strategies as st
from worlds import client_of, embedding, is_problem

from gateway.model.messages import Answer, InputReport, ReplicaTimings
from gateway.model.request import BUDGET, CHECKPOINT
from gateway.tasks.answer import (
    MOST_ANSWERS,
    MOST_QUESTION_CHARACTERS,
    AnswerBody,
    AnswerParameters,
    SentencesModel,
    SpansModel,
    overlap_of,
)
from gateway.tasks.windows import MOST_WINDOWS

ASKED = {"question": "Who?", "context": "Ann did it. Bob did not."}
FIRST = {"answer": "A", "score": 0.5, "start": 0, "end": 1}


async def answered(body: dict[str, Any], path: str = "/answer", budget_ms: str = "10000") -> Any:
    """Return the answer of a gateway over two embedders to a body."""
    async with client_of(embedding(also=("answer",))) as client:
        return await client.post(path, json=body, headers={BUDGET: budget_ms})


@pytest.mark.parametrize(("budget_ms", "answers"), [("10000", FINE), ("60", QUICK)])
async def test_the_budget_chooses_the_checkpoint(budget_ms: str, answers: str) -> None:
    """A generous budget gets the better checkpoint and a tight one the faster."""
    answer = await answered({"inputs": ASKED}, budget_ms=budget_ms)
    assert answer.status_code == 200 and answer.headers[CHECKPOINT] == answers


@pytest.mark.parametrize(
    ("inputs", "top_k", "shape"),
    [
        (ASKED, None, FIRST),
        (ASKED, 1, FIRST),
        (ASKED, 2, [FIRST, FIRST | {"answer": "n", "score": 1 / 3, "start": 1, "end": 2}]),
        ([ASKED], None, [FIRST]),
        ([ASKED, ASKED], 1, [FIRST, FIRST]),
        ([ASKED], 2, [[FIRST, FIRST | {"answer": "n", "score": 1 / 3, "start": 1, "end": 2}]]),
    ],
)
async def test_one_answer_stands_alone_and_several_are_a_list(inputs: object, top_k: int | None, shape: object) -> None:
    """A question gets one answer, or with `top_k` over 1 a list; a list of questions gets a list of either."""
    answer = await answered({"inputs": inputs, "parameters": {"top_k": top_k}})
    assert answer.json() == shape


async def test_details_have_a_list_for_each_question() -> None:
    """With details the outputs are a list of answers for each question, however they were asked for."""
    details = (await answered({"inputs": ASKED}, "/answer?details=true")).json()
    assert details["outputs"] == [[FIRST]] and details["input"]["windows"] == 1
    assert details["facts"] == {"form": "sentence"}


@pytest.mark.parametrize("parameters", [None, {}, {"top_k": 1}])
async def test_the_bodies_of_older_clients_are_read(parameters: dict[str, Any] | None) -> None:
    """`huggingface_hub` before 0.26 sends question and context themselves; parameters may stand beside them."""
    body = ASKED if parameters is None else {**ASKED, "parameters": parameters}
    assert (await answered(body)).json() == FIRST


async def test_parameters_reach_the_replica_by_their_meaning() -> None:
    """What is asked for is sent on; what is not has the defaults of transformers, or is the checkpoint's to choose."""
    told = embedding(also=("answer",))
    full = {
        "top_k": 3,
        "max_answer_len": 9,
        "handle_impossible_answer": True,
        "align_to_words": False,
        "max_seq_len": 200,
        "doc_stride": 0,
        "max_question_len": 7,
    }
    async with client_of(told) as client:
        await client.post("/answer", json={"inputs": ASKED})
        await client.post("/answer", json={"inputs": [ASKED], "parameters": full})
    sent = [one.work for one in told.backend.dispatches]
    assert [one.parameters for one in sent] == [
        AnswerParameters(second_at=(4,)),
        AnswerParameters(3, 9, True, False, 200, 0, 7, (4,)),
    ]
    assert all(one.inputs == (ASKED["question"] + ASKED["context"],) for one in sent)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"inputs": "Who?"}, "inputs"),
        ({"inputs": {"question": "Who?"}}, "inputs.context"),
        ({"inputs": ASKED | {"question": ""}}, "inputs.question"),
        ({"inputs": ASKED | {"question": "a" * (MOST_QUESTION_CHARACTERS + 1)}}, "inputs.question"),
        ({"inputs": ASKED | {"context": ""}}, "inputs.context"),
        ({"inputs": [ASKED, ASKED | {"context": 3}]}, "inputs[1].context"),
        ({"inputs": ASKED | {"answer": "Ann"}}, "inputs.answer"),
        ({"question": "Who?"}, "inputs.context"),
        ({**ASKED, "inputs": ASKED}, "question"),
        ({"inputs": []}, "inputs"),
        ({}, "inputs"),
        ({"inputs": ASKED, "parameters": {"top_k": MOST_ANSWERS + 1}}, "parameters.top_k"),
        ({"inputs": ASKED, "parameters": {"max_answer_len": 0}}, "parameters.max_answer_len"),
        ({"inputs": ASKED, "parameters": {"doc_stride": -1}}, "parameters.doc_stride"),
        ({"inputs": ASKED, "parameters": {"align_to_words": "yes"}}, "parameters.align_to_words"),
        ({"inputs": ASKED, "parameters": {"temperature": 1}}, "parameters.temperature"),
    ],
)
async def test_what_is_wrong_is_named(body: dict[str, Any], field: str) -> None:
    """A body that is not understood is a 422 that names the field, and not what was in it."""
    refused = await answered(body)
    assert is_problem(refused, "invalid_request", 422)
    assert field in [one["field"] for one in refused.json()["errors"]]
    assert "Ann" not in refused.text


def test_a_limit_is_told_with_the_field() -> None:
    """The limit on a question is in the message."""
    with pytest.raises(ValueError, match=str(MOST_QUESTION_CHARACTERS)):
        AnswerBody.model_validate({"inputs": ASKED | {"question": "a" * (MOST_QUESTION_CHARACTERS + 1)}})


async def test_a_body_is_explained_as_it_is_answered() -> None:
    """`/route` decides on the same inputs, and a load generator's body is one that the endpoint reads."""
    routed = await answered({"task": "answer", "inputs": ASKED}, "/route")
    assert routed.json()["checkpoint"] == FINE
    for texts in (["a b"], ["a b", "c d"]):
        assert (await answered(AnswerBody.document_of(texts))).status_code == 200


@given(st.lists(st.integers(1, 3_000), min_size=1, max_size=4))
def test_a_longer_context_takes_longer(tokens: list[int]) -> None:
    """The forecast of sentences never falls with a longer text, and a very long one takes as much longer."""
    model = SentencesModel(latency_profile(0.010), 64)
    parameters = AnswerParameters()
    assert model.max_batch == 1

    def time_s(*given: int) -> float:
        fully_s, least_s = model.service_times_s(given, parameters, 0.0)
        assert fully_s == least_s
        return least_s

    assert time_s(*tokens) <= time_s(*tokens, 40)
    assert model.run_s(1, tokens[0]) == time_s(tokens[0]) and model.run_s(2, 9) == 2 * time_s(9)
    assert time_s(100_000) == pytest.approx(10 * time_s(10_000), rel=0.05)
    before = time_s(*tokens)
    model.learn(tokens, parameters, ANSWER)
    assert time_s(*tokens) == before


WINDOW, SPECIALS = 512, 3


def spans_s(*tokens: int, **parameters: Any) -> float:
    """The median seconds of questions of four characters with contexts, of so many tokens each."""
    model = SpansModel(latency_profile(0.010), WINDOW, SPECIALS)
    told = AnswerParameters(second_at=(4,) * len(tokens), **parameters)
    fully_s, least_s = model.service_times_s(tokens, told, 0.0)
    assert fully_s == least_s
    return least_s


def test_a_long_context_takes_the_time_of_its_windows() -> None:
    """A context over 384 tokens is forecast with all of its windows, which the parameters make more or fewer."""
    assert spans_s(300) < spans_s(400) < spans_s(2_000) < spans_s(2_000, overlap=300)
    assert spans_s(2_000, window_tokens=100) > spans_s(2_000, window_tokens=512)
    assert spans_s(500, window_tokens=512) < spans_s(500) <= spans_s(500, 30)
    model = SpansModel(latency_profile(0.010), WINDOW, SPECIALS)
    assert model.run_s(2, 900) == pytest.approx(2 * model.run_s(1, 900)) and model.run_s(1, 900) > model.run_s(1, 90)


@given(st.integers(2, 200_000), st.integers(0, 2_000), st.integers(1, 600), st.integers(0, 600), st.integers(1, 90))
def test_forecast_windows_are_within_their_bounds(tokens: int, at: int, window: int, overlap: int, most: int) -> None:
    """Whatever is asked for, there are at most so many windows as are let in, none over the checkpoint's own."""
    told = AnswerParameters(window_tokens=window, overlap=overlap, question_tokens=most, second_at=(at,))
    lengths = SpansModel(latency_profile(0.010), WINDOW, SPECIALS).lengths(tokens, told, 0)
    assert 1 <= len(lengths) <= MOST_WINDOWS + 1 and max(lengths) <= min(window, WINDOW)


@given(st.integers(1, 512), st.integers(1, 512), st.none() | st.integers(0, 600))
def test_an_overlap_leaves_windows_room(window: int, room: int, asked: int | None) -> None:
    """Two windows never share all that one holds, and share what is asked for where that leaves room."""
    overlap = overlap_of(window, room, AnswerParameters(overlap=asked))
    assert 0 <= overlap < room
    assert asked is None or asked >= room or overlap == asked


def test_only_a_context_of_one_window_tells_how_fast_the_machine_is() -> None:
    """Of several windows the runs are not known, so nothing is learned from their time."""
    model, parameters = SpansModel(latency_profile(0.010), WINDOW, SPECIALS), AnswerParameters(second_at=(4,))
    slow = ReplicaTimings(0.0, 1.0, 1.0, 1)
    model.learn([400], parameters, Answer((), InputReport(400, 400, False, 2), slow))
    assert model.slowdown.value == 1
    model.learn([300], parameters, Answer((), InputReport(300, 300, False, 1), slow))
    assert model.slowdown.value > 1
