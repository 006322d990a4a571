"""The contract for machines agrees with what the gateway does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fake_summaries import generation, summary
from fakes import ANSWER, EVEN, GRAND, SWIFT, Behaviour, scripted
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from worlds import SMALL, client_of, embedding, filling, generating, summarizing, tagging, translating, world

from gateway.api import bodies, headers
from gateway.api.openapi import ALWAYS, READING, RUNNING, openapi_document
from gateway.api.responses import FIRST_MET
from gateway.model import errors
from gateway.model.errors import Problem
from gateway.model.messages import Answer, Failure, FailureKind, InputReport, ReplicaTimings
from gateway.model.request import FIRST_BUDGET, REQUEST_ID, TRACEPARENT, TRACESTATE
from gateway.scheduling.policy import Reason, Verdict
from gateway.tasks import TASKS
from gateway.tasks.base import Task
from gateway.tasks.classify import ClassifyBody
from gateway.tasks.tokens import Entity, RedactedText

pytestmark = pytest.mark.virtual_time

BODIES: dict[str, dict[str, object]] = {
    "/classify": {"inputs": "a good film"},
    "/summarize": {"inputs": "One thing. Another."},
    "/embed": {"inputs": "a good film"},
    "/similarity": {"inputs": {"source_sentence": "a good film", "sentences": ["a bad one"]}},
    "/tokens": {"inputs": "a good film"},
    "/generate": {"inputs": "a good film"},
    "/zero-shot": {"inputs": "a good film", "parameters": {"candidate_labels": ["praise", "complaint"]}},
    "/answer": {"inputs": {"question": "What is it?", "context": "It is a good film."}},
    "/fill": {"inputs": "a [MASK] film"},
    "/translate": {"inputs": "a good film", "parameters": {"tgt_lang": "de"}},
    "/route": {"task": "classify", "inputs": "a good film"},
    "/v1/chat/completions": {"model": "punctual", "messages": [{"role": "user", "content": "Hello?"}]},
    "/v1/completions": {"model": "punctual", "prompt": "a good film"},
    "/v1/embeddings": {"model": "fine", "input": "a good film"},
}

CUT = Answer(ANSWER.outputs, InputReport(900, 64, True), ReplicaTimings(0.0, 0.002, 0.002, 1))
"""A classification of a cut text."""

COMPONENTS = openapi_document(TASKS.values())["components"]
OF_STREAMS = {FIRST_BUDGET, FIRST_MET}
"""Response headers of answers that are streamed."""

OPEN = {"Checkpoint", "CheckpointVariant", "CheckpointState", "CatalogEntry"}
"""Schemas that others extend, so they allow members beyond their own."""


async def document() -> dict[str, Any]:
    """Return the OpenAPI document as served."""
    response = await client_of(world()).get("/openapi.json")
    assert response.status_code == 200
    served: dict[str, Any] = response.json()
    return served


def references(part: object) -> Iterator[str]:
    """Return every `$ref` within a part."""
    if isinstance(part, dict):
        for name, inner in part.items():
            if name == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


def at(document: dict[str, Any], part: Any) -> Any:
    """Return the part, with its reference resolved."""
    while "$ref" in part:
        steps = part["$ref"].removeprefix("#/").split("/")
        part = document
        for step in steps:
            part = part[step]
    return part


def properties(document: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the properties of a schema, with their references resolved."""
    found = document["components"]["schemas"][name]["properties"]
    return {member: at(document, schema) for member, schema in found.items()}


def fits(value: object, schema: Mapping[str, Any], document: dict[str, Any]) -> bool:
    """Return True if a value is valid for a schema and has no undocumented member."""
    schemas = {
        name: one | ({"additionalProperties": False} if "properties" in one and name not in OPEN else {})
        for name, one in document["components"]["schemas"].items()
    }
    return bool(Draft202012Validator({**schema, "components": {"schemas": schemas}}).is_valid(value))


def is_documented(document: dict[str, Any], response: httpx.Response) -> bool:
    """Return True if the status, media type, body and headers of a response are documented."""
    (operation,) = document["paths"][response.request.url.path].values()
    reply = operation["responses"][str(response.status_code)]
    schema = reply["content"][response.headers["content-type"].partition(";")[0]]["schema"]
    told = {name.lower(): at(document, header) for name, header in reply["headers"].items()}
    own = {
        name for name in response.headers if name.startswith("x-") or name in ("server-timing", "retry-after", "allow")
    }
    required = {name for name, header in told.items() if header["required"]}
    return required <= own <= set(told) and fits(response.json(), schema, document)


async def test_every_reference_leads_somewhere() -> None:
    """Every `$ref` points at something within the document."""
    served = await document()
    found = set(references(served))
    assert found
    for reference in found:
        assert reference.startswith("#/")
        assert isinstance(at(served, {"$ref": reference}), dict)


async def test_the_document_has_the_shape_of_openapi_3_1() -> None:
    """The document has a version and a title, and each response of each operation has a description."""
    served = await document()
    assert served["openapi"].startswith("3.1.") and {"title", "version"} <= set(served["info"])
    for operations in served["paths"].values():
        for operation in operations.values():
            assert operation["responses"] and all(one["description"] for one in operation["responses"].values())
            parameters = [at(served, one) for one in operation.get("parameters", [])]
            names = [(one["in"], one["name"]) for one in parameters]
            assert len(names) == len(set(names))


async def test_every_documented_call_exists() -> None:
    """Every documented path answers each of its documented methods, where the catalog has the task."""
    told = (
        *(summarizing(), embedding(), embedding(also=("zero-shot", "answer")), tagging(), filling()),
        *(generating(), translating()),
    )
    clients = [client_of(one) for one in told]
    for path, operations in (await document())["paths"].items():
        for method in operations:
            responses = [await client.request(method, path, json=BODIES.get(path)) for client in clients]
            assert 200 in [response.status_code for response in responses], path


async def test_every_documented_response_header_of_an_answer_is_sent() -> None:
    """An answer on a cut text sends every documented header; only a summary sends X-Finish-Reason.

    Those of the first token are of answers that are streamed.
    """
    served = await document()
    paths = served["paths"]
    documented = paths["/summarize"]["post"]["responses"]["200"]["headers"]
    cut = summary(generation("length"), tokens=900, kept=64)
    response = await client_of(summarizing(scripted(cut))).post("/summarize", json=BODIES["/summarize"])
    assert set(documented) - OF_STREAMS <= {name for name in documented if name in response.headers}
    assert response.headers["X-Finish-Reason"] in at(served, documented["X-Finish-Reason"])["schema"]["enum"]
    documented = paths["/classify"]["post"]["responses"]["200"]["headers"]
    response = await client_of(world(scripted(CUT))).post("/classify", json=BODIES["/classify"])
    assert set(documented) - {"X-Finish-Reason"} - OF_STREAMS <= {
        name for name in documented if name in response.headers
    }
    reasons = at(served, documented["X-Route-Reason"])["schema"]["enum"]
    assert response.headers["X-Route-Reason"] in reasons
    assert reasons == [reason.value for reason in Reason]
    assert response.headers["X-Checkpoint"] == GRAND


async def test_route_documents_only_what_it_sends() -> None:
    """`/route` documents no header of an answer, no details, and no refusal that only a run can meet."""
    served = await document()
    route = served["paths"]["/route"]["post"]
    response = await client_of(world()).post("/route", json=BODIES["/route"])
    assert all(name in response.headers for name in route["responses"]["200"]["headers"])
    assert "details" not in {at(served, one)["name"] for one in route["parameters"]}
    assert not {"429", "504"} & set(route["responses"])


@pytest.mark.parametrize("headers", [{}, {"X-SLA-Mode": "strict", "X-Latency-SLA-Ms": "1"}])
@pytest.mark.parametrize("up", [True, False])
async def test_a_decision_is_documented_as_it_is_sent(headers: dict[str, str], up: bool) -> None:
    """`/route` sends exactly the members of its schema, whether a checkpoint is chosen, refused or down."""
    served = await document()
    routed = properties(served, "RouteDecision")
    sent = (await client_of(world(up=up)).post("/route", json=BODIES["/route"], headers=headers)).json()
    schema = {"$ref": "#/components/schemas/RouteDecision"}
    assert fits(sent, schema, served)
    assert list(sent) == list(routed)
    of_candidates = properties(served, "RouteCandidate")
    for candidate in sent["candidates"]:
        assert list(candidate) == list(of_candidates)
        assert (candidate["forecast_ms"] is not None) == up
        if up:
            assert list(candidate["forecast_ms"]) == list(properties(served, "RouteForecast"))
    assert sorted(of_candidates["verdict"]["enum"]) == sorted(verdict.value for verdict in Verdict)
    assert not fits({**sent, "price": None}, schema, served)
    assert not fits({**sent, "more": 1}, schema, served)


async def test_every_documented_reply_bears_the_identity() -> None:
    """Every documented response has X-Request-Id, errors included."""
    for operations in (await document())["paths"].values():
        for operation in operations.values():
            assert all("X-Request-Id" in reply["headers"] for reply in operation["responses"].values())


async def test_every_header_that_is_read_is_documented() -> None:
    """Every header that the gateway reads is documented for the tasks and `/route`."""
    served = await document()
    for path in BODIES:
        parameters = [at(served, one) for one in served["paths"][path]["post"]["parameters"]]
        told = {one["name"] for one in parameters if one["in"] == "header"}
        assert told == {*headers.KNOWN.values(), REQUEST_ID, TRACEPARENT, TRACESTATE}


async def test_details_are_documented_as_they_are_sent() -> None:
    """The object of ?details=true has exactly its documented members."""
    served = await document()
    sent = (await client_of(world()).post("/classify?details=true", json=BODIES["/classify"])).json()
    assert list(properties(served, "ClassifyDetails")) == list(sent)
    for part, name in (("routing", "Routing"), ("input", "InputDetails"), ("timings_ms", "Timings")):
        assert [one for one in properties(served, name) if one != "first_token"] == list(sent[part])
    sent = (await client_of(summarizing()).post("/summarize?details=true", json=BODIES["/summarize"])).json()
    assert list(properties(served, "SummarizeDetails")) == list(sent)
    assert list(properties(served, "GenerationDetails")) == list(sent["generation"][0])
    sent = (await client_of(tagging()).post("/tokens?details=true", json=BODIES["/tokens"])).json()
    assert list(properties(served, "TokensDetails")) == list(sent)
    assert list(properties(served, "WindowedInputDetails")) == list(sent["input"])


@pytest.mark.parametrize("query", ["", "?details=true"])
@pytest.mark.parametrize("inputs", ["ann", ["ann"], ["ann", "lee"]], ids=str)
@pytest.mark.parametrize("output", [[], [Entity(entity_group="PER", score=0.9, word="ann", start=0, end=3)]], ids=len)
async def test_an_answer_of_any_shape_is_documented(query: str, inputs: str | list[str], output: list[Entity]) -> None:
    """Answers to one text alone and to a list, with entities and without, and redacted ones, fit the document."""
    served = await document()
    texts = 1 if isinstance(inputs, str) else len(inputs)
    for each in (output, RedactedText("[PER]", output)):
        answer = Answer((each,) * texts, InputReport(3, 3, False, texts), ReplicaTimings(0.0, 0.002, 0.002, 1))
        response = await client_of(tagging(scripted(answer))).post(f"/tokens{query}", json={"inputs": inputs})
        assert response.status_code == 200 and is_documented(served, response)


@pytest.mark.parametrize("task", ["classify", "summarize"])
async def test_the_task_documents_its_own_bodies(task: str) -> None:
    """Each task refers to the schemas of its own body and of its two answers, and those describe what is sent."""
    served = await document()
    call = served["paths"][f"/{task}"]["post"]
    body = references(call["requestBody"])
    assert [one.rsplit("/", 1)[1] for one in body] == [f"{task.capitalize()}Body"]
    answers = call["responses"]["200"]["content"]["application/json"]["schema"]["oneOf"]
    client = client_of(summarizing())
    for schema, query in zip(answers, ("", "?details=true"), strict=True):
        sent = (await client.post(f"/{task}{query}", json=BODIES[f"/{task}"])).json()
        assert fits(sent, schema, served), schema
        other = next(one for one in answers if one != schema)
        assert not fits(sent, other, served), schema


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
    """Every documented parameter of a summary is accepted at its level."""
    schemas = (await document())["components"]["schemas"]
    assert set(parameters) <= set(schemas["SummarizeBodyParameters"]["properties"])
    assert set(parameters.get("generate_parameters", {})) <= set(schemas["GenerateParameters"]["properties"])
    sent = {**BODIES["/summarize"], "parameters": parameters}
    assert (await client_of(summarizing()).post("/summarize", json=sent)).status_code == 200


async def test_not_ready_is_documented() -> None:
    """`/readyz` documents 200 and 503."""
    responses = (await document())["paths"]["/readyz"]["get"]["responses"]
    assert {"200", "503"} <= set(responses)
    assert (await client_of(world(up=False)).get("/readyz")).status_code == 503


async def test_every_refusal_of_a_request_is_documented() -> None:
    """Every status that a problem of a request can have is documented for both tasks."""
    paths = (await document())["paths"]
    documented = set(paths["/classify"]["post"]["responses"])
    assert documented == set(paths["/summarize"]["post"]["responses"])
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Problem)}
    statuses = {str(kind.status) for kind in kinds - {Problem}}
    assert statuses | {"400"} <= documented


STRICT = {"X-SLA-Mode": "strict", "X-Latency-SLA-Ms": "1"}


@pytest.mark.parametrize(
    ("path", "headers", "body", "code"),
    [
        ("/classify", {}, BODIES["/classify"], None),
        ("/classify", {}, {"inputs": []}, "invalid_request"),
        ("/classify", {}, {"inputs": "a", "top_k": 1}, "invalid_request"),
        ("/classify", {}, {"inputs": ["a", "b", "c"]}, "input_too_long"),
        ("/classify", {}, {"inputs": "a" * 2000}, "input_too_long"),
        ("/classify", {"X-Min-Tier": "none"}, BODIES["/classify"], "invalid_request"),
        ("/classify", {"X-Checkpoint": "nobody"}, BODIES["/classify"], "unknown_checkpoint"),
        ("/classify", STRICT, BODIES["/classify"], "budget_infeasible"),
        ("/summarize", {}, BODIES["/summarize"], "unknown_task"),
        ("/route", {}, BODIES["/route"], None),
        ("/route", {}, {"task": "juggle", "inputs": "a"}, "unknown_task"),
        ("/route", STRICT, BODIES["/route"], None),
        ("/route", {"X-Checkpoint": "nobody"}, BODIES["/route"], "unknown_checkpoint"),
        ("/route", {"X-SLA-Mode": "lenient"}, BODIES["/route"], "invalid_request"),
    ],
)
async def test_an_answer_is_documented_as_it_is_sent(
    path: str, headers: dict[str, str], body: dict[str, object], code: str | None
) -> None:
    """Answers and refusals have a documented status, media type, headers and members, and nothing else."""
    response = await client_of(world(limits=SMALL)).post(path, json=body, headers=headers)
    assert response.status_code == 200 if code is None else response.json()["code"] == code
    assert is_documented(await document(), response)


def _fails(kind: FailureKind) -> Behaviour:
    return scripted(*[Failure(kind, "why", 900, 512)] * 3)


@pytest.mark.parametrize("kind", FailureKind)
async def test_a_failure_is_documented_as_it_is_sent(kind: FailureKind) -> None:
    """The problem of every kind of replica failure is documented, with the headers of the decision."""
    response = await client_of(world(_fails(kind))).post("/classify", json=BODIES["/classify"])
    assert response.json()["code"] and response.headers["X-Checkpoint"] == GRAND
    assert is_documented(await document(), response)


async def test_a_fault_an_overload_and_a_wrong_method_are_documented_as_they_are_sent() -> None:
    """An unexpected exception, a refusal for load and a wrong method are documented as they are sent."""
    served, told = await document(), world()
    told.backend.fault = ZeroDivisionError()
    client = client_of(told)
    broken = await client.post("/classify", json=BODIES["/classify"])
    assert broken.json()["code"] == "internal_error" and is_documented(served, broken)
    for name in (SWIFT, EVEN, GRAND):
        told.up(name, backlog_s=5.0)
    overloaded = await client.post("/classify", json=BODIES["/classify"], headers={"X-SLA-Mode": "strict"})
    assert overloaded.json()["code"] == "overloaded" and is_documented(served, overloaded)
    for path in ("/classify", "/route", "/checkpoints", "/"):
        wrong = await client.delete(path)
        assert wrong.json()["code"] == "method_not_allowed" and is_documented(served, wrong)


@pytest.mark.parametrize("path", ["/checkpoints", "/healthz", "/readyz", "/openapi.json"])
@pytest.mark.parametrize("up", [True, False])
async def test_what_is_read_is_documented_as_it_is_sent(path: str, up: bool) -> None:
    """The catalog, the probes and the document itself are documented as they are sent, with and without replicas."""
    assert is_documented(await document(), await client_of(world(up=up)).get(path))


async def test_a_checkpoint_has_its_entry_its_variant_and_its_state() -> None:
    """Every kind of checkpoint has the documented members in order; those of its kind come between."""
    served = await document()
    sent = await client_of(summarizing()).get("/checkpoints")
    assert is_documented(served, sent)
    entry, variant, state = (list(properties(served, one["$ref"].rsplit("/", 1)[1])) for one in parts(served))
    for one in sent.json()["checkpoints"]:
        assert list(one)[: len(entry) + len(variant)] == entry + variant
        assert list(one)[-len(state) :] == state
        assert list(one["latency_profile"]) == list(properties(served, "ServiceTimes"))
        assert list(one["load"]) == list(properties(served, "CheckpointLoad"))
        assert list(one["provenance"]) == list(properties(served, "SourceOf"))
        assert set(one["latency_profile"]["service_time_ms"][0]) == set(properties(served, "CellMs"))


def parts(served: dict[str, Any]) -> list[dict[str, str]]:
    """Return the schemas that a checkpoint's schema combines."""
    found: list[dict[str, str]] = served["components"]["schemas"]["Checkpoint"]["allOf"]
    return found


def test_every_kind_of_problem_is_documented_with_its_own_code() -> None:
    """Every kind of problem has a schema with its code, title, status and members, except the plain 404."""
    schemas = COMPONENTS["schemas"]
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Problem)}
    assert set((*ALWAYS, *READING, *RUNNING)) == kinds - {Problem, errors.NotFound}
    for kind in (*ALWAYS, *READING, *RUNNING):
        members = schemas[kind.__name__]["properties"]
        assert (members["code"]["enum"], members["title"]["enum"]) == ([kind.code], [kind.title])
        assert kind.status in members["status"]["enum"]
        assert set(members) == {"type", "code", "title", "status", "detail", *kind.Members.__annotations__}


async def test_a_task_that_is_added_documents_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task registered before an application is built is in its document, with its body and its answers.

    An application that was built earlier keeps its document and its paths.
    """

    class ShoutBody(ClassifyBody):
        """A body of its own."""

    before = client_of(world())
    shout = replace(TASKS["classify"], name="shout", summary="Shout", body=ShoutBody, output=str)
    monkeypatch.setitem(TASKS, "shout", shout)
    served = await document()
    call = served["paths"]["/shout"]["post"]
    assert (call["operationId"], call["tags"], call["summary"]) == ("shout", ["tasks"], "Shout")
    assert list(references(call["requestBody"])) == ["#/components/schemas/ShoutBody"]
    assert "inputs" in properties(served, "ShoutBody")
    outputs, details = call["responses"]["200"]["content"]["application/json"]["schema"]["oneOf"]
    assert fits(["A"], outputs, served) and not fits([["A"]], outputs, served)
    assert at(served, details)["properties"]["outputs"]["items"] == {"type": "string"}
    assert "/shout" not in (await before.get("/openapi.json")).json()["paths"]


async def test_the_document_has_what_linters_ask_of_every_operation() -> None:
    """Every operation has a unique id, a declared tag, a summary and a description, and no declaration is unused."""
    served = await document()
    operations = [operation for path in served["paths"].values() for operation in path.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    assert {tag for one in operations for tag in one["tags"]} == {tag["name"] for tag in served["tags"]}
    assert all(one["summary"] and one["description"].endswith(".") for one in operations)
    assert served["servers"] and served["info"]["contact"] and served["info"]["license"]["identifier"]
    declared = {f"#/components/{kind}/{name}" for kind, these in served["components"].items() for name in these}
    assert set(references(served)) == declared


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_example_is_read_on_route_too(task: Task) -> None:
    """What a task's own endpoint documents as an example, `/route` reads alike, with options and without."""
    shown: Any = task.body.model_config["json_schema_extra"]
    for body in shown["examples"]:
        for sent in (body, {**body, "options": {"use_cache": False}}):
            own = bodies.validated(sent, task.body)
            given = {name: sent[name] for name in ("inputs", "parameters", "options") if name in sent}
            assert bodies.of_task(bodies.validated({"task": task.name, **given}, bodies.RouteBody), task) == own


@given(
    st.from_regex(
        openapi_document(TASKS.values())["components"]["parameters"]["grpc-timeout"]["schema"]["pattern"],
        fullmatch=True,
    )
)
@example("600000m")
@example("10M")
def test_a_grpc_timeout_that_is_documented_is_read(value: str) -> None:
    """Every timeout of the documented form is a budget that may be granted."""
    terms = headers.read_terms([(b"grpc-timeout", value.encode())])
    assert terms.budget_s is not None and 0 < terms.budget_s <= 600.0


async def test_a_header_that_is_documented_as_valid_is_accepted() -> None:
    """The least and the largest budget of the document are read, and an id of any kind is replaced."""
    parameters = (await document())["components"]["parameters"]
    budget = parameters["X-Latency-SLA-Ms"]["schema"]
    assert "maxLength" not in parameters["X-Request-Id"]["schema"]
    async with client_of(world()) as client:
        for ms in (budget["minimum"], budget["maximum"]):
            headers = {"X-Latency-SLA-Ms": str(ms), "X-Request-Id": "0" * 500}
            assert (await client.post("/classify", json=BODIES["/classify"], headers=headers)).status_code == 200
        tiny = {"X-Latency-SLA-Ms": str(budget["minimum"] / 10)}
        assert (await client.post("/classify", json=BODIES["/classify"], headers=tiny)).status_code == 400
