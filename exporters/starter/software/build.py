"""The whole build of the summariser, start to end: fetch, split, prune, teach, settle, measure, publish."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from exporters.starter.data import Split
from exporters.starter.fit import Advance
from exporters.starter.learn import THREADS
from exporters.starter.software.decoding import FIXED
from exporters.starter.software.descriptions import Pair
from exporters.starter.software.fit import Recipe, epochs, fit
from exporters.starter.software.heldout import COUNT, HELDOUT, write_heldout
from exporters.starter.software.manifest import SummariserManifest
from exporters.starter.software.material import Material, prepare
from exporters.starter.software.publish import NAME, Trained, describe, move, write_checkpoint
from exporters.starter.software.rows import Row, rows_of
from exporters.starter.software.score import Texts, measure, settle
from exporters.starter.software.transfer import bart_from

SMOKE_PAIRS = 12
SMOKE_STEPS = 3
DEV_COUNT = 200
DRAFT = "draft"


def build(out: Path, cache: Path, advance: Advance, smoke: bool = False) -> SummariserManifest:
    """Fetch, then write `software-heldout.jsonl` and `checkpoints/bart-software/` under `out`.

    A smoke run learns next to nothing. Raises `NoDescriptions` where apt cannot bring the descriptions.
    """
    torch.set_num_threads(THREADS)
    return build_from(prepare(cache, SMOKE_PAIRS if smoke else None), out, advance, smoke)


def build_from(material: Material, out: Path, advance: Advance, smoke: bool) -> SummariserManifest:
    """The build once its material is at hand: from here on nothing is fetched.

    While it trains, the model as it is lies in `out/work/draft` in the final format, renewed every few minutes.
    """
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    write_heldout(((pair.text, pair.summary) for pair in material.sides[Split.HELDOUT][:COUNT]), out / HELDOUT.name)
    recipe = Recipe(max_steps=SMOKE_STEPS) if smoke else Recipe()
    trained = train(material, recipe, work / DRAFT, advance)
    manifest = finish(trained, material, out, advance)
    shutil.rmtree(work)
    return manifest


def train(material: Material, recipe: Recipe, draft: Path, advance: Advance) -> Trained:
    """The model taught on the train side, and how."""
    tokenizer = Tokenizer.from_str(json.dumps(material.tokenizer))
    rows = rows_of(tokenizer, material.sides[Split.TRAIN], recipe.text_tokens, recipe.summary_tokens)
    model = bart_from(material.base, material.vocabulary, recipe.seed)

    def keep(done: int) -> None:
        write_checkpoint(model, material.tokenizer, FIXED, draft)

    return Trained(model, recipe, fit(model, rows, recipe, advance, keep), epoch_steps(rows, recipe))


def finish(trained: Trained, material: Material, out: Path, advance: Advance) -> SummariserManifest:
    """Choose the generation settings on dev, measure what was written, and move it to its place under `out`."""
    folder, heldout = out / "work" / NAME, out / HELDOUT.name
    dev = _texts(material.sides[Split.DEV][:DEV_COUNT])
    write_checkpoint(trained.model, material.tokenizer, FIXED, folder)
    steps = trained.fitted.steps
    tokens = trained.recipe.text_tokens
    settings = settle(folder, dev, tokens, lambda line: advance(steps, steps, line))
    write_checkpoint(trained.model, material.tokenizer, settings, folder)
    measured = measure(folder, _texts(material.sides[Split.HELDOUT][:COUNT]), dev, tokens)
    manifest = describe(trained, material, settings, measured, heldout, folder)
    move(folder, out / "checkpoints" / NAME)
    return manifest


def epoch_steps(rows: Sequence[Row], recipe: Recipe) -> int:
    """How many batches show every row once."""
    return len(epochs(rows, replace(recipe, epochs=1, max_steps=None)))


def _texts(found: Sequence[Pair]) -> Texts:
    return Texts([pair.text for pair in found], [pair.summary for pair in found])
