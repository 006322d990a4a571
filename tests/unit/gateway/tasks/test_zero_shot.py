"""Laws of `/zero-shot`: which bodies are its own, what a request costs, and the answer that each client can read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fake_embedders import FINE, QUICK
from fakes import ANSWER, latency_profile
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from worlds import client_of, embedding, is_problem, world

from gateway.model.messages import Answer, InputReport, ReplicaTimings
from gateway.model.request import BUDGET, CHECKPOINT
from gateway.tasks import TASKS, claims_on
from gateway.tasks.base import TaskBody
from gateway.tasks.service_time import BatchedModel
from gateway.tasks.zero_shot import (
    MOST_CHARACTERS,
    MOST_LABELS,
    MOST_PAIRS,
    MOST_REMEMBERED,
    TEMPLATE_TOKENS,
    EmbeddedLabels,
    EntailedLabels,
    ZeroShotBody,
    ZeroShotParameters,
    entailment_of,
)

LABELS = ["praise", "complaint"]
BODY = {"inputs": "a good film", "parameters": {"candidate_labels": LABELS}}
ALSO = ("zero-shot",)
HUB = "unknown/None; hf_hub/{}; python/3.11.9"


async def answered(path: str, body: dict[str, Any], agent: str = "", budget_ms: str = "10000") -> Any:
    """Return the answer of a gateway over two embedders to a body."""
    async with client_of(embedding(also=ALSO)) as client:
        return await client.post(path, json=body, headers={BUDGET: budget_ms, "User-Agent": agent})


@pytest.mark.parametrize("path", ["/classify", "/zero-shot"])
@pytest.mark.parametrize(("budget_ms", "answers"), [("10000", FINE), ("40", QUICK)])
async def test_the_budget_chooses_the_checkpoint(path: str, budget_ms: str, answers: str) -> None:
    """A generous budget gets the better checkpoint and a tight one the faster, by either way in."""
    answer = await answered(path, BODY, budget_ms=budget_ms)
    assert answer.status_code == 200 and answer.headers[CHECKPOINT] == answers
    assert answer.headers["X-Route-Reason"]


async def test_a_body_with_labels_is_decided_as_a_task_of_its_own() -> None:
    """`/route` and the record name the task that the labels make of a body of `/classify`."""
    told = embedding(also=ALSO)
    async with client_of(told) as client:
        await client.post("/classify", json=BODY)
        routed = [await client.post("/route", json={"task": task, **BODY}) for task in ("zero-shot", "classify")]
        await client.post("/classify", json=BODY | {"inputs": 3})
    assert [one.json()["task"] for one in routed] == ["zero-shot"] * 2
    assert [(record.task, record.inputs) for record in told.kept.records] == [("zero-shot", 1), ("zero-shot", 0)]


@pytest.mark.parametrize("body", [
    {"inputs": "candidate_labels"},
    {"inputs": '"parameters": {"candidate_labels": []}'},
    {"inputs": "a", "parameters": {"top_k": 1}, "options": {"candidate_labels": 1}},
])  # fmt: skip
async def test_the_words_of_a_text_claim_nothing(body: dict[str, Any]) -> None:
    """Only a member of the parameters makes a body another task's, not what a text says."""
    async with client_of(world()) as client:
        assert (await client.post("/classify", json=body)).status_code == 200


async def test_where_no_checkpoint_serves_it_the_answer_says_so() -> None:
    """A body with labels is a 404 that names the tasks that are served, where this one is not."""
    async with client_of(world()) as client:
        refused = await client.post("/classify", json=BODY)
    assert is_problem(refused, "unknown_task", 404) and refused.json()["tasks"] == ["classify"]


def test_every_other_body_is_its_endpoint_s_own() -> None:
    """A task claims bodies of the one endpoint that it names, by the one parameter."""
    assert claims_on("classify") == {"candidate_labels": "zero-shot"}
    assert all(claims_on(name) == {} for name in TASKS if name != "classify")


@pytest.mark.parametrize("version", ["0.36.2", "1.0.0", "1.1.0"])
async def test_an_older_client_gets_labels_and_scores_apart(version: str) -> None:
    """`huggingface_hub` before 1.2 reads the members `labels` and `scores` of one document."""
    document = (await answered("/classify", BODY, HUB.format(version))).json()
    assert document == {"sequence": "a good film", "labels": LABELS, "scores": [1.0, 0.5]}


@pytest.mark.parametrize("version", ["1.2.0", "1.10.1", "2.4.0", "10.0.0"])
async def test_a_newer_client_gets_a_list_of_elements(version: str) -> None:
    """`huggingface_hub` from 1.2 on reads a list of labels with their scores."""
    document = (await answered("/classify", BODY, HUB.format(version))).json()
    assert document == [{"label": "praise", "score": 1.0}, {"label": "complaint", "score": 0.5}]


@pytest.mark.parametrize("agent", ["", "curl/8.5", "node", "hf_hub/new", f"hf_hub/{'1' * 5000}.0"])
async def test_any_other_client_gets_what_transformers_gives(agent: str) -> None:
    """Of several texts each has its document, and the answer says that it depends on the client."""
    answer = await answered("/classify", BODY | {"inputs": ["a", "b"]}, agent)
    assert [one["sequence"] for one in answer.json()] == ["a", "b"]
    assert answer.headers["Vary"] == "User-Agent"
    newer = await answered("/classify", BODY | {"inputs": ["a"]}, HUB.format("1.2.0"))
    assert [one["label"] for one in newer.json()[0]] == LABELS


@pytest.mark.parametrize("agent", ["", HUB.format("2.4.0")])
async def test_details_have_the_outputs_as_every_task_s(agent: str) -> None:
    """With details the outputs are a list for each text, whoever asks."""
    document = (await answered("/zero-shot?details=true", BODY, agent)).json()
    assert document["outputs"] == [[{"label": "praise", "score": 1.0}, {"label": "complaint", "score": 0.5}]]


@pytest.mark.parametrize(
    ("template", "sentences"),
    [(None, ("praise", "complaint")), ("It is {}!", ("It is praise!", "It is complaint!"))],
)
async def test_a_replica_is_sent_the_texts_and_then_a_sentence_for_each_label(
    template: str | None, sentences: tuple[str, ...]
) -> None:
    """The labels go through the template behind the texts; without one they stand alone."""
    told = embedding(also=ALSO)
    parameters = {"candidate_labels": LABELS, "multi_label": True, "hypothesis_template": template}
    async with client_of(told) as client:
        await client.post("/zero-shot", json={"inputs": ["a", "b"], "parameters": parameters})
    (sent,) = told.backend.dispatches
    assert sent.work.inputs == ("a", "b", *sentences)
    assert sent.work.parameters == ZeroShotParameters(tuple(LABELS), True, template)


async def test_labels_may_be_one_text_with_commas() -> None:
    """A text is divided at its commas, as transformers divides one."""
    document = await answered("/zero-shot", {"inputs": "a", "parameters": {"candidate_labels": " praise, complaint, "}})
    assert document.json()["labels"] == LABELS


FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({}, "parameters.candidate_labels", "required"),
    ({"candidate_labels": {"a": 1}}, "parameters.candidate_labels", "valid"),
    ({"candidate_labels": []}, "parameters.candidate_labels", "at least 1"),
    ({"candidate_labels": ["a"] * (MOST_LABELS + 1)}, "parameters.candidate_labels", str(MOST_LABELS)),
    ({"candidate_labels": ["a", ""]}, "parameters.candidate_labels[1]", "blank"),
    ({"candidate_labels": ["a", " "]}, "parameters.candidate_labels[1]", "blank"),
    ({"candidate_labels": " , "}, "parameters.candidate_labels", "at least 1"),
    ({"candidate_labels": ["a", "b", "a"]}, "parameters.candidate_labels", "label 2 is label 0 again"),
    ({"candidate_labels": ["a", 3]}, "parameters.candidate_labels[1]", "string"),
    ({"candidate_labels": ["a" * (MOST_CHARACTERS + 1)]}, "parameters.candidate_labels[0]", str(MOST_CHARACTERS)),
    ({"candidate_labels": ["a"], "hypothesis_template": "none"}, "parameters.hypothesis_template", "{} once"),
    ({"candidate_labels": ["a"], "hypothesis_template": "{} {}"}, "parameters.hypothesis_template", "{} once"),
    ({"candidate_labels": ["a"], "hypothesis_template": "{} {0.x}"}, "parameters.hypothesis_template", "braces"),
    ({"candidate_labels": ["a"], "hypothesis_template": "{}" * 150}, "parameters.hypothesis_template", "200"),
    ({"candidate_labels": ["a"], "multi_label": 1}, "parameters.multi_label", "boolean"),
    ({"candidate_labels": ["a"], "top_k": 1}, "parameters.top_k", "not permitted"),
]


@pytest.mark.parametrize(("parameters", "field", "limit"), FAULTS)
@pytest.mark.parametrize("path", ["/zero-shot", "/route"])
async def test_a_fault_is_named_by_its_field_and_limit(
    parameters: dict[str, Any], field: str, limit: str, path: str
) -> None:
    """A wrong body is a 422 that names the field and its limit, the same on its own endpoint and on `/route`."""
    body = {"inputs": "a", "parameters": parameters}
    refused = await answered(path, body if path == "/zero-shot" else {"task": "zero-shot", **body})
    assert is_problem(refused, "invalid_request", 422)
    assert refused.json()["errors"][0]["field"] == field and limit in refused.json()["errors"][0]["message"]


@pytest.mark.parametrize("path", ["/zero-shot", "/classify"])
async def test_labels_are_no_texts(path: str) -> None:
    """A request with labels and no text is refused as one without a text."""
    refused = await answered(path, BODY | {"inputs": []})
    assert is_problem(refused, "invalid_request", 422)
    assert refused.json()["errors"] == [{"field": "inputs", "message": "must not be empty"}]


async def test_texts_times_labels_are_limited() -> None:
    """As many pairs of text and label as the limit are answered; more are a 422 that names it."""
    labels = [str(at) for at in range(32)]
    texts = MOST_PAIRS // len(labels)
    body = {"inputs": ["a"] * texts, "parameters": {"candidate_labels": labels}}
    assert (await answered("/zero-shot", body)).status_code == 200
    refused = await answered("/zero-shot", body | {"inputs": ["a"] * (texts + 1)})
    assert is_problem(refused, "invalid_request", 422) and str(MOST_PAIRS) in refused.json()["detail"]


async def test_a_fault_repeats_neither_text_nor_label() -> None:
    """What is wrong is told by its place, never by what the client wrote."""
    parameters = {"candidate_labels": ["secret one", "secret one"], "hypothesis_template": "secret two"}
    refused = await answered("/zero-shot", {"inputs": "secret three", "parameters": parameters})
    assert refused.status_code == 422 and "secret" not in refused.text


def test_a_generated_body_is_valid() -> None:
    """A body that a load generator makes has its texts, and labels."""
    body = ZeroShotBody.model_validate_json(json.dumps(ZeroShotBody.document_of(["a", "b"])))
    assert list(TaskBody.texts(body)) == ["a", "b"] and body.parameters.candidate_labels


def asked(*labels: str, template: str | None = None) -> ZeroShotParameters:
    """Return the parameters of a request with these labels."""
    return ZeroShotParameters(labels, template=template)


def answer(kept: int, service_time_s: float = 0.01) -> Answer:
    """Return an answer to one text of so many tokens that ran alone."""
    return Answer(((),), InputReport(kept, kept, False), ReplicaTimings(0.0, service_time_s, service_time_s, 1))


def test_labels_that_are_not_known_are_forecast() -> None:
    """A request takes longer by its labels until it was answered, and then as long as its text alone."""
    model = EmbeddedLabels(latency_profile(0.01), 64)
    alone = model.service_times_s((12,), asked(), 1.0)
    first = model.service_times_s((12, 4, 4), asked("a", "b"), 1.0)
    model.learn((12, 4, 4), asked("a", "b"), answer(12))
    assert model.service_times_s((12, 4, 4), asked("a", "b"), 1.0) == alone < first
    partly = model.service_times_s((12, 4, 4), asked("a", "c"), 1.0)
    assert alone < partly < first
    assert model.service_times_s((12, 4, 4), asked("a", "b", template="so {}"), 1.0) == first
    model.forget()
    assert model.service_times_s((12, 4, 4), asked("a", "b"), 1.0) == alone, "a quiet minute makes replicas forget none"


def test_a_run_with_unknown_labels_teaches_no_slowdown() -> None:
    """Only a text that ran alone says how fast the machine is."""
    model = EmbeddedLabels(latency_profile(0.01), 64)
    model.learn((12, 4), asked("a"), answer(12, 9.0))
    assert model.slowdown.value == 1.0
    model.learn((12, 4), asked("a"), answer(12, 9.0))
    assert model.slowdown.value > 1.0


def test_what_is_remembered_of_labels_is_bounded() -> None:
    """The label that was not asked for longest is forgotten first."""
    model = EmbeddedLabels(latency_profile(0.01), 64)
    for at in range(MOST_REMEMBERED + 1):
        model.learn((12, 4), asked(str(at)), answer(12))
    alone = model.service_times_s((12,), asked(), 1.0)
    assert model.service_times_s((12, 4), asked("1"), 1.0) == alone < model.service_times_s((12, 4), asked("0"), 1.0)


@given(texts=st.lists(st.integers(2, 30), min_size=1, max_size=4), labels=st.integers(1, 8))
def test_entailment_is_forecast_for_every_text_with_every_label(texts: list[int], labels: int) -> None:
    """A classifier of entailment takes as long as a plain one does with all pairs, and longer with each label more."""
    model = EntailedLabels(latency_profile(0.01), 64)
    plain = BatchedModel(latency_profile(0.01), 64)
    names = asked(*map(str, range(labels)))
    pairs = [text + 3 + TEMPLATE_TOKENS for text in texts for _ in range(labels)]
    assert model.service_times_s((*texts, *[3] * labels), names, 1.0) == plain.service_times_s(pairs, names, 1.0)
    more = asked(*map(str, range(labels + 1)))
    times = [model.service_times_s((*texts, *[3] * len(one.labels)), one, 1.0)[0] for one in (names, more)]
    assert times[0] < times[1]


def test_a_text_weighs_in_the_queue_as_much_as_its_usual_labels() -> None:
    """The more labels requests have, the longer a text counts to take; requests share no run."""
    model = EntailedLabels(latency_profile(0.01), 64)
    before = model.run_s(1, 12)
    for _ in range(200):
        model.learn((12, *[3] * 40), asked(*map(str, range(40))), replace(ANSWER))
    assert model.run_s(1, 12) > 2 * before and model.run_s(3, 12) == pytest.approx(3 * model.run_s(1, 12))
    assert model.max_batch == 1


@pytest.mark.parametrize(
    ("labels", "place"),
    [(("contradiction", "neutral", "entailment"), 2), (("ENTAILMENT", "not"), 0), (("yes", "no"), None)],
)
def test_entailment_is_found_as_transformers_finds_it(labels: tuple[str, ...], place: int | None) -> None:
    """The first label that begins with `entail`, in whatever case, is the one."""
    assert entailment_of(labels) == place
