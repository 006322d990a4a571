"""The trained model to a folder anyone can serve, check and read about: weights, tokenizer, manifest, card."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import BartForConditionalGeneration

from exporters.starter.data import Split
from exporters.starter.learn import THREADS
from exporters.starter.manifest import FILENAME, Provenance
from exporters.starter.publish import LIBRARIES
from exporters.starter.registry import MINILM, file_sha256
from exporters.starter.software.card import DATA_LICENCE, LIMITS, METHOD, card
from exporters.starter.software.decoding import Settings, write_generation
from exporters.starter.software.descriptions import KEPT
from exporters.starter.software.families import SPLIT_RULE
from exporters.starter.software.fit import Fitted, Recipe
from exporters.starter.software.manifest import Data, SummariserManifest, Training, write_summariser
from exporters.starter.software.material import Material
from exporters.starter.software.score import Measured
from exporters.starter.vocabulary import write_tokenizer

NAME = "bart-software"
TIER = "quality"
TIED = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
"""The names under which BART holds its one table of words again; it is written once."""


@dataclass(frozen=True)
class Trained:
    """A trained model, still in fp32, with how it was trained and on how many batches an epoch."""

    model: BartForConditionalGeneration
    recipe: Recipe
    fitted: Fitted
    epoch_steps: int


def write_checkpoint(
    model: BartForConditionalGeneration, tokenizer: Mapping[str, Any], settings: Settings, folder: Path
) -> None:
    """Write all that answering needs: weights in fp16 with a config that asks for fp32, tokenizer, settings."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**model.config.to_diff_dict(), "architectures": [type(model).__name__], "dtype": "float32"}
    text = json.dumps(config, indent=2, sort_keys=True)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    weights = {name: t.to(torch.float16).contiguous() for name, t in model.state_dict().items() if name not in TIED}
    path = folder / "model.safetensors"
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors writes for its owner alone; a checkpoint is for everyone
    write_tokenizer(tokenizer, folder, "BertTokenizer", ["input_ids", "attention_mask"])
    write_generation(model.config, settings, folder)


def describe(
    trained: Trained, material: Material, settings: Settings, measured: Measured, heldout: Path, folder: Path
) -> SummariserManifest:
    """Write the card and the manifest beside the files just written, and answer with the manifest."""
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
        base=_base(),
        data=_data(material, heldout),
        heldout=measured.heldout,
        dev=measured.dev,
        training=_training(trained),
        examples=measured.examples,
        licences={"weights": MINILM.licence, "data": DATA_LICENCE},
        limits=LIMITS,
        files={},
    )
    (folder / "README.md").write_text(card(manifest), encoding="utf-8")
    files = {p.name: file_sha256(p) for p in sorted(folder.iterdir()) if p.name != FILENAME}
    manifest = manifest.model_copy(update={"files": files})
    write_summariser(manifest, folder)
    return manifest


def move(folder: Path, target: Path) -> None:
    """Put the folder's files in the target's place, each in one step and the manifest last; the folder is gone then."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir(), key=lambda path: (path.name == FILENAME, path.name)):
        os.replace(path, target / path.name)
    folder.rmdir()


def _base() -> Provenance:
    return Provenance(
        what="all-MiniLM-L6-v2 weights (sentence-transformers)",
        package=MINILM.name,
        version=MINILM.version,
        sha256=MINILM.sha256,
        licence=MINILM.licence,
        by="the sentence-transformers authors, from MiniLM by Microsoft",
    )


def _data(material: Material, heldout: Path) -> Data:
    return Data(
        what="package descriptions and their synopses (Translation-en)",
        by="the maintainers of Debian's packages",
        releases=material.releases,
        licence=DATA_LICENCE,
        kept=KEPT,
        split_rule=SPLIT_RULE,
        pairs=_counts(material.sides),
        heldout_sha256=file_sha256(heldout),
    )


def _counts(sides: Mapping[Split, Sequence[object]]) -> dict[str, int]:
    return {side.value: len(found) for side, found in sides.items()}


def _training(trained: Trained) -> Training:
    return Training(
        method=METHOD,
        settings={**asdict(trained.recipe), "optimizer": "AdamW", "autocast": "bfloat16"},
        steps=trained.fitted.steps,
        epochs=round(trained.fitted.steps / trained.epoch_steps, 2),
        loss=trained.fitted.loss,
        wall_s=trained.fitted.wall_s,
        threads=THREADS,
        libraries={
            "python": platform.python_version(),
            **{name: version(name) for name in (*LIBRARIES, "rouge-score")},
        },
    )
