"""Laws of a checkpoint's source: pinned, safetensors and data only; every refusal says what to change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exporters.errors import ExportError, SourceRefused
from exporters.kinds import KINDS, kind_of
from exporters.sources.source import resolve_source
from exporters.sources.starter_files import starter_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A minimal checkpoint: the files that one must have."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def refusal(location: object, revision: str | None = None) -> str:
    """The message with which a source is refused."""
    with pytest.raises(SourceRefused) as caught:
        resolve_source(str(location), revision)
    assert isinstance(caught.value, ExportError)
    return str(caught.value)


def test_a_local_folder_is_taken_as_it_is(checkpoint: Path) -> None:
    """A local folder needs no revision and no network; its digest identifies the files."""
    source = resolve_source(str(checkpoint))
    assert (source.path, source.revision, len(source.sha256)) == (checkpoint, "", 64)


def test_the_digest_follows_what_an_export_reads(checkpoint: Path) -> None:
    """A changed weight changes the digest; a changed read-me does not."""
    before = resolve_source(str(checkpoint)).sha256
    (checkpoint / "README.md").write_text("hello")
    assert resolve_source(str(checkpoint)).sha256 == before
    (checkpoint / "model.safetensors").write_bytes(b"weightz")
    assert resolve_source(str(checkpoint)).sha256 != before


def test_pickled_weights_are_refused_by_name(checkpoint: Path) -> None:
    """Pickled weights are refused and named, because reading a pickle runs code."""
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    assert "found pytorch_model.bin" in refusal(checkpoint)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_of_its_own_is_refused(checkpoint: Path, name: str) -> None:
    """A checkpoint that brings code of its own is refused, not loaded without the code."""
    (checkpoint / name).write_text(json.dumps({"auto_map": {"AutoModel": "evil.Model"}}))
    assert "auto_map" in refusal(checkpoint)


def test_a_sharded_checkpoint_needs_all_its_shards(checkpoint: Path) -> None:
    """A sharded checkpoint must have all the shards that its index names."""
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-2.safetensors" in refusal(checkpoint)
    (checkpoint / "model-2.safetensors").write_bytes(b"more")
    resolve_source(str(checkpoint))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_an_incomplete_folder_is_refused(checkpoint: Path, name: str) -> None:
    """A folder that lacks a file is refused before an export starts."""
    (checkpoint / name).unlink()
    assert f"no {name.split('.')[0]}" in refusal(checkpoint)


@pytest.mark.parametrize("placed", ["[]", '{"weight_map": null}', '{"weight_map": ["a"]}', '{"weight_map": {"a": 1}}'])
def test_an_index_without_a_map_is_refused(checkpoint: Path, placed: str) -> None:
    """An index of shards that does not say where each weight is is refused in a sentence."""
    (checkpoint / "model.safetensors.index.json").write_text(placed)
    assert "index.json" in refusal(checkpoint)


@pytest.mark.parametrize("name", ["spiece.model", "spm.model", "sentencepiece.bpe.model", "tokenizer.model"])
def test_a_file_of_sentencepiece_is_a_tokenizer(checkpoint: Path, name: str) -> None:
    """SentencePiece's file counts as a tokenizer under each of its usual names, and the digest follows it."""
    (checkpoint / "tokenizer.json").unlink()
    assert "no tokenizer; one of tokenizer.json, vocab.txt" in refusal(checkpoint)
    (checkpoint / name).write_bytes(b"pieces")
    before = resolve_source(str(checkpoint)).sha256
    (checkpoint / name).write_bytes(b"piecez")
    assert resolve_source(str(checkpoint)).sha256 != before


@pytest.mark.parametrize("config", [True, False])
def test_an_adapter_alone_is_refused_by_the_name_of_its_base(checkpoint: Path, config: bool) -> None:
    """An adapter without what it adapts is called one, and the sentence says how to make a checkpoint of it."""
    (checkpoint / "adapter_config.json").write_text('{"base_model_name_or_path": "x/y"}')
    resolve_source(str(checkpoint))  # weights of its own: the adapter's note is a leftover
    (checkpoint / "model.safetensors").rename(checkpoint / "adapter_model.safetensors")
    if not config:
        (checkpoint / "config.json").unlink()
    assert "is an adapter of x/y (adapter_config.json) without the weights that it adapts" in refusal(checkpoint)


def test_a_ranker_may_leave_its_weights_to_another_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    """An extractive checkpoint may use another's weights, by a starter's name or a folder; its digest covers both."""
    folder = tmp_path / "ranker"
    folder.mkdir()
    recipe = folder / "extractive.json"
    recipe.write_text('{"encoder": "../checkpoint"}')
    source = resolve_source(str(folder))
    assert source.encoder.resolve() == checkpoint and kind_of(source.path, "") is KINDS["extractive"]
    (checkpoint / "model.safetensors").write_bytes(b"weightz")
    assert resolve_source(str(folder)).sha256 != source.sha256
    recipe.write_text('{"encoder": "starter:minilm-sentiment"}')
    assert resolve_source(str(folder)).encoder == starter_folder("starter:minilm-sentiment")
    recipe.write_text("{}")
    assert "no config.json" in refusal(folder)
    recipe.write_text('{"encoder": 5}')
    assert "is not a location" in refusal(folder)
    recipe.write_text('{"encoder": "../ranker2"}')
    (tmp_path / "ranker2").mkdir()
    (tmp_path / "ranker2" / "extractive.json").write_text('{"encoder": "../ranker"}')
    assert "is itself a ranker" in refusal(folder)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_type": "bert"}, "classifier"),
        ({"is_encoder_decoder": True}, "seq2seq"),
        ({"is_encoder_decoder": True, "architectures": ["BartForConditionalGeneration"]}, "seq2seq"),
        ({"is_encoder_decoder": True, "architectures": ["BartForSequenceClassification"]}, "classifier"),
    ],
)
def test_a_checkpoint_s_kind_is_told_by_its_files(checkpoint: Path, config: dict[str, object], kind: str) -> None:
    """The kind follows from the config: an encoder-decoder with a classifier's head is a classifier."""
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert kind_of(checkpoint, "here").name == kind


@pytest.mark.parametrize("content", ["[]", "{", "\x00"])
def test_a_broken_config_is_a_refusal_and_no_traceback(checkpoint: Path, content: str) -> None:
    """A config that is not a JSON object is refused with a message, not a traceback."""
    (checkpoint / "config.json").write_text(content)
    assert "config.json is not" in refusal(checkpoint)


@pytest.mark.parametrize("revision", ["main", "v1.0", COMMIT[:12], COMMIT.upper()])
def test_a_revision_that_can_move_is_refused(revision: str) -> None:
    """A revision must be a full commit, since a branch or tag can change."""
    assert "40 hex digits" in refusal("owner/name", revision)


def test_a_hub_id_without_a_revision_is_refused() -> None:
    """A Hub id without a revision is refused; the message asks for one."""
    assert "40-digit revision" in refusal("owner/name")
