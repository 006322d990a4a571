"""Laws of `/fill`: which texts it takes, the shape of what it answers, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from fake_fillers import manifest
from worlds import client_of, filling, is_problem

from gateway.tasks.fill import (
    FILL,
    MASKS,
    MOST_FILLED,
    MOST_MASKED,
    MOST_MASKS,
    MOST_TARGETS,
    MOST_WORDS,
    FillBody,
    FillParameters,
)

TEXT = "ann [MASK] ."


def word(nth: int = 0) -> dict[str, Any]:
    """Return the word that the fake filler gives."""
    return {"score": 1 / (2 + nth), "token": 5, "token_str": "ann", "sequence": "ann said"}


async def answered(body: dict[str, Any], path: str = "/fill") -> Any:
    """Return the answer of a gateway over a filler to a body."""
    async with client_of(filling()) as client:
        return await client.post(path, json=body)


@pytest.mark.parametrize(
    ("inputs", "shape"),
    [
        (TEXT, [word()]),
        ("<mask> ann", [word()]),
        ("[MASK] and <mask>", [[word()], [word()]]),
        ([TEXT], [[word()]]),
        ([TEXT, "[MASK] and <mask>"], [[word()], [[word()], [word()]]]),
    ],
)
async def test_words_of_one_mask_stand_alone(inputs: object, shape: object) -> None:
    """A text with one mask gets its words, with several a list of words each; a list of texts gets a list of either."""
    assert (await answered({"inputs": inputs, "parameters": {"top_k": 1}})).json() == shape


async def test_details_have_a_list_for_each_mask_of_each_text() -> None:
    """With details the outputs have a list of words for each mask, even for the only one."""
    document = (await answered({"inputs": TEXT, "parameters": {"top_k": 2}}, "/fill?details=true")).json()
    assert document["outputs"] == [[[word(), word(1)]]]


async def test_parameters_reach_the_replica() -> None:
    """What is asked for is sent on; without a number there are five words, of all of the vocabulary."""
    told = filling()
    async with client_of(told) as client:
        await client.post("/fill", json={"inputs": TEXT})
        await client.post("/fill", json={"inputs": TEXT, "parameters": {"top_k": 3.0, "targets": ["ann", "lee"]}})
    sent = [one.work.parameters for one in told.backend.dispatches]
    assert sent == [FillParameters(5, None), FillParameters(3, ("ann", "lee"))]


@pytest.mark.parametrize(("inputs", "field"), [("ann said .", "inputs"), ([TEXT, "ann [mask]"], "inputs[1]")])
async def test_a_text_without_a_mask_is_told_what_to_write(inputs: object, field: str) -> None:
    """A text with nothing to fill is a 422 that names it and both masks, before anything is run."""
    refused = await answered({"inputs": inputs})
    assert is_problem(refused, "invalid_request", 422)
    (error,) = refused.json()["errors"]
    assert error["field"] == field and all(mask in error["message"] for mask in MASKS) and "ann" not in refused.text


@pytest.mark.parametrize(
    ("body", "field", "limit"),
    [
        ({"inputs": "[MASK] " * (MOST_MASKS + 1)}, "inputs", MOST_MASKS),
        ({"inputs": TEXT, "parameters": {"top_k": MOST_WORDS + 1}}, "parameters.top_k", MOST_WORDS),
        ({"inputs": TEXT, "parameters": {"top_k": 0}}, "parameters.top_k", 1),
        ({"inputs": [TEXT] * 6, "parameters": {"top_k": 100}}, "parameters.top_k", MOST_FILLED),
        ({"inputs": [TEXT] * (MOST_MASKED + 1), "parameters": {"top_k": 1}}, "inputs", MOST_MASKED),
        ({"inputs": TEXT, "parameters": {"targets": []}}, "parameters.targets", 1),
        ({"inputs": TEXT, "parameters": {"targets": ["a"] * (MOST_TARGETS + 1)}}, "parameters.targets", MOST_TARGETS),
        ({"inputs": TEXT, "parameters": {"targets": ["a", " "]}}, "parameters.targets[1]", "blank"),
        ({"inputs": TEXT, "parameters": {"tokenizer_kwargs": {}}}, "parameters.tokenizer_kwargs", ""),
        ({"inputs": ""}, "inputs", 1),
        ({"inputs": []}, "inputs", ""),
    ],
)
async def test_what_is_over_a_limit_is_named_with_it(body: dict[str, Any], field: str, limit: object) -> None:
    """A body over a limit is a 422 that names the field and the limit."""
    refused = await answered(body)
    assert is_problem(refused, "invalid_request", 422)
    error = refused.json()["errors"][0]
    assert error["field"] == field and str(limit) in error["message"]


async def test_an_answer_does_not_depend_on_who_asks() -> None:
    """Caches may give one client's answer to another: the shape is by the body alone."""
    assert "Vary" not in (await answered({"inputs": TEXT})).headers


def test_words_that_are_written_take_time() -> None:
    """A request is forecast to take longer the more words it asks for, and the more masks it has."""
    model = FILL.kinds["filler"].service_time(manifest())
    taken = [
        model.service_times_s((9,), FillParameters(top_k, None, masks), 1.0)[0]
        for top_k, masks in ((1, 1), (5, 1), (5, 8), (100, 4))
    ]
    assert taken == sorted(taken) and len(set(taken)) == len(taken)


async def test_a_load_generator_s_body_has_masks() -> None:
    """Any texts make a body that the endpoint reads."""
    for texts in (["a b"], ["a b", "c d"]):
        assert (await answered(FillBody.document_of(texts))).status_code == 200
