"""The shipped starter files match their manifests, and a fixed rule separates training from held-out texts."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.sources.adapters import ADAPTER_WEIGHTS, is_adapter
from exporters.sources.texts import HELDOUT, Sentence, read_heldout
from exporters.starter.adapter.card import AdapterManifest
from exporters.starter.data import (
    LABELS,
    SOURCES,
    Split,
    cleaned,
    distinct,
    heldout_rows,
    normalised,
    on_side,
    parse,
    split_of,
)
from exporters.starter.publishing import read_manifest, write_lines
from exporters.starter.sentiment.card import Manifest

CHECKPOINTS = HELDOUT.with_name("checkpoints")
FOLDERS = sorted(path for path in CHECKPOINTS.iterdir() if path.name.endswith("-sentiment"))
EACH_LIMIT, ALL_LIMIT = 50_000_000, 75_000_000
ADAPTER_LIMIT = 8_000_000

texts = st.text(min_size=1, max_size=60)
each_checkpoint = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def sha256(path: Path) -> str:
    """The hex digest of a file, computed here and not by the code under test."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def header(path: Path) -> dict[str, dict[str, object]]:
    """The tensors a safetensors file declares, read without any tensor library."""
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        declared: dict[str, dict[str, object]] = json.loads(stream.read(size))
    declared.pop("__metadata__", None)
    return declared


def manifest_of(folder: Path) -> Manifest | AdapterManifest:
    """The manifest of a shipped classifier."""
    return read_manifest(folder, AdapterManifest) if is_adapter(folder) else read_manifest(folder, Manifest)


@given(texts)
def test_normalising_is_idempotent(text: str) -> None:
    """Normalising a normalised text changes nothing, be it ASCII or accented."""
    once = normalised(text)
    assert split_of(once) is split_of(once) and normalised(once).split() == normalised(once).split()


@given(texts, st.sampled_from([" ", "\t", "\n", "  "]))
def test_equal_texts_are_on_the_same_side(text: str, space: str) -> None:
    """Texts that differ only in the case of ASCII letters or in whitespace are on one side of the split."""
    assert split_of(text) is split_of(f"{space}{text}{space}")
    if text.isascii():
        assert split_of(text) is split_of(text.upper()) is split_of(text.lower())


def test_the_split_is_pinned() -> None:
    """The split never changes: these texts have been on these sides since the first build."""
    assert split_of("A fine film.") is split_of("  a FINE\tfilm. ")
    digest = hashlib.sha256(b"a fine film.").hexdigest()
    bucket = int(digest[:8], 16) % 100
    expected = Split.HELDOUT if bucket < 10 else Split.DEV if bucket < 15 else Split.TRAIN
    assert split_of("A fine film.") is expected


@given(st.lists(texts, max_size=30))
def test_the_sides_share_no_text_and_lose_none(several: list[str]) -> None:
    """Every distinct text is on exactly one side."""
    sentences = distinct(Sentence(text, LABELS[1], 1.0, "tweets") for text in several)
    sides = [{normalised(s.text) for s in on_side(sentences, split)} for split in Split]
    assert sum(len(side) for side in sides) == len(set().union(*sides)) == len({normalised(t) for t in several})


def test_merged_ratings_are_averaged() -> None:
    """A text rated twice counts once, with the mean of its ratings and the label that mean gives."""
    twice = [Sentence("Fine.", "positive", 2.0, "tweets"), Sentence("fine.", "negative", -4.0, "editorials")]
    assert distinct(twice) == [Sentence("Fine.", "negative", -1.0, "tweets")]


def test_a_ground_truth_line_is_read_as_its_writer_typed_it() -> None:
    """Entities, doubled apostrophes and stray whitespace are undone; accents survive."""
    line = "1_2\t-0.6\tTom &amp; the  ''clich\u00e9s'' \r\n".encode()
    assert list(parse(line, "tweets")) == [Sentence('Tom & the "clich\u00e9s"', "negative", -0.6, "tweets")]
    assert cleaned(cleaned("a  b")) == "a b"


def test_bytes_of_another_encoding_are_refused() -> None:
    """A file that is not UTF-8 raises, so a changed source can never be half read."""
    with pytest.raises(UnicodeDecodeError):
        list(parse(b"1\t2.0\tclich\xe9", "tweets"))


def test_every_held_out_sentence_is_held_out_by_the_rule() -> None:
    """No shipped sentence could have been trained on, none occurs twice, each label is the sign of its rating."""
    sentences = read_heldout()
    assert len(sentences) > 1_500
    assert {split_of(s.text) for s in sentences} == {Split.HELDOUT}
    assert len({normalised(s.text) for s in sentences}) == len(sentences)
    assert {s.source for s in sentences} == set(SOURCES.values())
    assert all(s.label == LABELS[s.rating > 0] and abs(s.rating) >= 0.5 for s in sentences)


def test_held_out_sentences_survive_a_round_trip(tmp_path: Path) -> None:
    """Writing what was read gives the shipped bytes again."""
    write_lines(heldout_rows(read_heldout()), tmp_path / "again.jsonl")
    assert sha256(tmp_path / "again.jsonl") == sha256(HELDOUT)


def test_the_starter_set_is_two_checkpoints_of_different_tiers() -> None:
    """The starter set offers a choice: a fast realtime checkpoint, and a better, slower one of the quality tier."""
    manifests = {m.tier: m for m in map(manifest_of, FOLDERS)}
    assert {"realtime", "quality"} <= set(manifests)
    fast, good = manifests["realtime"], manifests["quality"]
    assert fast.layers < good.layers and fast.scores.heldout.accuracy < good.scores.heldout.accuracy


@each_checkpoint
def test_files_are_what_the_manifest_says(folder: Path) -> None:
    """The manifest names every other file of its folder with its digest."""
    manifest = manifest_of(folder)
    assert manifest.name == folder.name
    assert manifest.files == {p.name: sha256(p) for p in folder.iterdir() if p.name != "manifest.json"}


@each_checkpoint
def test_the_manifest_speaks_of_the_shipped_held_out_file(folder: Path) -> None:
    """A manifest has the digest and the counts of the shipped held-out file."""
    manifest, sentences = manifest_of(folder), read_heldout()
    assert manifest.data.heldout_sha256 == sha256(HELDOUT)
    assert manifest.data.sentences["heldout"] == manifest.scores.heldout.sentences == len(sentences)
    for source, score in manifest.scores.heldout_by_source.items():
        assert score.sentences == sum(s.source == source for s in sentences)
        assert score.low < score.accuracy < score.high


@each_checkpoint
def test_the_card_gives_the_measured_figures(folder: Path) -> None:
    """The model card shows every accuracy in the manifest."""
    manifest = manifest_of(folder)
    card = (folder / "README.md").read_text(encoding="utf-8")
    for score in (manifest.scores.heldout, manifest.scores.dev, *manifest.scores.heldout_by_source.values()):
        assert f"{100 * score.accuracy:.1f} %" in card


@each_checkpoint
def test_weights_are_half_precision(folder: Path) -> None:
    """Every tensor on disk is fp16."""
    tensors = header(folder / (ADAPTER_WEIGHTS if is_adapter(folder) else "model.safetensors"))
    assert tensors and {tensor["dtype"] for tensor in tensors.values()} == {"F16"}


@pytest.mark.parametrize("folder", [one for one in FOLDERS if not is_adapter(one)], ids=lambda folder: folder.name)
def test_the_vocabulary_is_dense_and_in_step(folder: Path) -> None:
    """`vocab.txt`, `tokenizer.json` and the config agree on every id, special tokens first."""
    tokens = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert vocabulary == {token: i for i, token in enumerate(tokens)}
    assert tokens[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert json.loads((folder / "config.json").read_bytes())["vocab_size"] == len(tokens)


def test_checkpoints_are_small_enough_to_ship() -> None:
    """No file reaches 50 MB, all classifiers together stay under 75 MB, and an adapter under 8 MB."""
    sizes = [path.stat().st_size for folder in FOLDERS for path in folder.iterdir()]
    assert max(sizes) < EACH_LIMIT
    assert sum(sizes) < ALL_LIMIT
    for folder in filter(is_adapter, FOLDERS):
        assert sum(path.stat().st_size for path in folder.iterdir()) < ADAPTER_LIMIT
