"""Laws of where a checkpoint comes from: safetensors and data only, pinned, and every refusal says what to change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exporters.errors import ExportError, SourceRefused
from exporters.source import resolve_source

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The least that is a checkpoint, by its file names."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def refusal(location: object, revision: str | None = None, starter_root: Path = Path("/nowhere")) -> str:
    """What is said of a source that cannot be used."""
    with pytest.raises(SourceRefused) as caught:
        resolve_source(str(location), revision, starter_root)
    assert isinstance(caught.value, ExportError)
    return str(caught.value)


def test_a_local_folder_is_taken_as_it_is(checkpoint: Path) -> None:
    """No revision, no network; the digest stands for the files."""
    source = resolve_source(str(checkpoint))
    assert (source.path, source.revision, len(source.sha256)) == (checkpoint, "", 64)


def test_the_digest_follows_what_an_export_reads(checkpoint: Path) -> None:
    """Another weight is another checkpoint; a read-me is not."""
    before = resolve_source(str(checkpoint)).sha256
    (checkpoint / "README.md").write_text("hello")
    assert resolve_source(str(checkpoint)).sha256 == before
    (checkpoint / "model.safetensors").write_bytes(b"weightz")
    assert resolve_source(str(checkpoint)).sha256 != before


def test_a_starter_is_found_by_name_and_only_there(checkpoint: Path) -> None:
    """The name is one of the folders of the starter root, never a way out of it."""
    assert resolve_source("starter:checkpoint", None, checkpoint.parent).path == checkpoint
    assert "found checkpoint" in refusal("starter:other", None, checkpoint.parent)
    assert "no such starter" in refusal("starter:../checkpoint", None, checkpoint.parent)


def test_pickled_weights_are_refused_by_name(checkpoint: Path) -> None:
    """Reading a pickle runs code."""
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    assert "found pytorch_model.bin" in refusal(checkpoint)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_of_its_own_is_refused(checkpoint: Path, name: str) -> None:
    """A checkpoint that maps classes to its own code is not loaded without that code either."""
    (checkpoint / name).write_text(json.dumps({"auto_map": {"AutoModel": "evil.Model"}}))
    assert "auto_map" in refusal(checkpoint)


def test_a_sharded_checkpoint_needs_all_its_shards(checkpoint: Path) -> None:
    """The index says which files there must be."""
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-2.safetensors" in refusal(checkpoint)
    (checkpoint / "model-2.safetensors").write_bytes(b"more")
    resolve_source(str(checkpoint))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_an_incomplete_folder_is_refused(checkpoint: Path, name: str) -> None:
    """No export starts that could not end."""
    (checkpoint / name).unlink()
    assert f"no {name.split('.')[0]}" in refusal(checkpoint)


@pytest.mark.parametrize("content", ["[]", "{", "\x00"])
def test_a_broken_config_is_a_refusal_and_no_traceback(checkpoint: Path, content: str) -> None:
    """Whatever stands in it."""
    (checkpoint / "config.json").write_text(content)
    assert "config.json is not" in refusal(checkpoint)


@pytest.mark.parametrize("revision", ["main", "v1.0", COMMIT[:12], COMMIT.upper()])
def test_a_revision_that_can_move_is_refused(revision: str) -> None:
    """Only a full commit always means the same files."""
    assert "40 hex digits" in refusal("owner/name", revision)


def test_a_hub_id_without_a_revision_is_refused() -> None:
    """It says that one is needed."""
    assert "40-digit revision" in refusal("owner/name")
