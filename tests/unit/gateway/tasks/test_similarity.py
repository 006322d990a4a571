"""Laws of `/similarity`: its inputs are one text and others, and any checkpoint may answer within the budget."""

from __future__ import annotations

from typing import Any

import pytest
from fake_embedders import FINE, QUICK
from worlds import client_of, embedding, is_problem

from gateway.model.request import BUDGET, CHECKPOINT
from gateway.tasks.similarity import SIMILARITY, SimilarityBody, SimilarityParameters

INPUTS = {"source_sentence": "a cat", "sentences": ["a dog", "the sea"]}


@pytest.mark.parametrize(("budget_ms", "answers"), [("10000", FINE), ("40", QUICK)])
async def test_the_budget_chooses_the_checkpoint(budget_ms: str, answers: str) -> None:
    """A generous budget gets the better checkpoint, a tight one the faster; the answer is a score for each sentence."""
    async with client_of(embedding(default=FINE)) as client:
        answer = await client.post("/similarity", json={"inputs": INPUTS}, headers={BUDGET: budget_ms})
    assert answer.headers[CHECKPOINT] == answers and answer.json() == [0.5, 0.5]


async def test_the_source_goes_first_to_the_replica() -> None:
    """A replica is sent the source and then the sentences, in order."""
    told = embedding()
    async with client_of(told) as client:
        await client.post("/similarity", json={"inputs": INPUTS, "parameters": {"truncate": False}})
    (sent,) = told.backend.dispatches
    assert sent.work.inputs == ("a cat", "a dog", "the sea") and sent.work.parameters == SimilarityParameters(False)


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"inputs": "a cat"}, "inputs"),
    ({"inputs": INPUTS | {"sentences": ["a dog", 3]}}, "inputs.sentences[1]"),
    ({"inputs": INPUTS | {"sentences": []}}, "inputs.sentences"),
    ({"inputs": {"sentences": ["a dog"]}}, "inputs.source_sentence"),
    ({"inputs": INPUTS | {"one": 1}}, "inputs.one"),
    ({}, "inputs"),
    ({"inputs": INPUTS, "parameters": {"top_k": 1}}, "parameters.top_k"),
]


@pytest.mark.parametrize(("body", "field"), FAULTS)
@pytest.mark.parametrize("path", ["/similarity", "/route"])
async def test_a_fault_is_named_by_its_field(body: dict[str, Any], field: str, path: str) -> None:
    """A wrong body is a 422 that names the field, the same on its own endpoint and on `/route`."""
    async with client_of(embedding()) as client:
        refused = await client.post(path, json=body if path == "/similarity" else {"task": "similarity", **body})
    assert is_problem(refused, "invalid_request", 422) and refused.json()["errors"][0]["field"] == field


@pytest.mark.parametrize("texts", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_a_body_made_of_texts_holds_them(texts: list[str]) -> None:
    """A body that is made of texts has all of them, in order; one text is compared with itself."""
    body = SimilarityBody.model_validate({"inputs": SIMILARITY.body.inputs_of(texts)})
    assert list(body.texts()) == (texts if len(texts) > 1 else texts * 2)


async def test_every_text_counts_towards_the_limits() -> None:
    """The source and the sentences together may be as many as the catalog allows."""
    told = embedding()
    most = told.catalog.limits.max_inputs
    async with client_of(told) as client:
        fits = await client.post("/similarity", json={"inputs": INPUTS | {"sentences": ["a"] * (most - 1)}})
        refused = await client.post("/similarity", json={"inputs": INPUTS | {"sentences": ["a"] * most}})
    assert fits.status_code == 200 and is_problem(refused, "input_too_long", 413)
