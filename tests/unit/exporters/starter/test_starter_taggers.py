"""The shipped tagger's folder matches its manifest, pins what the recipe pins, and is scored as the score says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from exporters.kinds import KINDS, kind_of
from exporters.kinds.tagger import read_aggregation
from exporters.sources.fetched import is_fetched, read_fetched
from exporters.sources.source import source_bytes, source_folder
from exporters.sources.texts import PERSONAL
from exporters.starter.publishing import read_manifest
from exporters.starter.taggers.build import DOMAIN, FETCHED, NAME, WINDOW
from exporters.starter.taggers.card import TaggerCard, card
from exporters.starter.taggers.score import Marked, read_marked, scored
from gateway.catalogs.catalog import load_catalog

LIMIT = 1_000_000
LOCATION = f"starter:{NAME}"
FOLDER = source_folder(LOCATION)


def sha256(path: Path) -> str:
    """The hex digest of a file, computed here and not by the code under test."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_files_are_what_the_manifest_says() -> None:
    """The manifest names every other file of its folder with its digest, and the card is made of it."""
    files = {path.name: path for path in FOLDER.iterdir()}
    manifest = read_manifest(FOLDER, TaggerCard)
    assert manifest.files == {name: sha256(path) for name, path in files.items() if name != "manifest.json"}
    assert files["README.md"].read_text(encoding="utf-8") == card(manifest)


def test_the_folder_pins_its_weights_and_holds_none() -> None:
    """The folder is a tagger's, pins what the recipe pins, and is small; its size counts what is to be fetched."""
    assert is_fetched(FOLDER) and read_fetched(FOLDER, NAME) == FETCHED
    assert kind_of(FOLDER, NAME) is KINDS["tagger"]
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < LIMIT and not list(FOLDER.glob("*.safetensors"))
    assert source_bytes(LOCATION) > FETCHED.size_bytes


def test_the_catalog_says_what_the_manifest_says() -> None:
    """Score, tier, domain and licence are the manifest's; the window and the strategy are those of the folder."""
    manifest = read_manifest(FOLDER, TaggerCard)
    (entry,) = (one for one in load_catalog("starter").checkpoints if one.source == LOCATION)
    assert entry.quality.value == round(100 * manifest.score.f1, 2)
    assert (entry.tier, entry.domain, entry.licence) == (manifest.tier, DOMAIN, manifest.licences["weights"])
    assert manifest.score.data_sha256 == sha256(PERSONAL)
    config = json.loads((FOLDER / "config.json").read_bytes())
    assert read_aggregation(config, NAME) == manifest.aggregation
    settings = json.loads((FOLDER / "tokenizer_config.json").read_bytes())
    assert settings["model_max_length"] == manifest.window == WINDOW


def test_the_marked_texts_are_whole() -> None:
    """Every entity of the texts is where it says, of a kind that the tagger has; some texts have none."""
    marked, kinds = read_marked(PERSONAL), {*read_manifest(FOLDER, TaggerCard).kinds}
    assert {kind for one in marked for _, _, kind in one.spans} == kinds
    assert all(0 <= start < end <= len(one.text) for one in marked for start, end, _ in one.spans)
    assert sum(not one.spans for one in marked) >= 10


def test_a_score_counts_exact_entities_and_characters() -> None:
    """Precision and recall count entities that are exactly right; coverage counts characters, whatever their kind."""
    marked = [Marked("ann lee in rome", ((0, 3, "A"), (4, 7, "B"), (11, 15, "C"))), Marked("none here", ())]
    found = scored(marked, [[(0, 3, "A"), (4, 6, "B"), (11, 15, "D")], [(0, 4, "A")]])
    assert (found.precision, found.recall) == (1 / 4, 1 / 3)
    assert found.covered == pytest.approx(9 / 10) and found.spoilt == pytest.approx(4 / 14)
    assert found.f1 == pytest.approx(2 / 7)
    nothing = scored(marked, [[], []])
    assert (nothing.precision, nothing.recall, nothing.f1, nothing.covered, nothing.spoilt) == (0, 0, 0, 0, 0)
