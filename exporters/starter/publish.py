"""A trained model to a folder anyone can serve, check and read about: weights, tokenizer, scores, manifest, card."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import DistilBertConfig, PreTrainedModel

from exporters.starter import distil
from exporters.starter.card import LIMITS, METHODS, card
from exporters.starter.data import LABELS, MIN_RATING, SPLIT_RULE, Split
from exporters.starter.learn import THREADS, Learned
from exporters.starter.manifest import FILENAME, Data, Manifest, Provenance, Scores, Training, write_manifest
from exporters.starter.material import RATING_SLOPE, Material
from exporters.starter.registry import MINILM, VADER, file_sha256
from exporters.starter.score import answers, by_source, score
from exporters.starter.vocabulary import write_tokenizer

TIERS = {distil.POLISHED_NAME: "quality", distil.NAME: "realtime"}
SETTINGS: dict[str, float | str] = {
    "rating_slope": RATING_SLOPE,
    "label_weight": distil.LABEL_WEIGHT,
    "temperature": distil.TEMPERATURE,
    "optimizer": "AdamW",
    "autocast": "bfloat16",
}
LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors")


def publish(learned: Learned, before: list[Learned], material: Material, heldout: Path, out: Path) -> Manifest:
    """Write one checkpoint's folder under `out` and answer with its manifest; `before` are the runs it built on."""
    folder = out / learned.lesson.name
    folder.mkdir(parents=True, exist_ok=True)
    write_model(learned.model, folder)
    student = isinstance(learned.model.config, DistilBertConfig)
    inputs = ["input_ids", "attention_mask"] if student else ["input_ids", "token_type_ids", "attention_mask"]
    write_tokenizer(material.tokenizer, folder, "DistilBertTokenizer" if student else "BertTokenizer", inputs)
    manifest = describe(learned, before, material, heldout, folder)
    (folder / "README.md").write_text(card(manifest), encoding="utf-8")
    files = {p.name: file_sha256(p) for p in sorted(folder.iterdir()) if p.name != FILENAME}
    manifest = manifest.model_copy(update={"files": files})
    write_manifest(manifest, folder)
    return manifest


def write_model(model: PreTrainedModel, folder: Path) -> None:
    """Write weights in fp16 with a config that asks for fp32: half the file, and no half-precision arithmetic."""
    config = {**model.config.to_diff_dict(), "architectures": [type(model).__name__], "dtype": "float32"}
    text = json.dumps(config, indent=2, sort_keys=True)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    weights = {name: tensor.to(torch.float16).contiguous() for name, tensor in model.state_dict().items()}
    path = folder / "model.safetensors"
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors writes for its owner alone; a checkpoint is for everyone


def describe(learned: Learned, before: list[Learned], material: Material, heldout: Path, folder: Path) -> Manifest:
    """The manifest of the files just written, scored from those files; it names no digests yet."""
    name, config = learned.lesson.name, learned.model.config
    is_student = name == distil.NAME
    sides = material.sentences
    said = answers(folder, sides[Split.HELDOUT])
    return Manifest(
        name=name,
        task="classify",
        tier=TIERS[name],
        family="DistilBERT" if is_student else "BERT",
        architecture=type(learned.model).__name__,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        parameters=sum(p.numel() for p in learned.model.parameters()),
        vocabulary=len(material.vocabulary.tokens),
        labels=LABELS,
        stored_precision="float16",
        base=Provenance(
            what="all-MiniLM-L6-v2 weights (sentence-transformers)",
            package=MINILM.name,
            version=MINILM.version,
            sha256=MINILM.sha256,
            licence=MINILM.licence,
            by="the sentence-transformers authors, from MiniLM by Microsoft",
        ),
        data=Data(
            origin=Provenance(
                what="VADER ground truth (hutto_ICWSM_2014)",
                package=VADER.name,
                version=VADER.version,
                sha256=VADER.sha256,
                licence=VADER.licence,
                by="C.J. Hutto and Eric Gilbert, ICWSM 2014",
            ),
            kept=f"|mean rating| >= {MIN_RATING}; the lukewarm rest is learnt from on the train side and never scored",
            split_rule=SPLIT_RULE,
            sentences={
                **{split.value: len(side) for split, side in sides.items()},
                "lukewarm": len(material.lukewarm),
                "lexicon": len(material.lexicon),
            },
            heldout_sha256=file_sha256(heldout),
        ),
        scores=Scores(
            heldout=score(sides[Split.HELDOUT], said),
            heldout_by_source=by_source(sides[Split.HELDOUT], said),
            dev=score(sides[Split.DEV], answers(folder, sides[Split.DEV])),
        ),
        training=_training(learned, before),
        licences={"weights": MINILM.licence, "data": VADER.licence},
        limits=LIMITS,
        files={},
    )


def _training(learned: Learned, before: list[Learned]) -> Training:
    lesson = learned.lesson
    return Training(
        method=METHODS[lesson.name],
        teachers=tuple(b.lesson.name for b in before),
        settings={**asdict(lesson.recipe), **SETTINGS},
        dev_accuracy_by_epoch=tuple(round(a, 4) for a in lesson.fitted.dev_accuracy_by_epoch),
        kept_epoch=lesson.fitted.kept_epoch + 1,
        wall_s=round(lesson.wall_s, 1),
        build_wall_s=round(lesson.wall_s + sum(b.lesson.wall_s for b in before), 1),
        threads=THREADS,
        libraries={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    )
