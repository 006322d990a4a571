"""Answers to questions, by stock clients against a served application over real, tiny checkpoints of both kinds."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes import profile_document
from huggingface_hub import InferenceClient
from served_replicas import served
from small_answerers import make_answerer_checkpoint
from small_embedders import make_embedder_checkpoint
from transformers import pipeline

from exporters.export import export, replace_manifest
from exporters.plan import Settings, VariantPlan
from exporters.sources.source import resolve_source
from gateway.model.manifest import Precision
from gateway.model.request import BUDGET, CHECKPOINT
from gateway.tasks import read_manifest

pytestmark = [pytest.mark.export, pytest.mark.filterwarnings("ignore:__array__ implementation")]

NAMES = ("spans", "near")
CATALOG = """
name: answers
checkpoints:
  - {{name: spans, task: answer, tier: quality, family: BERT, source: {0}/spans, licence: none, precision: [fp32],
     quality: {{metric: made up, value: 90.0, data_set: none, reference: made up}}}}
  - {{name: near, task: embed, also: [answer], tier: realtime, family: BERT, source: {0}/near, licence: none,
     precision: [fp32], quality: {{metric: made up, value: 70.0, data_set: none, reference: made up}}}}
"""
QUESTION = "was it good ?"
CONTEXT = "\U0001f600 the cafe\u0301 was good. I loved the acting. It was a slow film and the plot was awful"
LONG = " ".join([CONTEXT] * 8)


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the catalog and a variant of each checkpoint, by whose profiles spans take much longer."""
    root = tmp_path_factory.mktemp("answers")
    make_answerer_checkpoint(root / "spans")
    make_embedder_checkpoint(root / "near")
    for name, task, median_s in (("spans", "answer", 0.5), ("near", "embed", 0.001)):
        plan, folder = VariantPlan(name, task, "BERT", "onnx", Precision.FP32), root / f"{name}-variant"
        settings = Settings(profile_budget_s=0.05)
        export(plan, resolve_source(str(root / name)), folder, lambda step, share: None, settings)
        profiled = read_manifest(folder).model_copy(update={"profile": profile_document(median_s)})
        replace_manifest(folder, profiled)
    (root / "catalog.yaml").write_text(CATALOG.format(root))
    return root


@pytest.mark.parametrize("context", [CONTEXT, LONG], ids=["short", "long"])
async def test_a_stock_client_gets_the_pipeline_s_answers(variants: Path, context: str) -> None:
    """`InferenceClient.question_answering` gives what transformers' pipeline gives with the checkpoint."""
    theirs = pipeline("question-answering", model=str(variants / "spans"))
    async with served(variants, NAMES) as url:
        client = InferenceClient(model=f"{url}/answer", headers={CHECKPOINT: "spans", BUDGET: "60000"})
        one: Any = await asyncio.to_thread(client.question_answering, QUESTION, context)
        asked: dict[str, Any] = {
            "top_k": 3,
            "max_answer_len": 4,
            "handle_impossible_answer": True,
            "align_to_words": False,
        }
        several: Any = await asyncio.to_thread(client.question_answering, QUESTION, context, **asked)
    expected: Any = theirs(question=QUESTION, context=context)
    assert (one.answer, one.start, one.end) == (expected["answer"], expected["start"], expected["end"])
    assert one.score == pytest.approx(float(expected["score"]), abs=1e-4)
    expected = theirs(question=QUESTION, context=context, **asked)
    assert [(found.answer, found.start) for found in several] == [
        (found["answer"], found["start"]) for found in expected
    ]


async def test_an_embedder_answers_by_a_sentence(variants: Path) -> None:
    """The same client gets a sentence of the context, where it stands in it."""
    async with served(variants, NAMES) as url:
        client = InferenceClient(model=f"{url}/answer", headers={CHECKPOINT: "near", BUDGET: "60000"})
        found: Any = await asyncio.to_thread(client.question_answering, QUESTION, CONTEXT)
    assert CONTEXT[found.start : found.end] == found.answer and 0 < found.score <= 1
    assert found.answer in (
        "\U0001f600 the cafe\u0301 was good.",
        "I loved the acting.",
        CONTEXT[CONTEXT.index("It") :],
    )


async def test_the_budget_chooses_between_the_kinds(variants: Path) -> None:
    """A generous budget gets spans, one that they cannot keep a sentence; a refusal names the field and the limit."""
    async with served(variants, NAMES) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        body = {"inputs": {"question": QUESTION, "context": CONTEXT}}
        generous = await client.post("/answer?details=true", json=body, headers={BUDGET: "60000"})
        tight = await client.post("/answer", json=body, headers={BUDGET: "300"})
        body["inputs"]["question"] = "good " * 70
        refused = await client.post("/answer", json=body, headers={CHECKPOINT: "spans"})
    assert (generous.headers[CHECKPOINT], tight.headers[CHECKPOINT]) == NAMES
    assert [one.headers["X-Answer-Form"] for one in (generous, tight)] == ["words", "sentence"]
    assert generous.json()["input"]["windows"] == 1 and generous.json()["outputs"][0][0].keys() == tight.json().keys()
    assert refused.status_code == 413
    assert refused.json()["detail"] == "spans: inputs.question has 70 tokens, and may have 60 in a window of 64"
