"""Laws of opening a variant: what is served is what was verified."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_variants import LABELS, write_variant

from deployments.engines.base import padded
from deployments.replica.classify import open_classifier
from deployments.replica.tokens import Encoded
from deployments.replica.variant import VariantRejected, open_variant
from gateway.model.manifest import MANIFEST_NAME

Tamper = Callable[[dict[str, Any]], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete variant."""
    write_variant(tmp_path / "variant")
    return tmp_path / "variant"


def tamper(folder: Path, change: Tamper) -> None:
    """Changes one field of the manifest."""
    document = json.loads((folder / MANIFEST_NAME).read_bytes())
    change(document)
    (folder / MANIFEST_NAME).write_text(json.dumps(document))


def rejection(folder: Path) -> VariantRejected:
    """The rejection that opening the folder raises."""
    with pytest.raises(VariantRejected) as caught:
        open_variant(folder, threads=1)
    return caught.value


def test_a_whole_variant_opens_and_answers(folder: Path) -> None:
    """A complete variant opens with an engine, task and profile that fit together."""
    opened = open_classifier(folder, threads=1)
    encoded = opened.scorer.encode("a good film", "longest_first")
    assert isinstance(encoded, Encoded)
    batch = padded([encoded.token_ids], opened.scorer.pad_id)
    assert opened.engine.run(batch.token_ids, batch.attention_mask).shape == (1, len(LABELS))
    assert opened.profile.median_s(1, 8) == 0.001


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_one_flipped_bit_is_found(folder: Path, name: str) -> None:
    """A file that differs by one bit from the verified one is named with both digests."""
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    found = rejection(folder)
    assert (found.checkpoint, found.what) == ("by-hand", name)
    assert found.expected.startswith("sha256 ") and len(found.got) == 64


def test_a_missing_file_is_named(folder: Path) -> None:
    """A missing file is named."""
    (folder / "tokenizer.json").unlink()
    assert str(rejection(folder)).endswith("got no such file")


def test_a_folder_without_a_manifest_is_no_variant(folder: Path) -> None:
    """A folder without a manifest is no variant, because the manifest is written last."""
    (folder / MANIFEST_NAME).unlink()
    assert rejection(folder).what == MANIFEST_NAME
    assert rejection(folder / "nowhere").got == "no such file"


def wrong_ids(document: dict[str, Any]) -> None:
    """Golden token ids that the tokenizer does not give."""
    document["self_test"]["golden"][1]["token_ids"][0] += 1


def wrong_logits(document: dict[str, Any]) -> None:
    """A golden logit that the engine does not give."""
    document["self_test"]["golden"][2]["logits"][0] += 1.0


def of_another_task(document: dict[str, Any]) -> None:
    """A classifier whose manifest says that it summarises."""
    document["task"] = "summarize"


def unsigned(document: dict[str, Any]) -> None:
    """A graph that is served although no digest is given for it."""
    del document["files"]["model.onnx"]


def fewer_logits(document: dict[str, Any]) -> None:
    """Golden logits of a model with fewer labels."""
    document["self_test"]["golden"][0]["logits"].pop()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (wrong_ids, "golden input 1, token ids"),
        (wrong_logits, "golden input 2, logits"),
        (fewer_logits, "golden input 0, logits"),
    ],
)
def test_an_answer_other_than_the_golden_one_is_found(folder: Path, change: Tamper, what: str) -> None:
    """A variant whose tokenizer or engine gives another answer on this host is rejected, naming the golden input."""
    tamper(folder, change)
    assert rejection(folder).what == what


@pytest.mark.parametrize(
    ("change", "what", "expected"),
    [
        (of_another_task, "manifest.json, task", "'classify' or 'zero-shot' of a variant of the kind classifier"),
        (unsigned, "manifest.json, files", "a digest of model.onnx"),
    ],
)
def test_a_manifest_that_does_not_fit_its_kind_is_found(folder: Path, change: Tamper, what: str, expected: str) -> None:
    """A manifest that does not fit its kind is rejected with the name of the field."""
    tamper(folder, change)
    assert (rejection(folder).what, rejection(folder).expected) == (what, expected)


def test_a_missing_feature_of_the_processor_is_named(tmp_path: Path) -> None:
    """A processor without the instructions that int8 needs is refused by the name of the missing feature."""
    write_variant(tmp_path / "variant", cpu_features=("avx1024_vnni",))
    assert "avx1024_vnni" in str(rejection(tmp_path / "variant"))


def test_a_manifest_of_another_form_is_rejected_by_its_field(folder: Path) -> None:
    """A manifest of another form is rejected in one line that names the field."""
    tamper(folder, lambda document: document.pop("labels"))
    assert "labels" in rejection(folder).got


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "sub/model.onnx"])
def test_a_manifest_cannot_reach_out_of_its_folder(folder: Path, name: str) -> None:
    """A manifest cannot make a replica open files outside its folder, not even to hash them."""
    tamper(folder, lambda document: document["files"].update({name: "0" * 64}))
    assert rejection(folder).got == repr(name)


def test_a_rejection_survives_the_way_to_another_process() -> None:
    """A rejection says the same after it has been pickled and read back."""
    rejected = VariantRejected("a", "model.onnx", "sha256 1", "2")
    assert str(pickle.loads(pickle.dumps(rejected))) == str(rejected)
