"""Laws of export, on real architectures and libraries: a variant answers as its source does."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from processors import needs_int8
from small_checkpoints import FAMILIES, WINDOW, Example, make_checkpoint, make_unquantisable, sentences, write_texts

from deployments.engines.base import padded
from deployments.replica.classify import OpenClassifier, open_classifier
from deployments.replica.tokens import Encoded
from exporters.errors import SourceRefused, VariantRefused
from exporters.export import export
from exporters.plan import Settings, Step, VariantPlan
from exporters.sources.source import resolve_source
from gateway.model.manifest import ClassifierManifest, Precision
from gateway.tasks.classify import ClassifyParameters

pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny checkpoint of each family, by its name."""
    root = tmp_path_factory.mktemp("checkpoints")
    for family in FAMILIES:
        make_checkpoint(root / family, family)
    return root


def exported(checkpoint: Path, out: Path, precision: Precision, engine: str = "onnx") -> ClassifierManifest:
    """The variant of a tiny checkpoint, hardly profiled."""
    plan = VariantPlan(checkpoint.name, "classify", checkpoint.name, engine, precision)
    source = resolve_source(str(checkpoint))
    manifest = export(plan, source, out, lambda step, share: None, Settings(profile_budget_s=0.05))
    assert isinstance(manifest, ClassifierManifest)
    return manifest


def labels(variant: OpenClassifier, examples: list[Example]) -> list[str]:
    """The best label of each text, all run in one padded batch."""
    encoded = [variant.scorer.encode(one.text, "longest_first") for one in examples]
    batch = padded([e.token_ids for e in encoded if isinstance(e, Encoded)], variant.scorer.pad_id)
    logits = variant.engine.run(batch.token_ids, batch.attention_mask)
    return [variant.scorer.scores(row, ClassifyParameters())[0].label for row in logits]


@pytest.mark.parametrize("precision", [Precision.FP32, pytest.param(Precision.INT8, marks=needs_int8)])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_answers_as_its_source_in_every_precision(
    checkpoints: Path, tmp_path: Path, family: str, precision: Precision
) -> None:
    """Every family answers as its source in every precision: floors hold, and new texts are classified."""
    manifest = exported(checkpoints / family, tmp_path / "variant", precision)
    assert manifest.verification.label_agreement >= manifest.verification.label_agreement_floor
    assert manifest.verification.accuracy is not None
    assert manifest.max_tokens == WINDOW
    if precision is Precision.FP32:
        assert manifest.verification.largest_logit_difference < 1e-4
    variant = open_classifier(tmp_path / "variant", threads=1)
    assert variant.manifest == manifest
    assert variant.profile.lengths == (8, 16, 32, 64) and variant.profile.batches[-1] == 16
    fresh = sentences(40, seed=99)
    right = np.mean([said == one.label for said, one in zip(labels(variant, fresh), fresh, strict=True)])
    assert right >= manifest.verification.accuracy - 0.15


def test_a_checkpoint_without_an_export_runs_on_torch(checkpoints: Path, tmp_path: Path) -> None:
    """A checkpoint that cannot be exported is served by PyTorch from its weights, after the same checks."""
    manifest = exported(checkpoints / "bert", tmp_path / "variant", Precision.FP32, engine="torch")
    assert set(manifest.files) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert manifest.verification.label_agreement == 1.0
    assert manifest.verification.largest_logit_difference < 1e-4
    examples = sentences(10)
    assert labels(open_classifier(tmp_path / "variant", 1), examples) == [one.label for one in examples]


@needs_int8
def test_the_int8_of_fp16_weights_is_a_fraction_of_fp32(checkpoints: Path, tmp_path: Path) -> None:
    """An int8 variant of fp16 weights is smaller than the fp32 one, because embeddings are quantised too."""
    for precision in (Precision.FP32, Precision.INT8):
        exported(checkpoints / "distilbert", tmp_path / precision, precision)
    sizes = [(tmp_path / precision / "model.onnx").stat().st_size for precision in (Precision.INT8, Precision.FP32)]
    assert sizes[0] < sizes[1]


@needs_int8
def test_a_variant_under_its_floor_is_refused_with_what_differed(checkpoints: Path, tmp_path: Path) -> None:
    """A variant under its floor is refused and removed, and the worst texts are listed by index, label and score."""
    checkpoint = tmp_path / "distilbert"
    shutil.copytree(checkpoints / "distilbert", checkpoint)
    make_unquantisable(checkpoint)
    with pytest.raises(VariantRefused) as caught:
        exported(checkpoint, tmp_path / "out" / "variant", Precision.INT8)
    assert "under the floor of 98.50%" in str(caught.value)
    assert 0 < len(caught.value.differences) <= 10
    worst = caught.value.differences[0]
    assert 0 <= worst.text < 60 and worst.source != worst.variant
    assert [path for path in (tmp_path / "out").iterdir() if path.suffix != ".lock"] == []


@needs_int8
def test_a_failed_export_leaves_the_last_good_variant(checkpoints: Path, tmp_path: Path) -> None:
    """A failed export leaves the last good variant, because the target is replaced at the very end or not at all."""
    checkpoint = tmp_path / "distilbert"
    shutil.copytree(checkpoints / "distilbert", checkpoint)
    before = exported(checkpoint, tmp_path / "variant", Precision.FP32)
    make_unquantisable(checkpoint)
    with pytest.raises(VariantRefused):
        exported(checkpoint, tmp_path / "variant", Precision.INT8)
    assert open_classifier(tmp_path / "variant", 1).manifest == before


def test_unlabelled_texts_give_agreement_alone(checkpoints: Path, tmp_path: Path) -> None:
    """Without labels only agreement is reported, and no accuracy."""
    checkpoint = tmp_path / "distilbert"
    shutil.copytree(checkpoints / "distilbert", checkpoint)
    write_texts(checkpoint, sentences(20), labelled=False)
    found = exported(checkpoint, tmp_path / "variant", Precision.FP32).verification
    assert (found.texts, found.accuracy, found.source_accuracy) == (20, None, None)


def test_a_tokenizer_of_words_alone_is_converted(checkpoints: Path, tmp_path: Path) -> None:
    """A checkpoint with a vocab.txt and no tokenizer.json gets a tokenizer that gives the same ids."""
    checkpoint = tmp_path / "distilbert"
    shutil.copytree(checkpoints / "distilbert", checkpoint)
    before = exported(checkpoint, tmp_path / "before", Precision.FP32)
    from tokenizers import Tokenizer

    vocabulary = Tokenizer.from_file(str(checkpoint / "tokenizer.json")).get_vocab()
    (checkpoint / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=lambda piece: vocabulary[piece])))
    (checkpoint / "tokenizer.json").unlink()
    after = exported(checkpoint, tmp_path / "after", Precision.FP32)
    assert [g.token_ids for g in after.self_test.golden] == [g.token_ids for g in before.self_test.golden]


@pytest.mark.parametrize("damage", ["weights cut short", "no head"])
def test_weights_that_are_no_whole_classifier_are_refused(checkpoints: Path, tmp_path: Path, damage: str) -> None:
    """Weights without a trained head, or in a torn file, are refused with an error that says so."""
    from safetensors.torch import load_file, save_file

    checkpoint = tmp_path / "distilbert"
    shutil.copytree(checkpoints / "distilbert", checkpoint)
    file = checkpoint / "model.safetensors"
    if damage == "no head":
        kept = {name: weight for name, weight in load_file(file).items() if not name.startswith("classifier")}
        save_file(kept, file, metadata={"format": "pt"})
    else:
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(SourceRefused, match=r"missing: classifier|cannot be loaded"):
        exported(checkpoint, tmp_path / "variant", Precision.FP32)


@needs_int8
def test_every_step_is_told(checkpoints: Path, tmp_path: Path) -> None:
    """Progress is reported for every step in order, with shares from 0 to 1."""
    told: list[tuple[Step, float]] = []
    checkpoint = checkpoints / "distilbert"
    plan = VariantPlan("distilbert", "classify", "distilbert", "onnx", Precision.INT8)
    source = resolve_source(str(checkpoint))
    settings = Settings(profile_budget_s=0.05)
    export(plan, source, tmp_path / "variant", lambda step, share: told.append((step, share)), settings)
    order = [list(Step).index(step) + share for step, share in told]
    assert order == sorted(order)
    skipped = {Step.CHOOSING, Step.FETCHING}  # its engine is named, and it has no base
    assert {step for step, _ in told} == set(Step) - skipped
    assert all(0 <= share <= 1 for _, share in told)
