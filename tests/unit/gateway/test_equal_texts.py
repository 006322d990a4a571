"""Equal texts of one request: where replicas run them once, they are forecast, decided and learned from as one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fakes import ANSWER, SWIFT, TERMS
from hypothesis import given
from hypothesis import strategies as st
from worlds import World, client_of, embedding, is_problem, summarizing, world

from gateway.model.messages import Answer, InputReport, Parameters, ReplicaTimings
from gateway.model.request import Request, RequestShape
from gateway.tasks.answer import AnswerParameters
from gateway.tasks.classify import ClassifyParameters
from gateway.tasks.summarize import SummarizeParameters
from gateway.tasks.zero_shot import ZeroShotParameters

STRICT = {"X-Latency-SLA-Ms": "100", "X-SLA-Mode": "strict"}


def shape(told: World, task: str, inputs: tuple[str, ...], parameters: Parameters) -> RequestShape:
    """Return what a request costs by."""
    return told.service.router.shape(Request(task, inputs, parameters, TERMS, told.clock()))


@pytest.mark.virtual_time
async def test_equal_texts_are_let_in_where_one_is() -> None:
    """A strict list of equal texts is answered where as many that differ are infeasible, and counts as many texts."""
    told = world(lambda checkpoint, work: answered(len(work.inputs)))
    client = client_of(told)
    differ = await client.post("/classify", json={"inputs": [f"film {at}" for at in range(64)]}, headers=STRICT)
    assert is_problem(differ, "budget_infeasible", 422)
    equal = await client.post("/classify", json={"inputs": ["good film"] * 64}, headers=STRICT)
    assert equal.status_code == 200 and len(equal.json()) == 64
    assert told.kept.records[-1].inputs == 64 and len(told.backend.dispatches[-1].work.inputs) == 64


def answered(texts: int) -> Answer:
    """Return an answer with so many outputs."""
    return Answer(ANSWER.outputs[:1] * texts, ANSWER.input, ANSWER.timings, ANSWER.generation)


@given(st.lists(st.sampled_from(["a", "b b b b b b b b b b b b", "c c c c c c c c c c c c c c c c"]), min_size=1))
def test_a_request_costs_what_its_distinct_texts_cost(texts: list[str]) -> None:
    """A list costs as much as the list of its distinct texts."""
    told, distinct = world(), tuple(dict.fromkeys(texts))
    given, once = (shape(told, "classify", tuple(one), ClassifyParameters()) for one in (texts, distinct))
    assert (given.tokens, given.texts, given.sampled) == (once.tokens, once.texts, once.sampled)
    assert given.copies == len(texts) / len(distinct) and once.copies == 1


def test_pairs_are_equal_if_both_texts_are() -> None:
    """Pairs that join to one text are two unless they are divided at one place."""
    told = world()
    for second_at, texts in (((1, 2, 1), 2), ((1, 1, 1), 1), ((1, None, 2), 3)):
        asked = shape(told, "classify", ("abc", "abc", "abc"), ClassifyParameters(second_at=second_at))
        assert asked.texts == texts and isinstance(asked.parameters, ClassifyParameters)
        assert asked.parameters.second_at == tuple(dict.fromkeys(second_at))


def test_a_question_keeps_its_context() -> None:
    """What is left of equal questions has the places of its own contexts."""
    asked = shape(embedding(also=("answer",)), "answer", ("ab", "cde", "ab"), AnswerParameters(second_at=(1, 2, 1)))
    assert isinstance(asked.parameters, AnswerParameters)
    assert asked.parameters.second_at == (1, 2) and len(asked.tokens[0]) == 2


def test_labels_stay() -> None:
    """Of equal texts with labels one is forecast, and every label, also one that is equal to a text."""
    asked = ZeroShotParameters(("a", "good"))
    found = shape(embedding(also=("zero-shot",)), "zero-shot", ("good", "good", "a", "good"), asked)
    assert found.texts == 1 and len(found.tokens[0]) == 3 and found.copies == 2


def test_what_is_written_is_written_for_each() -> None:
    """A task whose replicas answer text by text is forecast for each."""
    assert shape(summarizing(), "summarize", ("a page",) * 3, SummarizeParameters()).texts == 3


@pytest.mark.parametrize("copies", [1, 2, 64])
def test_an_answer_to_equal_texts_teaches_what_one_does(copies: int) -> None:
    """The slowdown after an answer to equal texts is that after the answer to one: their tokens ran once."""
    told = world()
    given: Any = shape(told, "classify", ("good film",) * copies, ClassifyParameters())
    decided = told.service.router.decide(
        told.request(replace(TERMS, pinned=SWIFT)), told.service.router.deadline(told.request())
    )
    assert decided.chosen is not None and decided.chosen.forecast is not None
    tokens = given.tokens[0][0]
    model = told.service.router.served[SWIFT].forecaster.model
    timings = ReplicaTimings(0.0, 2 * model.run_s(1, tokens), 0.0, 1)
    answer = Answer(ANSWER.outputs * copies, InputReport(tokens * copies, tokens * copies, False), timings, ())
    told.service.router.served[SWIFT].forecaster.learn_service(decided.chosen.forecast, given, answer)
    assert model.slowdown.value == pytest.approx(1.1)
