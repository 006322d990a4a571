"""Laws of exporting extractive checkpoints, on real encoders: a variant chooses what its source chooses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from processors import needs_int8
from small_checkpoints import make_checkpoint
from small_extractive import DIMENSIONS, MAX_TOKENS, make_extractive_checkpoint, ranker

from deployments.engines.base import padded
from deployments.replica.summarize.extractive import RANKER_FILE, OpenExtractive
from deployments.replica.variant import VariantRejected, file_sha256, open_variant
from exporters.errors import SourceRefused
from exporters.export import export, profile_again
from exporters.plan import Settings, VariantPlan
from exporters.preparing.store import Store
from exporters.sources.source import resolve_source
from gateway.model.manifest import MANIFEST_NAME, ExtractiveManifest, Precision

pytestmark = pytest.mark.export

ROOT = Path(__file__).parents[3]
QUICK = Settings(profile_budget_s=0.05)


def exported(checkpoint: Path, out: Path, precision: Precision = Precision.FP32) -> ExtractiveManifest:
    """The variant of a tiny checkpoint, hardly profiled."""
    plan = VariantPlan(checkpoint.name, "summarize", "BERT", "onnx", precision)
    manifest = export(plan, resolve_source(str(checkpoint)), out, lambda step, share: None, QUICK)
    assert isinstance(manifest, ExtractiveManifest)
    return manifest


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ranker that refers to the encoder of a DistilBERT beside it."""
    root = tmp_path_factory.mktemp("checkpoints")
    make_checkpoint(root / "distilbert")
    return make_extractive_checkpoint(root / "ranker", encoder="../distilbert")


@pytest.fixture(scope="module")
def variant(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fp32 variant of the checkpoint."""
    out = tmp_path_factory.mktemp("variants") / "ranker"
    exported(checkpoint, out)
    return out


@pytest.fixture
def copy(variant: Path, tmp_path: Path) -> Path:
    """A copy of the variant that a test may change."""
    return shutil.copytree(variant, tmp_path / "variant")


def test_an_encoder_with_token_types_is_pooled_without_them(tmp_path: Path) -> None:
    """The encoder of a BERT, which takes token types, gives the vectors of its source."""
    manifest = exported(make_extractive_checkpoint(tmp_path / "ranker", "bert"), tmp_path / "variant")
    assert manifest.verification.same_choice == 1.0 and manifest.verification.least_cosine > 0.9999


def test_a_ranker_chooses_as_its_source(variant: Path) -> None:
    """A ranker in fp32 chooses the sentences of its source, and batches give the vectors of single sentences."""
    opened = open_variant(variant, threads=1)
    assert isinstance(opened, OpenExtractive)
    found = opened.manifest.verification
    assert found.same_choice == 1.0 and found.least_cosine == pytest.approx(1.0, abs=1e-4)
    assert found.rouge_l is not None and found.rouge_l == found.source_rouge_l
    assert (opened.manifest.max_tokens, opened.manifest.sentences, opened.manifest.task) == (MAX_TOKENS, 3, "summarize")
    assert {RANKER_FILE, "model.onnx", "tokenizer.json"} == set(opened.manifest.files)
    rows = [opened.tokens.encode(text) for text in ("a good film", "the plot was very slow and the acting poor")]
    batch = padded(rows, opened.manifest.pad_token_id)
    together = opened.engine.run(batch.token_ids, batch.attention_mask)
    assert together.shape == (2, DIMENSIONS) == (2, opened.ranker.dimensions)
    alone = np.concatenate([opened.engine.run(np.array([row]), np.ones((1, len(row)), np.int64)) for row in rows])
    assert np.abs(together - alone).max() < 1e-4


@needs_int8
def test_an_encoder_of_its_own_with_token_types_goes_through_in_int8(tmp_path: Path) -> None:
    """An encoder with token types, such as BERT, is exported in int8 with constant ones in the graph."""
    manifest = exported(make_extractive_checkpoint(tmp_path / "bert", "bert"), tmp_path / "variant", Precision.INT8)
    assert manifest.verification.least_cosine > 0.95
    opened = open_variant(tmp_path / "variant", threads=1)
    assert opened.manifest == manifest
    again = profile_again(tmp_path / "variant", 2, lambda step, share: None, 0.05)
    assert isinstance(again, ExtractiveManifest)
    assert (again.profile.threads, again.self_test) == (2, manifest.self_test)


def test_a_ranker_that_is_not_the_verified_one_is_found(copy: Path) -> None:
    """A ranker that is not the verified one is found by its digest, or by its form if the manifest was changed."""
    ranker(DIMENSIONS, seed=4).save(copy / RANKER_FILE)
    with pytest.raises(VariantRejected, match=f"{RANKER_FILE}: expected sha256"):
        open_variant(copy, 1)
    (copy / RANKER_FILE).write_text('{"schema": 0}')
    document = json.loads((copy / MANIFEST_NAME).read_bytes())
    document["files"][RANKER_FILE] = file_sha256(copy / RANKER_FILE)
    (copy / MANIFEST_NAME).write_text(json.dumps(document))
    with pytest.raises(VariantRejected, match="expected a ranker of this version"):
        open_variant(copy, 1)


def test_a_vector_other_than_the_golden_one_is_found(copy: Path) -> None:
    """A vector that differs from the golden one is found, as a classifier's logits are."""
    document = json.loads((copy / MANIFEST_NAME).read_bytes())
    document["self_test"]["golden"][0]["logits"][0] += 100
    (copy / MANIFEST_NAME).write_text(json.dumps(document))
    with pytest.raises(VariantRejected, match="golden input 0, logits"):
        open_variant(copy, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layer": 9}, "layer 9 of an encoder of 2"),
        ({"pooling": "cls"}, "pooling"),
        ({"max_tokens": 2}, "no tokens for a sentence"),
        ({"ranker": "nowhere.json"}, "its ranker cannot be read"),
        ({"encoder": "../nowhere"}, "there is no folder"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(
    checkpoint: Path, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    """A recipe that cannot be followed is refused before anything is exported, with what is wrong with it."""
    changed = shutil.copytree(checkpoint, tmp_path / "ranker")
    shutil.copytree(checkpoint.parent / "distilbert", tmp_path / "distilbert")
    recipe = json.loads((changed / "extractive.json").read_bytes())
    (changed / "extractive.json").write_text(json.dumps(recipe | change))
    with pytest.raises(SourceRefused, match=said):
        exported(changed, tmp_path / "variant")


def test_a_ranker_of_another_encoder_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """A ranker for another encoder is refused, since its directions have other dimensions."""
    changed = shutil.copytree(checkpoint, tmp_path / "ranker")
    shutil.copytree(checkpoint.parent / "distilbert", tmp_path / "distilbert")
    ranker(DIMENSIONS + 1).save(changed / "ranker.json")
    with pytest.raises(SourceRefused, match="vectors of 33 dimensions, and its encoder gives 32"):
        exported(changed, tmp_path / "variant")


def test_the_digest_of_a_ranker_follows_its_encoder(checkpoint: Path, tmp_path: Path) -> None:
    """Another encoder gives a ranker another digest, even if no file of the ranker's own folder changed."""
    encoder = shutil.copytree(checkpoint.parent / "distilbert", tmp_path / "distilbert")
    folder = shutil.copytree(checkpoint, tmp_path / "ranker")
    store = Store(tmp_path / "cache")
    before = store.source_sha256(str(folder), None)
    assert before == store.source_sha256(str(folder), None) == resolve_source(str(folder)).sha256
    (encoder / "config.json").write_text((encoder / "config.json").read_text() + "\n")
    assert store.source_sha256(str(folder), None) != before


OPENED = """
import sys
from pathlib import Path
from deployments.replica.variant import open_variant
open_variant(Path(sys.argv[1]), 1)
assert not {"torch", "transformers", "optimum", "onnx", "rouge_score"} & set(sys.modules), "only the runtime is needed"
assert "deployments.replica.writing.beam_search" not in sys.modules, "no search is needed to choose"
"""


def test_a_replica_that_chooses_imports_no_torch(variant: Path) -> None:
    """A replica of an extractive checkpoint imports ONNX Runtime, the tokenizer and the ranker, and no torch."""
    subprocess.run([sys.executable, "-c", OPENED, str(variant)], check=True, cwd=ROOT)
