"""Labels of a client's own, by stock clients against a served application over real, tiny checkpoints of both kinds."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest
import torch
from fakes import profile_document
from huggingface_hub import InferenceClient, ZeroShotClassificationOutputElement
from odd_checkpoints import edited, headed, named, varied
from served_replicas import served
from small_checkpoints import make_checkpoint, sentences
from small_embedders import make_embedder_checkpoint

from deployments.replica.replica import ReplicaSettings, open_replica
from deployments.replica.variant import VariantRejected
from exporters.errors import SourceRefused
from exporters.export import export, replace_manifest
from exporters.plan import Settings, VariantPlan
from exporters.sources.source import resolve_source
from gateway.catalogs.catalog import load_catalog
from gateway.model.manifest import Precision
from gateway.model.request import BUDGET, CHECKPOINT
from gateway.tasks import read_manifest

pytestmark = pytest.mark.export

NAMES = ("judge", "near", "nearer")
ENTRY = (
    "  - {{name: {1}, task: {2}, {3}tier: {4}, family: BERT, source: {0}/{1}, licence: none, precision: [fp32],\n"
    "     quality: {{metric: made up, value: {5}, data_set: none, reference: made up}}}}\n"
)
ROWS = (
    ("judge", "zero-shot", "", "quality", 90.0),
    ("near", "zero-shot", "also: [embed], ", "realtime", 70.0),
    ("nearer", "embed", "also: [zero-shot], ", "balanced", 80.0),
)
JUDGED = headed([(0, 1.0), (1, 0.3), (1, 1.0)], **named("contradiction", "neutral", "entailment"))
TEXTS = [one.text for one in sentences(4, seed=9)]
LABELS = ["good food", "a slow film", "service"]
LONG = "i loved the plot . " + "the film was a film and it was a film . " * 20


def made(checkpoint: Path, out: Path, task: str) -> None:
    """Export a tiny checkpoint for a task, hardly profiled."""
    plan = VariantPlan(checkpoint.name, task, "BERT", "onnx", Precision.FP32)
    export(plan, resolve_source(str(checkpoint)), out, lambda step, share: None, Settings(profile_budget_s=0.05))


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the catalog and a variant of each checkpoint: a judge of entailment, and two embedders."""
    root = tmp_path_factory.mktemp("zero-shot")
    varied(make_checkpoint(root / "plain"), root / "judge", JUDGED)
    for name, pooling in (("near", "mean_tokens"), ("nearer", "cls_token")):
        make_embedder_checkpoint(root / name, pooling=[pooling])
    entries = []
    for name, task, also, tier, value in ROWS:
        made(root / name, root / f"{name}-variant", task)
        take(root / f"{name}-variant", 0.5 if name == "judge" else 0.001)
        entries.append(ENTRY.format(root, name, task, also, tier, value))
    (root / "catalog.yaml").write_text("name: labels\ncheckpoints:\n" + "".join(entries))
    return root


def take(variant: Path, median_s: float) -> None:
    """Have a variant's profile say that a short text takes so long, whatever it takes on this machine."""
    manifest = read_manifest(variant)
    replace_manifest(variant, manifest.model_copy(update={"profile": profile_document(median_s)}))


def pipeline_scores(checkpoint: Path, texts: list[str], **asked: Any) -> list[dict[str, float]]:
    """Return what transformers' own zero-shot pipeline gives each text: the labels' scores."""
    from transformers import pipeline

    classify = pipeline("zero-shot-classification", model=str(checkpoint), device="cpu", dtype=torch.float32)
    told = [classify(text, LABELS, **asked) for text in texts]
    return [dict(zip(one["labels"], one["scores"], strict=True)) for one in told]


async def asked(url: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    """Return the answer to a body of `/classify` with labels."""
    async with httpx.AsyncClient() as client:
        return await client.post(f"{url}/classify", json=body, headers={BUDGET: "60000", **headers}, timeout=60)


@pytest.mark.parametrize("checkpoint", NAMES)
async def test_a_stock_client_gets_labels_of_its_own(variants: Path, checkpoint: str) -> None:
    """`InferenceClient.zero_shot_classification` works unchanged against either kind, with every parameter it has."""
    async with served(variants, NAMES) as url:
        client = InferenceClient(model=f"{url}/classify", headers={CHECKPOINT: checkpoint, BUDGET: "60000"})
        shared = await asyncio.to_thread(client.zero_shot_classification, TEXTS[0], LABELS)
        alone = await asyncio.to_thread(
            client.zero_shot_classification, TEXTS[0], LABELS, multi_label=True, hypothesis_template="it was {}"
        )
    assert {one.label for one in shared} == {one.label for one in alone} == set(LABELS)
    assert sum(one.score for one in shared) == pytest.approx(1) and all(0 < one.score < 1 for one in alone)
    assert [one.score for one in shared] == sorted((one.score for one in shared), reverse=True)


async def test_a_newer_client_reads_what_it_is_sent(variants: Path) -> None:
    """What a client of version 1.2 or later gets is a list that its way of reading takes."""
    body = {"inputs": TEXTS[0], "parameters": {"candidate_labels": LABELS, "multi_label": False}}
    async with served(variants, NAMES) as url:
        answer = await asked(url, body, **{"User-Agent": "unknown/None; hf_hub/2.4.0; python/3.11.9"})
    elements = ZeroShotClassificationOutputElement.parse_obj_as_list(answer.content)
    assert {one.label for one in elements} == set(LABELS) and sum(one.score for one in elements) == pytest.approx(1)


@pytest.mark.parametrize("template", [None, "it was {} and fine"])
@pytest.mark.parametrize("multi_label", [False, True])
async def test_entailment_scores_as_the_pipeline(variants: Path, multi_label: bool, template: str | None) -> None:
    """Texts, also one over the window, get the scores of transformers' zero-shot pipeline on the same checkpoint."""
    texts = [*TEXTS, LONG]
    parameters = {"candidate_labels": LABELS, "multi_label": multi_label, "hypothesis_template": template}
    async with served(variants, NAMES) as url:
        answer = await asked(url, {"inputs": texts, "parameters": parameters}, **{CHECKPOINT: "judge"})
    own = {} if template is None else {"hypothesis_template": template}
    meant = pipeline_scores(variants / "judge", texts, multi_label=multi_label, **own)
    assert [one["sequence"] for one in answer.json()] == texts and answer.headers["X-Input-Truncated"] == "true"
    for ours, theirs in zip(answer.json(), meant, strict=True):
        assert dict(zip(ours["labels"], ours["scores"], strict=True)) == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("family", ["bert", "roberta", "bart"])
async def test_every_family_judges_as_the_pipeline(tmp_path: Path, family: str) -> None:
    """Families with token types, two end tokens or a decoder score as the pipeline, entailment first."""
    folder = make_checkpoint(tmp_path / "judge", family)
    edited("config.json", **named("entailment", "not_entailment"))(folder)
    made(folder, tmp_path / "judge-variant", "zero-shot")
    (tmp_path / "catalog.yaml").write_text("name: one\ncheckpoints:\n" + ENTRY.format(tmp_path, *ROWS[0]))
    async with served(tmp_path, ("judge",)) as url:
        answer = await asked(url, {"inputs": TEXTS, "parameters": {"candidate_labels": LABELS}})
    for ours, theirs in zip(answer.json(), pipeline_scores(folder, TEXTS), strict=True):
        assert dict(zip(ours["labels"], ours["scores"], strict=True)) == pytest.approx(theirs, abs=1e-4)


async def test_the_budget_chooses_between_the_kinds(variants: Path) -> None:
    """A generous budget gets the best checkpoint, one that it cannot keep an embedder; headers say which and why."""
    body = {"inputs": TEXTS[0], "parameters": {"candidate_labels": LABELS}}
    async with served(variants, NAMES) as url:
        generous = await asked(url, body)
        tight = await asked(url, body, **{BUDGET: "300"})
    assert (generous.headers[CHECKPOINT], generous.headers["X-Tier"]) == ("judge", "quality")
    assert generous.headers["X-Route-Reason"] == "fits"
    assert tight.headers[CHECKPOINT] in ("near", "nearer") and tight.headers["X-Route-Reason"]


def test_a_classifier_without_entailment_is_refused(variants: Path, tmp_path: Path) -> None:
    """A classifier of other labels is refused where it is made for the task, and by a replica that is to serve it."""
    with pytest.raises(SourceRefused, match="begins with 'entail'"):
        made(variants / "plain", tmp_path / "variant", "zero-shot")
    assert not (tmp_path / "variant").exists()
    made(variants / "plain", tmp_path / "variant", "classify")
    row = ("plain", "classify", "also: [zero-shot], ", "quality", 90.0)
    (tmp_path / "catalog.yaml").write_text("name: one\ncheckpoints:\n" + ENTRY.format(variants, *row))
    (entry,) = load_catalog(tmp_path / "catalog.yaml").checkpoints
    with pytest.raises(VariantRejected, match="begins with 'entail'"):
        open_replica(ReplicaSettings(entry, tmp_path / "variant", 9), monotonic)


def test_the_manifest_names_the_labels_of_entailment(variants: Path) -> None:
    """A variant keeps the labels of its checkpoint, by which entailment is found."""
    manifest = json.loads((variants / "judge-variant" / "manifest.json").read_bytes())
    assert manifest["labels"] == ["contradiction", "neutral", "entailment"] and manifest["task"] == "zero-shot"
