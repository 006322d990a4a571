"""Writes the trained summariser's folder: weights, tokenizer, manifest and card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import BartForConditionalGeneration

from deployments.replica.variant import file_sha256
from exporters.starter.cards import minilm
from exporters.starter.command import THREADS
from exporters.starter.packages import MINILM
from exporters.starter.publishing import TRAINED_WITH, seal, versions, write_weights
from exporters.starter.software.card import DATA_LICENCE, LIMITS, METHOD, Data, SummariserManifest, Training, card
from exporters.starter.software.decoding import Settings, write_generation
from exporters.starter.software.descriptions import KEPT
from exporters.starter.software.families import SPLIT_RULE
from exporters.starter.software.fit import Fitted, Recipe
from exporters.starter.software.material import Material
from exporters.starter.software.score import Measured
from exporters.starter.vocabulary import write_tokenizer

NAME = "bart-software"
TIER = "quality"
TIED = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
"""The other names of BART's shared embedding table, which is written once."""


@dataclass(frozen=True)
class Trained:
    """A trained model in fp32, with its training record and its number of batches per epoch."""

    model: BartForConditionalGeneration
    recipe: Recipe
    fitted: Fitted
    epoch_steps: int


def write_checkpoint(
    model: BartForConditionalGeneration, tokenizer: Mapping[str, Any], settings: Settings, folder: Path
) -> None:
    """Writes weights in fp16 with a config of fp32, the tokenizer, and the generation settings."""
    write_weights(model, folder, left_out=TIED)
    write_tokenizer(tokenizer, folder, "BertTokenizer", ["input_ids", "attention_mask"])
    write_generation(model.config, settings, folder)


def describe(
    trained: Trained, material: Material, settings: Settings, measured: Measured, heldout: Path, folder: Path
) -> SummariserManifest:
    """Writes the card and the manifest into the checkpoint's folder, and returns the manifest."""
    config = trained.model.config
    manifest = SummariserManifest(
        name=NAME,
        task="summarize",
        tier=TIER,
        family="BART",
        architecture=type(trained.model).__name__,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        width=config.d_model,
        parameters=sum(p.numel() for p in trained.model.parameters()),
        vocabulary=len(material.vocabulary.tokens),
        stored_precision="float16",
        text_tokens=trained.recipe.text_tokens,
        generation=settings,
        base=minilm(),
        data=_data(material, heldout),
        heldout=measured.heldout,
        dev=measured.dev,
        training=_training(trained),
        examples=measured.examples,
        licences={"weights": MINILM.licence, "data": DATA_LICENCE},
        limits=LIMITS,
        files={},
    )
    return seal(folder, manifest, card(manifest))


def _data(material: Material, heldout: Path) -> Data:
    return Data(
        what="package descriptions and their synopses (Translation-en)",
        by="the maintainers of Debian's packages",
        releases=material.releases,
        licence=DATA_LICENCE,
        kept=KEPT,
        split_rule=SPLIT_RULE,
        pairs={side.value: len(found) for side, found in material.sides.items()},
        heldout_sha256=file_sha256(heldout),
    )


def _training(trained: Trained) -> Training:
    return Training(
        method=METHOD,
        settings={**asdict(trained.recipe), "optimizer": "AdamW", "autocast": "bfloat16"},
        steps=trained.fitted.steps,
        epochs=round(trained.fitted.steps / trained.epoch_steps, 2),
        loss=trained.fitted.loss,
        wall_s=trained.fitted.wall_s,
        threads=THREADS,
        libraries=versions(*TRAINED_WITH, "rouge-score"),
    )
