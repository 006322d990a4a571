"""Builds the summariser: fetch, split, prune, train, choose generation settings, measure, publish."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from exporters.sources.texts import SOFTWARE
from exporters.starter.command import THREADS, Tick, Ticker
from exporters.starter.data import Split
from exporters.starter.publishing import write_lines
from exporters.starter.software.card import SummariserManifest
from exporters.starter.software.decoding import FIXED, write_generation
from exporters.starter.software.descriptions import Pair
from exporters.starter.software.fit import Recipe, Row, epochs, fit, rows_of
from exporters.starter.software.material import Material, prepare
from exporters.starter.software.model import bart_from
from exporters.starter.software.publish import NAME, Trained, describe, write_checkpoint
from exporters.starter.software.score import Texts, choose_settings, measure

SMOKE_PAIRS = 12
SMOKE_STEPS = 3
DEV_COUNT = 200


def build(out: Path, cache: Path, ticker: Ticker, smoke: bool = False) -> SummariserManifest:
    """Writes `software-heldout.jsonl` and `checkpoints/bart-software/` under `out`.

    A smoke run trains for a few steps. Raises `NoDescriptions` if apt cannot fetch the descriptions.
    """
    torch.set_num_threads(THREADS)
    return build_from(prepare(cache, SMOKE_PAIRS if smoke else None), out, ticker(NAME), smoke)


def build_from(material: Material, out: Path, advance: Tick, smoke: bool) -> SummariserManifest:
    """Builds from fetched material, without network access."""
    out.mkdir(parents=True, exist_ok=True)
    write_lines(heldout_rows(material.heldout), out / SOFTWARE.name, ascii_only=False)
    trained = train(material, Recipe(max_steps=SMOKE_STEPS) if smoke else Recipe(), advance)
    return finish(trained, material, out, advance)


def train(material: Material, recipe: Recipe, advance: Tick) -> Trained:
    """Trains the model on the train side."""
    tokenizer = Tokenizer.from_str(json.dumps(material.tokenizer))
    rows = rows_of(tokenizer, material.sides[Split.TRAIN], recipe.text_tokens, recipe.summary_tokens)
    model = bart_from(material.base, material.vocabulary, recipe.seed)
    return Trained(model, recipe, fit(model, rows, recipe, advance), epoch_steps(rows, recipe))


def finish(trained: Trained, material: Material, out: Path, advance: Tick) -> SummariserManifest:
    """Writes the checkpoint below `out`, chooses its generation settings on dev, and measures the written files."""
    folder, tokens = out / "checkpoints" / NAME, trained.recipe.text_tokens
    dev = _texts(material.sides[Split.DEV][:DEV_COUNT])
    write_checkpoint(trained.model, material.tokenizer, FIXED, folder)
    steps = trained.fitted.steps
    settings = choose_settings(folder, dev, tokens, lambda line: advance(steps, steps, line))
    write_generation(trained.model.config, settings, folder)
    measured = measure(folder, _texts(material.heldout), dev, tokens)
    return describe(trained, material, settings, measured, out / SOFTWARE.name, folder)


def epoch_steps(rows: Sequence[Row], recipe: Recipe) -> int:
    """The number of batches per epoch."""
    return len(epochs(rows, replace(recipe, epochs=1, max_steps=None)))


def _texts(found: Sequence[Pair]) -> Texts:
    return Texts([pair.text for pair in found], [pair.summary for pair in found])


def heldout_rows(found: Iterable[Pair]) -> list[dict[str, str]]:
    """The rows of `software-heldout.jsonl`."""
    return [{"text": pair.text, "summary": pair.summary} for pair in found]
