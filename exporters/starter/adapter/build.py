"""Builds the large classifier: fetch, split, train the adapter, write it, merge it, measure the result, publish."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import MPNetForSequenceClassification

from exporters.sources.adapters import Base, fetch_base, merge
from exporters.sources.texts import HELDOUT, Sentence
from exporters.starter.adapter.card import METHOD, AdapterManifest, card
from exporters.starter.adapter.fit import Fitted, Recipe, fit, layers_of, model_from, pad_of
from exporters.starter.adapter.folder import peft_config, trained_count, write_adapter
from exporters.starter.adapter.material import Material, prepare
from exporters.starter.cards import Provenance
from exporters.starter.command import THREADS, Ticker
from exporters.starter.data import LABELS, Split
from exporters.starter.packages import MPNET, VADER
from exporters.starter.publishing import TRAINED_WITH, seal, versions
from exporters.starter.sentiment.build import by_source, data_of, score
from exporters.starter.sentiment.card import LIMITS, Scores, Training
from exporters.starter.sentiment.fit import logits_of
from exporters.starter.vocabulary import MAX_TOKENS

NAME = "mpnet-sentiment"
SMOKE_SENTENCES = 40
SMOKE_STEPS = 3
PEFT = {
    "task_type": "SEQ_CLS",
    "base_model_name_or_path": "sentence-transformers/all-mpnet-base-v2",
    "modules_to_save": ["classifier"],
}
SETTINGS: dict[str, float | str] = {"optimizer": "AdamW", "autocast": "bfloat16"}


def build(out: Path, cache: Path, ticker: Ticker, smoke: bool = False) -> AdapterManifest:
    """Writes `checkpoints/mpnet-sentiment/` under `out`; a smoke run trains for a few steps.

    Training keeps its state in `out/work`, from which an interrupted build resumes; a finished one removes it.
    """
    base = base_folder(MPNET, cache, ticker)
    material = prepare(base, cache, SMOKE_SENTENCES if smoke else None)
    recipe = Recipe(max_steps=SMOKE_STEPS) if smoke else Recipe()
    return build_from(material, MPNET, recipe, out, ticker)


def base_folder(base: Base, cache: Path, ticker: Ticker) -> Path:
    """The folder of the base below the cache, fetched if it is not there."""
    folder = cache / "mpnet"
    if not (folder / "fetched").exists():
        tick = ticker("fetching the base")
        folder.mkdir(parents=True, exist_ok=True)
        fetch_base(base, NAME, cache, folder, lambda share: tick(round(100 * share), 100, "%"))
        (folder / "fetched").touch()
    return folder


def build_from(material: Material, base: Base, recipe: Recipe, out: Path, ticker: Ticker) -> AdapterManifest:
    """Builds from fetched material, without network access."""
    torch.set_num_threads(THREADS)
    work, folder = out / "work", out / "checkpoints" / NAME
    work.mkdir(parents=True, exist_ok=True)
    model = model_from(material.base, recipe)
    sides = {split: material.rows(split, recipe.max_tokens) for split in (Split.TRAIN, Split.DEV)}
    fitted = fit(model, sides[Split.TRAIN], sides[Split.DEV], recipe, work / f"{NAME}.pt", ticker(NAME))
    layers = {"layers_to_transform": [*layers_of(model, recipe)], "layers_pattern": "layer"}
    settings = peft_config("mpnet", recipe.rank, recipe.alpha, **PEFT, **layers)
    write_adapter(fitted.tensors, model, settings, base, folder)
    merge(folder, material.base, work, NAME)
    manifest = describe(fitted, recipe, base, material, measure(work, material), folder)
    shutil.rmtree(work)
    return seal(folder, manifest, card(manifest))


@dataclass(frozen=True)
class Measured:
    """What was measured of the merged checkpoint."""

    scores: Scores
    config: Any
    parameters: int


def measure(folder: Path, material: Material) -> Measured:
    """Scores a merged checkpoint in fp32 on dev and on the held-out sentences."""
    model = MPNetForSequenceClassification.from_pretrained(folder, dtype=torch.float32)

    def answers(sentences: list[Sentence]) -> list[str]:
        ids = material.encode(sentences, MAX_TOKENS)
        logits = logits_of(model, ids, pad_id=pad_of(model))
        return [LABELS[at] for at in logits.argmax(1).tolist()]

    dev, heldout = material.sentences[Split.DEV], material.sentences[Split.HELDOUT]
    said = answers(heldout)
    scores = Scores(
        heldout=score(heldout, said), heldout_by_source=by_source(heldout, said), dev=score(dev, answers(dev))
    )
    return Measured(scores, model.config, sum(p.numel() for p in model.parameters()))


def describe(
    fitted: Fitted, recipe: Recipe, base: Base, material: Material, measured: Measured, folder: Path
) -> AdapterManifest:
    """The manifest of the written files; without digests."""
    config, by = measured.config, "the sentence-transformers authors, from MPNet by Microsoft"
    what = "all-mpnet-base-v2 (sentence-transformers)"
    return AdapterManifest(
        name=NAME,
        task="classify",
        tier="quality",
        family="MPNet",
        architecture=MPNetForSequenceClassification.__name__,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        parameters=measured.parameters,
        trained_parameters=trained_count(folder),
        vocabulary=config.vocab_size,
        labels=LABELS,
        stored_precision="float16",
        base_size_bytes=base.size_bytes,
        base=tuple(Provenance.of(package, what, by) for package in base.packages),
        data=data_of(
            HELDOUT,
            {split.value: len(side) for split, side in material.sentences.items()},
            "the lukewarm rest is left out",
        ),
        scores=measured.scores,
        training=_training(fitted, recipe),
        licences={"weights": base.packages[0].licence, "data": VADER.licence},
        limits=LIMITS,
        files={},
    )


def _training(fitted: Fitted, recipe: Recipe) -> Training:
    return Training(
        method=METHOD,
        teachers=(),
        settings={**asdict(recipe), **SETTINGS},
        dev_accuracy_by_epoch=tuple(round(share, 4) for share in fitted.dev_accuracy_by_epoch),
        kept_epoch=recipe.epochs,
        wall_s=round(fitted.wall_s, 1),
        build_wall_s=round(fitted.wall_s, 1),
        threads=THREADS,
        libraries=versions(*TRAINED_WITH),
    )
