"""Laws of `/embed`: one checkpoint answers whatever the budget, says which it is, and refuses what it cannot do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fake_embedders import DIMENSIONS, FINE, PROMPTS, QUICK, manifest
from worlds import client_of, embedding, is_problem

from gateway.model.errors import CheckpointUnavailable
from gateway.model.request import BUDGET, CHECKPOINT, MIN_TIER, MODE
from gateway.router import Router
from gateway.tasks.embed import EMBED, EmbedBody, EmbedParameters

TEXTS: dict[str, Any] = {"inputs": ["a cat", "a dog"]}
REVISION, LENGTH = "X-Checkpoint-Revision", "X-Embedding-Dimensions"


@pytest.mark.parametrize("budget_ms", ["10000", "60", "3", "0.5"])
@pytest.mark.parametrize(("default", "answers"), [(None, FINE), (QUICK, QUICK), (FINE, FINE)])
async def test_the_budget_never_switches_the_checkpoint(budget_ms: str, default: str | None, answers: str) -> None:
    """Without a pin the catalog's default answers, else the one of the best quality, even if it will be late."""
    async with client_of(embedding(default=default)) as client:
        answer = await client.post("/embed", json=TEXTS, headers={BUDGET: budget_ms})
    assert answer.status_code == 200 and answer.headers[CHECKPOINT] == answers
    assert answer.headers["X-Route-Reason"] == "pinned"


@pytest.mark.parametrize("default", [QUICK, FINE])
@pytest.mark.parametrize("tier", ["realtime", "balanced", "quality"])
async def test_a_model_that_names_a_tier_is_its_best_embedder(default: str, tier: str) -> None:
    """Whatever the default and the budget: one `model` always gives vectors that compare."""
    async with client_of(embedding(default=default)) as client:
        for budget_ms in ("3", "10000"):
            asked = {"model": tier, "input": "a cat"}
            answer = await client.post("/v1/embeddings", json=asked, headers={BUDGET: budget_ms})
            assert answer.status_code == 200 and answer.json()["model"] == FINE, answer.text


async def test_a_tier_that_no_embedder_has_is_refused_as_the_model_that_names_it() -> None:
    """The refusal names `model`, and no header that nobody sent is at fault."""
    made = embedding(default=QUICK)
    made.service.router = Router(made.catalog.only((QUICK,)), {QUICK: manifest(QUICK)}, made.load, made.clock)
    async with client_of(made) as client:
        refused = await client.post("/v1/embeddings", json={"model": "quality", "input": "a cat"})
    error = refused.json()["error"]
    assert refused.status_code == 400 and error["param"] == "model"
    assert error["message"] == f"model: {QUICK} answers without X-Checkpoint, and is of the tier realtime"


@pytest.mark.parametrize("name", [QUICK, FINE])
async def test_a_pin_is_kept(name: str) -> None:
    """A pinned checkpoint answers, be it the default or not."""
    async with client_of(embedding(default=FINE)) as client:
        answer = await client.post("/embed", json=TEXTS, headers={CHECKPOINT: name})
    assert answer.headers[CHECKPOINT] == name


async def test_an_answer_says_what_its_vectors_are() -> None:
    """Revision and dimensions are in headers and in the details; the body is one vector a text."""
    async with client_of(embedding()) as client:
        answer = await client.post("/embed", json=TEXTS)
        details = (await client.post("/embed?details=true", json=TEXTS)).json()
    assert answer.headers[REVISION] == "0123456789ab" and answer.headers[LENGTH] == str(DIMENSIONS)
    assert [len(vector) for vector in answer.json()] == [DIMENSIONS] * 2 == [len(one) for one in details["outputs"]]
    assert details["facts"] == {"revision": "0123456789ab", "dimensions": DIMENSIONS}
    assert details["routing"]["checkpoint"] == FINE


async def test_a_strict_budget_that_the_default_cannot_meet_is_refused() -> None:
    """In strict mode a budget under the default's time is refused, though a faster checkpoint would make it."""
    async with client_of(embedding(default=FINE)) as client:
        headers = {BUDGET: "10", MODE: "strict"}
        refused = await client.post("/embed", json=TEXTS, headers=headers)
        routed = (await client.post("/route", json={"task": "embed", **TEXTS}, headers=headers)).json()
        pinned = await client.post("/embed", json={"inputs": "a cat"}, headers=headers | {CHECKPOINT: QUICK})
    assert is_problem(refused, "budget_infeasible", 422) and pinned.status_code == 200
    verdicts = {one["checkpoint"]: one["verdict"] for one in routed["candidates"]}
    assert routed["refusal"] == "infeasible" and verdicts == {FINE: "too-slow", QUICK: "not-pinned"}


async def test_a_default_below_the_tier_that_was_asked_for_is_refused() -> None:
    """`X-Min-Tier` does not switch the checkpoint either: the request is refused, and the header is named."""
    async with client_of(embedding(default=QUICK)) as client:
        refused = await client.post("/embed", json=TEXTS, headers={MIN_TIER: "quality"})
    message = f"{QUICK} answers without {CHECKPOINT}, and is of the tier realtime"
    assert is_problem(refused, "invalid_request", 422)
    assert refused.json()["errors"] == [{"header": MIN_TIER, "message": message}]


async def test_a_default_that_is_not_served_is_not_replaced() -> None:
    """If the default checkpoint is missing, as one whose weights could not be fetched, no other one stands in."""
    told = embedding(default=FINE)
    told.service.router.fixed = {"embed": "absent"}
    async with client_of(told) as client:
        refused = await client.post("/embed", json=TEXTS)
        pinned = await client.post("/embed", json=TEXTS, headers={CHECKPOINT: QUICK})
    assert is_problem(refused, CheckpointUnavailable.code, 503) and "absent" in refused.text
    assert pinned.status_code == 200


@pytest.mark.parametrize(("prompts", "message"), [({}, "has no prompts"), (PROMPTS, "must be one of query")])
async def test_an_unknown_prompt_is_refused_by_name(prompts: dict[str, str], message: str) -> None:
    """A prompt that the checkpoint lacks is a 422 that names the field and what it must be; `/route` says so too."""
    told = embedding()
    told.service.router.manifests = {FINE: manifest(FINE, prompts=prompts), QUICK: manifest(QUICK)}
    body = TEXTS | {"parameters": {"prompt_name": "passage"}}
    async with client_of(told) as client:
        for path, sent in (("/embed", body), ("/route", {"task": "embed", **body})):
            refused = await client.post(path, json=sent)
            assert is_problem(refused, "invalid_request", 422)
            (fault,) = refused.json()["errors"]
            assert fault["field"] == "parameters.prompt_name" and message in fault["message"]
    assert told.backend.dispatches == []


@pytest.mark.parametrize("nested", [True, False])
async def test_parameters_reach_the_replica(nested: bool) -> None:
    """Parameters cross to the replica as they were asked for, beside `inputs` as stock clients send them, or within."""
    told = embedding()
    told.service.router.manifests = {FINE: manifest(FINE, prompts=PROMPTS), QUICK: manifest(QUICK)}
    parameters = {"prompt_name": "query", "normalize": False, "truncate": False, "truncation_direction": "Left"}
    async with client_of(told) as client:
        sent_body = TEXTS | ({"parameters": parameters} if nested else parameters)
        assert (await client.post("/embed", json=sent_body)).status_code == 200
    (sent,) = told.backend.dispatches
    assert sent.work.parameters == EmbedParameters(False, False, "left", "query")


@pytest.mark.parametrize("given", [None, {}, {"truncate": None, "normalize": None, "truncation_direction": "right"}])
def test_what_is_absent_is_the_contract_s_default(given: dict[str, object] | None) -> None:
    """Absent and null parameters are defaults: a long text keeps its head, and the checkpoint decides on the length."""
    body = EmbedBody.model_validate({"inputs": "a cat"} | ({} if given is None else {"parameters": given}))
    assert EMBED.read(body) == (EmbedParameters(), None)


@pytest.mark.parametrize("name", ["truncation_direction", "normalize", "dimensions"])
async def test_a_parameter_that_is_none_is_refused_by_name(name: str) -> None:
    """A wrong or unknown parameter is a 422 that names it."""
    async with client_of(embedding()) as client:
        refused = await client.post("/embed", json=TEXTS | {"parameters": {name: "up"}})
    assert is_problem(refused, "invalid_request", 422)
    assert refused.json()["errors"][0]["field"] == f"parameters.{name}"


async def test_checkpoints_say_who_answers_without_a_pin() -> None:
    """`/checkpoints` names the default of each task that is fixed, and shows what an embedder gives."""
    async with client_of(embedding(default=QUICK)) as client:
        listed = (await client.get("/checkpoints")).json()
    assert listed["defaults"] == {"embed": QUICK}
    assert {(one["task"], *one["also"], one["dimensions"]) for one in listed["checkpoints"]} == {
        ("embed", "similarity", DIMENSIONS)
    }


def test_a_revision_is_the_commit_where_there_is_one() -> None:
    """The revision of a checkpoint from the Hub is its commit; of others it is the beginning of their files' digest."""
    local = manifest(FINE)
    assert local.revision == local.source.sha256[:12]
    hub = local.model_copy(update={"source": local.source.model_copy(update={"revision": "c" * 40})})
    assert hub.revision == "c" * 40 and replace(EMBED.facts[0]).of(hub) == "c" * 40
