"""The contract for machines agrees with what the gateway does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fake_summaries import generation, summary
from fakes import ANSWER, GRAND, scripted
from worlds import client_of, summarizing, world

from gateway.api import headers
from gateway.api.openapi import openapi_document
from gateway.model import errors
from gateway.model.errors import Problem
from gateway.model.messages import Answer, InputReport, ReplicaTimings
from gateway.scheduling.policy import Reason, Verdict

BODIES: dict[str, dict[str, object]] = {
    "/classify": {"inputs": "a good film"},
    "/summarize": {"inputs": "One thing. Another."},
    "/route": {"task": "classify", "inputs": "a good film"},
}

KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
"""What JSON's kinds are read as."""


async def document() -> dict[str, Any]:
    """The document as it is served."""
    response = await client_of(world()).get("/openapi.json")
    assert response.status_code == 200
    served: dict[str, Any] = response.json()
    return served


def references(part: object) -> Iterator[str]:
    """Every `$ref` in it."""
    if isinstance(part, dict):
        for name, inner in part.items():
            if name == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


def fits(value: object, schema: Any, schemas: dict[str, Any]) -> bool:
    """Whether a value is of a schema, as far as the document's own answers use the language of schemas."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rsplit("/", 1)[1]]
    if "enum" in schema and value not in schema["enum"]:
        return False
    kinds = schema.get("type", [])
    of = tuple(kind for name in ([kinds] if isinstance(kinds, str) else kinds) for kind in KINDS[name])
    if of and not isinstance(value, of):
        return False
    if isinstance(value, list):
        return all(fits(one, schema.get("items", {}), schemas) for one in value)
    if isinstance(value, dict):
        known = schema.get("properties", {})
        return set(schema.get("required", ())) <= set(value) and all(
            fits(one, known.get(name, schema.get("additionalProperties", {})), schemas) for name, one in value.items()
        )
    return True


async def test_every_reference_leads_somewhere() -> None:
    """No `$ref` points outside the document or at nothing."""
    served = await document()
    found = set(references(served))
    assert found
    for reference in found:
        assert reference.startswith("#/")
        here: Any = served
        for step in reference.removeprefix("#/").split("/"):
            here = here[step]
        assert isinstance(here, dict)


async def test_the_document_has_the_shape_of_openapi_3_1() -> None:
    """Version, title, and operations each with responses that are described."""
    served = await document()
    assert served["openapi"].startswith("3.1.") and {"title", "version"} <= set(served["info"])
    for operations in served["paths"].values():
        for operation in operations.values():
            assert operation["responses"] and all(one["description"] for one in operation["responses"].values())
            names = [(one["in"], one["name"]) for one in operation.get("parameters", [])]
            assert len(names) == len(set(names))


async def test_every_documented_call_exists() -> None:
    """Each path answers under each of its methods."""
    client = client_of(summarizing())
    for path, operations in (await document())["paths"].items():
        for method in operations:
            response = await client.request(method, path, json=BODIES.get(path))
            assert response.status_code == 200, path


async def test_every_documented_response_header_of_an_answer_is_sent() -> None:
    """What the document promises of an answer on a cut text, the answer has; a classification ends for no reason."""
    paths = (await document())["paths"]
    documented = paths["/summarize"]["post"]["responses"]["200"]["headers"]
    cut = summary(generation("length"), tokens=900, kept=64)
    response = await client_of(summarizing(scripted(cut))).post("/summarize", json=BODIES["/summarize"])
    assert set(documented) <= {name for name in documented if name in response.headers}
    assert response.headers["X-Finish-Reason"] in documented["X-Finish-Reason"]["schema"]["enum"]
    documented = paths["/classify"]["post"]["responses"]["200"]["headers"]
    labels = Answer(ANSWER.outputs, InputReport(900, 64, True), ReplicaTimings(0.0, 0.002, 0.002, 1))
    response = await client_of(world(scripted(labels))).post("/classify", json=BODIES["/classify"])
    assert set(documented) - {"X-Finish-Reason"} <= {name for name in documented if name in response.headers}
    assert response.headers["X-Route-Reason"] in documented["X-Route-Reason"]["schema"]["enum"]
    assert documented["X-Route-Reason"]["schema"]["enum"] == [reason.value for reason in Reason]
    assert response.headers["X-Checkpoint"] == GRAND


async def test_route_documents_only_what_it_sends() -> None:
    """`/route` runs nothing: no header of an answer, no details, no refusal that only a run can meet."""
    route = (await document())["paths"]["/route"]["post"]
    response = await client_of(world()).post("/route", json=BODIES["/route"])
    assert all(name in response.headers for name in route["responses"]["200"]["headers"])
    assert "details" not in {one["name"] for one in route["parameters"]}
    assert not {"429", "503", "504"} & set(route["responses"])


@pytest.mark.parametrize("headers", [{}, {"X-SLA-Mode": "strict", "X-Latency-SLA-Ms": "1"}])
@pytest.mark.parametrize("up", [True, False])
async def test_a_decision_is_documented_as_it_is_sent(headers: dict[str, str], up: bool) -> None:
    """`/route` sends the members that its schema names and no others; chosen, refused or down."""
    schemas = (await document())["components"]["schemas"]
    routed = schemas["Routed"]
    sent = (await client_of(world(up=up)).post("/route", json=BODIES["/route"], headers=headers)).json()
    assert fits(sent, routed, schemas)
    assert set(sent) == set(routed["properties"])
    of_candidates = routed["properties"]["candidates"]["items"]["properties"]
    for candidate in sent["candidates"]:
        assert set(candidate) == set(of_candidates)
        assert (candidate["forecast_ms"] is not None) == up
        if up:
            assert set(candidate["forecast_ms"]) == set(of_candidates["forecast_ms"]["properties"])
    assert of_candidates["verdict"]["enum"] == [verdict.value for verdict in Verdict]
    assert not fits({**sent, "price": None}, routed, schemas)


async def test_every_documented_reply_bears_the_identity() -> None:
    """X-Request-Id is on every answer, errors included."""
    for operations in (await document())["paths"].values():
        for operation in operations.values():
            assert all("X-Request-Id" in reply["headers"] for reply in operation["responses"].values())


async def test_every_header_that_is_read_is_documented() -> None:
    """What `terms` knows of, the tasks and `/route` document."""
    paths = (await document())["paths"]
    for path in BODIES:
        parameters = paths[path]["post"]["parameters"]
        assert {one["name"] for one in parameters if one["in"] == "header"} == set(headers.KNOWN.values())


async def test_details_are_documented_as_they_are_sent() -> None:
    """The object of ?details=true has the members that the document gives it, down to the routing's."""
    served = await document()
    detailed = served["components"]["schemas"]["Detailed"]["properties"]
    sent = (await client_of(world()).post("/classify?details=true", json=BODIES["/classify"])).json()
    assert set(detailed) == set(sent)
    for part in ("routing", "input"):
        assert set(detailed[part]["properties"]) == set(sent[part])
    of_summaries = served["components"]["schemas"]["DetailedSummaries"]["properties"]
    sent = (await client_of(summarizing()).post("/summarize?details=true", json=BODIES["/summarize"])).json()
    assert set(of_summaries) == set(sent)
    assert set(of_summaries["generation"]["items"]["properties"]) == set(sent["generation"][0])


@pytest.mark.parametrize("task", ["classify", "summarize"])
async def test_the_task_documents_its_own_bodies(task: str) -> None:
    """Each endpoint refers to the schema of its body and to those of its two answers, which describe what is sent."""
    served = await document()
    schemas, call = served["components"]["schemas"], served["paths"][f"/{task}"]["post"]
    body = references(call["requestBody"])
    assert [one.rsplit("/", 1)[1] for one in body] == [f"{task.capitalize()}Body"]
    answers = [one.rsplit("/", 1)[1] for one in references(call["responses"]["200"])]
    client = client_of(summarizing())
    for name, query in zip(answers, ("", "?details=true"), strict=True):
        sent = (await client.post(f"/{task}{query}", json=BODIES[f"/{task}"])).json()
        assert fits(sent, schemas[name], schemas), name
        other = next(schemas[one] for one in answers if one != name)
        assert not fits(sent, other, schemas), name


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"max_new_tokens": 20, "min_new_tokens": 0, "num_beams": 2, "truncation": "only_first", "domain": "law"},
        {"clean_up_tokenization_spaces": True, "generate_parameters": {"max_length": 9, "do_sample": False}},
        {"generate_parameters": {"length_penalty": 1.5, "no_repeat_ngram_size": 3, "early_stopping": True}},
    ],
)
async def test_a_parameter_that_is_documented_is_accepted(parameters: dict[str, Any]) -> None:
    """The document names each of these, at its level, and the gateway takes them."""
    schemas = (await document())["components"]["schemas"]
    assert set(parameters) <= set(schemas["SummarizeBodyParameters"]["properties"])
    assert set(parameters.get("generate_parameters", {})) <= set(schemas["GenerateParameters"]["properties"])
    sent = {**BODIES["/summarize"], "parameters": parameters}
    assert (await client_of(summarizing()).post("/summarize", json=sent)).status_code == 200


async def test_not_ready_is_documented() -> None:
    """`/readyz` says which statuses it can have."""
    responses = (await document())["paths"]["/readyz"]["get"]["responses"]
    assert {"200", "503"} <= set(responses)
    assert (await client_of(world(up=False)).get("/readyz")).status_code == 503


async def test_every_refusal_of_a_request_is_documented() -> None:
    """Each status that a problem of the request path can have is among the responses of both tasks."""
    paths = (await document())["paths"]
    documented = set(paths["/classify"]["post"]["responses"])
    assert documented == set(paths["/summarize"]["post"]["responses"])
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Problem)}
    statuses = {str(kind.status) for kind in kinds - {Problem}}
    assert statuses | {"400"} <= documented


def test_the_document_is_made_once() -> None:
    """It depends on nothing that changes."""
    assert openapi_document() is openapi_document()
