"""The shipped extractive checkpoints match their manifests, and their papers are read as printed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from deployments.replica.sentences import split_sentences
from deployments.replica.summarize.ranking import Ranker, default_count, describe
from exporters.sources.texts import SUMMARIES
from exporters.starter.extractive.card import ExtractiveCheckpoint
from exporters.starter.extractive.corpus import FREE_FROM, detokenised, published
from exporters.starter.publishing import read_manifest

CHECKPOINTS = SUMMARIES.with_name("checkpoints")
FOLDERS = [CHECKPOINTS / name for name in ("extract-realtime", "extract-quality")]
each_checkpoint = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def sha256(path: Path) -> str:
    """The hex digest of a file, computed here and not by the code under test."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@each_checkpoint
def test_files_are_what_the_manifest_says(folder: Path) -> None:
    """The manifest names every other file of its folder, its encoder and the held-out papers, with their digests."""
    manifest = read_manifest(folder, ExtractiveCheckpoint)
    assert manifest.name == folder.name
    assert manifest.files == {p.name: sha256(p) for p in folder.iterdir() if p.name != "manifest.json"}
    assert manifest.data.heldout_sha256 == sha256(SUMMARIES)
    encoder = CHECKPOINTS / manifest.encoder.removeprefix("starter:")
    assert manifest.encoder_sha256 == sha256(encoder / "model.safetensors")


@each_checkpoint
def test_the_description_leads_to_a_ranker_that_fits_the_encoder(folder: Path) -> None:
    """The ranker fits the encoder's layer and width, and chooses as many sentences as described."""
    said = json.loads((folder / "extractive.json").read_bytes())
    config = json.loads((CHECKPOINTS / said["encoder"].removeprefix("starter:") / "config.json").read_bytes())
    assert 0 < said["layer"] <= (config.get("n_layers") or config["num_hidden_layers"]) and said["pooling"] == "mean"
    ranker = Ranker.load(folder / said["ranker"])
    width = config.get("dim") or config["hidden_size"]
    assert ranker.dimensions == width
    text = "Rain fell all day in the hills. The road was closed at noon by the police. Nobody was hurt in it. " * 2
    spans = split_sentences(text)
    vectors = np.random.default_rng(1).normal(size=(len(spans), width)).astype(np.float32)
    assert len(ranker.choose(vectors, describe(text, spans), default_count(len(spans)))) == said["sentences"]


@each_checkpoint
def test_the_card_gives_the_measured_figures(folder: Path) -> None:
    """The model card shows the measured scores, which are better than those of the opening sentences."""
    manifest, card = read_manifest(folder, ExtractiveCheckpoint), (folder / "README.md").read_text(encoding="utf-8")
    for figures in (manifest.test.own, manifest.test.lead, manifest.validation.own):
        assert f"{figures.rouge1:.2f}" in card and f"{figures.rougeL:.2f}" in card
    assert manifest.test.own.rouge1 > manifest.test.lead.rouge1 > manifest.test.chance.rouge1
    assert manifest.test.oracle.rouge1 > manifest.test.own.rouge1
    assert all(gain.low <= gain.mean <= gain.high for gain in manifest.test.gain_over_lead.values())


def test_the_held_out_papers_may_be_passed_on() -> None:
    """Every held-out paper is from a year with a CC BY licence, and has a title, a text and three summary sentences."""
    rows = [json.loads(line) for line in SUMMARIES.read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 30 and SUMMARIES.stat().st_size < 1_500_000
    for row in rows:
        assert published(row["name"]) >= FREE_FROM and row["title"]
        assert len(split_sentences(row["text"])) > 5 and len(row["summary"].split("\n")) == 3


def test_the_year_of_a_paper_is_in_its_name() -> None:
    """A paper's year is read from its name, in both of the Anthology's forms."""
    assert [published(name) for name in ("2020.acl-main.1", "P06-1001", "E99-1005")] == [2020, 2006, 1999]


def test_sentences_are_read_as_they_were_printed() -> None:
    """Spaces that a tokenizer put before punctuation are taken out, and no others."""
    assert (
        detokenised("We do n't ( as of 2007 ) use it , Smith 's way .") == "We don't (as of 2007) use it, Smith's way."
    )
