"""Laws of exporting embedders, on real encoders: a variant's vectors are its source's, pooled as its files say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from one_pass import assert_changed_answers_are_rejected, assert_measured_again
from processors import needs_int8
from small_checkpoints import WINDOW, sentences
from small_embedders import DIMENSIONS, LENGTH, make_embedder_checkpoint
from transformers import AutoModel, AutoTokenizer

from deployments.engines.base import Logits, padded
from deployments.replica.embedding import OpenEmbedder, unit_length
from deployments.replica.variant import open_variant
from exporters.errors import SourceRefused
from exporters.export import export
from exporters.kinds import KINDS, kind_of
from exporters.kinds.embedder import POOLINGS
from exporters.plan import Settings, VariantPlan
from exporters.sources.source import resolve_source
from gateway.model.manifest import Precision
from gateway.tasks.embed import EmbedderManifest

pytestmark = pytest.mark.export

QUICK = Settings(profile_budget_s=0.05)
TEXTS = [one.text for one in sentences(12, seed=4)]


def exported(
    checkpoint: Path, out: Path, precision: Precision = Precision.FP32, task: str = "embed"
) -> EmbedderManifest:
    """The variant of a tiny checkpoint, hardly profiled."""
    plan = VariantPlan(checkpoint.name, task, "BERT", "onnx", precision)
    manifest = export(plan, resolve_source(str(checkpoint)), out, lambda step, share: None, QUICK)
    assert isinstance(manifest, EmbedderManifest)
    return manifest


def opened(folder: Path) -> OpenEmbedder:
    """The variant in a folder, open."""
    found = open_variant(folder, threads=1)
    assert isinstance(found, OpenEmbedder)
    return found


def hidden(checkpoint: Path, text: str) -> Logits:
    """The source's vectors of a text's tokens, by transformers alone."""
    tokenizer, model = AutoTokenizer.from_pretrained(checkpoint), AutoModel.from_pretrained(checkpoint)
    given = tokenizer(text, truncation=True, max_length=LENGTH, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        found: Logits = model.eval()(**given).last_hidden_state[0].numpy()
    return found


def vectors(variant: OpenEmbedder, texts: Sequence[str]) -> Logits:
    """The variant's vectors of texts in one padded batch."""
    batch = padded([variant.reader.ids(text) for text in texts], variant.manifest.pad_token_id)
    return variant.engine.run(batch.token_ids, batch.attention_mask)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with the mean of its tokens."""
    return make_embedder_checkpoint(tmp_path_factory.mktemp("checkpoints") / "bert")


@pytest.fixture(scope="module")
def variant(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its fp32 variant."""
    out = tmp_path_factory.mktemp("variants") / "bert"
    exported(checkpoint, out)
    return out


def test_a_variant_is_true_to_its_source(variant: Path) -> None:
    """In fp32 every search finds what the source finds, and every vector is the source's, alone and in batches."""
    manifest = opened(variant).manifest
    found = manifest.verification
    assert (found.neighbours, found.texts) == (1.0, 80) and found.least_cosine == pytest.approx(1, abs=1e-5)
    assert found.moved < 1e-5 and found.reciprocal_rank == found.source_reciprocal_rank
    assert (manifest.dimensions, manifest.pooling, manifest.normalized) == (DIMENSIONS, ("mean",), True)
    assert manifest.max_tokens == LENGTH < WINDOW


WAYS: dict[str, Callable[[Logits], Logits]] = {
    "cls_token": lambda tokens: tokens[0],
    "max_tokens": lambda tokens: tokens.max(axis=0),
    "mean_tokens": lambda tokens: tokens.mean(axis=0),
    "mean_sqrt_len_tokens": lambda tokens: tokens.sum(axis=0) / np.sqrt(len(tokens)),
    "weightedmean_tokens": lambda tokens: np.average(tokens, axis=0, weights=np.arange(1, len(tokens) + 1)),
    "lasttoken": lambda tokens: tokens[-1],
}


@pytest.mark.parametrize("pooling", [*WAYS, "cls_token mean_tokens"])
def test_pooling_is_the_checkpoint_s_own(pooling: str, tmp_path: Path) -> None:
    """Each pooling of sentence-transformers is what its definition says, for texts of unlike lengths in one batch."""
    assert {f"pooling_mode_{name}" for name in WAYS} == {*POOLINGS}
    source = make_embedder_checkpoint(tmp_path / "source", pooling=pooling.split(), normalize=False)
    exported(source, tmp_path / "variant")
    found = vectors(opened(tmp_path / "variant"), TEXTS)
    meant = [np.concatenate([WAYS[name](hidden(source, text)) for name in pooling.split()]) for text in TEXTS]
    np.testing.assert_allclose(found, np.stack(meant), atol=2e-5)


@pytest.mark.parametrize("family", ["bert", "mpnet", "roberta"])
def test_encoders_of_several_families_are_exported(family: str, tmp_path: Path) -> None:
    """Encoders of several families become embedders whose vectors do not depend on padding."""
    manifest = exported(make_embedder_checkpoint(tmp_path / family, family), tmp_path / "variant")
    assert manifest.verification.neighbours == 1.0 and manifest.verification.moved < 1e-5


@needs_int8
def test_in_int8_a_batch_gives_nearly_the_vectors_of_single_texts(checkpoint: Path, tmp_path: Path) -> None:
    """An int8 variant is made if it reaches its floors; a text's vector hardly moves within a batch."""
    manifest = exported(checkpoint, tmp_path / "variant", Precision.INT8)
    ready = opened(tmp_path / "variant")
    together = unit_length(vectors(ready, TEXTS).astype(np.float64))
    alone = unit_length(np.concatenate([vectors(ready, [text]) for text in TEXTS]).astype(np.float64))
    assert (together * alone).sum(axis=1).min() >= 1 - manifest.verification.moved_ceiling


def test_without_a_configuration_the_mean_is_meant(tmp_path: Path) -> None:
    """A bare encoder is an embedder by the mean of its tokens, not normalised, with the window of its positions."""
    source = make_embedder_checkpoint(tmp_path / "source", summaries=False)
    for name in ("modules.json", "sentence_bert_config.json"):
        (source / name).unlink()
    manifest = exported(source, tmp_path / "variant")
    assert (manifest.pooling, manifest.normalized, manifest.max_tokens) == (("mean",), False, WINDOW)
    assert manifest.verification.reciprocal_rank is None and manifest.verification.neighbours == 1.0


def test_prompts_are_kept(tmp_path: Path) -> None:
    """The prompts of the checkpoint are in the manifest by name, without empty ones."""
    source = make_embedder_checkpoint(tmp_path / "source", prompts={"query": "good ", "passage": ""})
    assert exported(source, tmp_path / "variant").prompts == {"query": "good "}


def test_it_serves_both_tasks_and_no_other(checkpoint: Path, tmp_path: Path) -> None:
    """A checkpoint may be planned for either task that its kind serves; any other is refused by name."""
    assert kind_of(checkpoint, "here") is KINDS["embedder"]
    assert exported(checkpoint, tmp_path / "variant", task="similarity").task == "similarity"
    with pytest.raises(
        SourceRefused,
        match="serves the tasks 'embed' and 'similarity' and 'zero-shot' and 'answer'; the task of bert is 'classify'",
    ):
        exported(checkpoint, tmp_path / "other", task="classify")


def changed(checkpoint: Path, out: Path, file: str, **values: object) -> Path:
    """A copy of the checkpoint with other values in one of its files."""
    copy = shutil.copytree(checkpoint, out)
    content = json.loads((copy / file).read_bytes())
    (copy / file).write_text(json.dumps(content | values))
    return copy


REFUSED = [
    ("1_Pooling/config.json", {"pooling_mode_attention": True}, "pooling asks for pooling_mode_attention"),
    ("1_Pooling/config.json", {"include_prompt": False}, "leaves out the prompt"),
]


@pytest.mark.parametrize(("file", "values", "message"), REFUSED)
def test_what_is_not_supported_is_refused_by_name(
    checkpoint: Path, tmp_path: Path, file: str, values: dict[str, object], message: str
) -> None:
    """A pooling that is not known is a sentence at export, never a vector of another kind."""
    with pytest.raises(SourceRefused, match=message):
        exported(changed(checkpoint, tmp_path / "source", file, **values), tmp_path / "variant")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ({"path": "2_Dense", "type": "sentence_transformers.models.Dense"}, "models.Dense, which is not supported"),
        ({"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}, "in a folder of its own"),
    ],
)
def test_a_module_that_is_not_supported_is_refused_by_name(
    checkpoint: Path, tmp_path: Path, module: dict[str, str], message: str
) -> None:
    """A further layer, or weights elsewhere, is refused rather than left out."""
    copy = shutil.copytree(checkpoint, tmp_path / "source")
    (copy / "modules.json").write_text(json.dumps([module]))
    with pytest.raises(SourceRefused, match=message):
        exported(copy, tmp_path / "variant")


def test_another_pooling_is_another_source(checkpoint: Path, tmp_path: Path) -> None:
    """The digest of a source follows its configuration of pooling, which lies in a folder of its own."""
    other = changed(checkpoint, tmp_path / "bert", "1_Pooling/config.json", pooling_mode_cls_token=True)
    assert resolve_source(str(other)).sha256 != resolve_source(str(checkpoint)).sha256


def test_a_damaged_variant_does_not_serve(variant: Path, tmp_path: Path) -> None:
    """A variant whose golden vectors are not what its engine gives is rejected at start."""
    assert_changed_answers_are_rejected(variant, tmp_path)


def test_a_variant_is_measured_again(variant: Path, tmp_path: Path) -> None:
    """A variant's profile can be measured again; the manifest has it, and nothing else changes."""
    assert_measured_again(variant, tmp_path, threads=2)
