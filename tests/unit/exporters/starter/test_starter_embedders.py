"""The shipped embedders' folders match their manifests, pin what the recipe pins, and hold no weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from exporters.kinds import KINDS, kind_of
from exporters.kinds.embedder import read_configuration
from exporters.sources.fetched import is_fetched, read_fetched
from exporters.sources.source import source_bytes, source_folder
from exporters.sources.texts import SOFTWARE
from exporters.starter.embedders.build import RECIPES, Recipe
from exporters.starter.embedders.card import EmbedderCard, card
from exporters.starter.publishing import read_manifest
from gateway.catalogs.catalog import load_catalog

LIMIT = 1_000_000

each_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)


def folder_of(recipe: Recipe) -> Path:
    """The shipped folder of a recipe."""
    return source_folder(f"starter:{recipe.name}")


def sha256(path: Path) -> str:
    """The hex digest of a file, computed here and not by the code under test."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@each_recipe
def test_files_are_what_the_manifest_says(recipe: Recipe) -> None:
    """The manifest names every other file of its folder with its digest, those in folders of their own too."""
    folder = folder_of(recipe)
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    manifest = read_manifest(folder, EmbedderCard)
    assert manifest.name == folder.name == recipe.name and "1_Pooling/config.json" in files
    assert manifest.files == {name: sha256(path) for name, path in files.items() if name != "manifest.json"}


@each_recipe
def test_a_folder_pins_its_weights_and_holds_none(recipe: Recipe) -> None:
    """The folder is an embedder's, pins what the recipe pins, and is small; its size counts what is to be fetched."""
    folder = folder_of(recipe)
    assert is_fetched(folder) and read_fetched(folder, recipe.name) == recipe.fetched
    assert kind_of(folder, recipe.name) is KINDS["embedder"]
    own = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert own < LIMIT and not list(folder.rglob("*.safetensors"))
    assert source_bytes(f"starter:{recipe.name}") > recipe.fetched.size_bytes


@each_recipe
def test_the_card_is_made_of_the_manifest(recipe: Recipe) -> None:
    """The card has every figure of the manifest, which says what the folder's configuration says."""
    folder = folder_of(recipe)
    manifest, found = read_manifest(folder, EmbedderCard), read_configuration(folder, recipe.name)
    assert (folder / "README.md").read_text(encoding="utf-8") == card(manifest)
    assert (manifest.pooling, manifest.normalized, manifest.window) == (found.pooling, found.normalized, found.window)
    assert manifest.score.data_sha256 == sha256(SOFTWARE) and manifest.tier == recipe.tier


def test_scores_rise_with_the_tiers() -> None:
    """A tier above gives better vectors, by one score on one data set; the starter catalog has the same figures."""
    manifests = [read_manifest(folder_of(recipe), EmbedderCard) for recipe in RECIPES]
    ranked = sorted(manifests, key=lambda manifest: ("realtime", "balanced", "quality").index(manifest.tier))
    scores = [manifest.score.reciprocal_rank for manifest in ranked]
    assert scores == sorted(scores) and len({manifest.score.data_sha256 for manifest in manifests}) == 1
    values = {entry.source: entry.quality.value for entry in load_catalog("starter").of_task("similarity")}
    measured = {f"starter:{one.name}": round(100 * one.score.reciprocal_rank, 2) for one in manifests}
    assert values.items() <= measured.items() and len(values) >= 2
