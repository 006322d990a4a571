"""Odd but realistic variations of a tiny DistilBERT, as checkpoints on the Hub have them, and what transformers says.

Its weights stay fitted, so that each has scores that tell its texts apart.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from gateway.tasks.classify import LabelScore

WEIGHTS = "model.safetensors"
MOODS = ["positive_mood", "recommends", "complaint", "never_used"]


def varied(checkpoint: Path, folder: Path, odd: Callable[[Path], None]) -> Path:
    """Copy the checkpoint and make the copy odd."""
    shutil.copytree(checkpoint, folder)
    odd(folder)
    return folder


def edited(file: str, **changes: Any) -> Callable[[Path], None]:
    """Return what changes fields of a JSON file; None removes one."""

    def edit(folder: Path) -> None:
        document = json.loads((folder / file).read_bytes())
        document.update(changes)
        (folder / file).write_text(json.dumps({name: value for name, value in document.items() if value is not None}))

    return edit


def headed(rows: Sequence[tuple[int, float]], **changes: Any) -> Callable[[Path], None]:
    """Return what gives the checkpoint a head of these rows, each a row of its own and a factor, and such a config."""

    def change(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        for name in ("classifier.weight", "classifier.bias"):
            weights[name] = torch.stack([weights[name][row] * factor for row, factor in rows])
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
        edited("config.json", **changes)(folder)

    return change


def named(*labels: str) -> dict[str, Any]:
    """Return the fields of a config.json that name the labels."""
    return {"id2label": dict(enumerate(labels)), "label2id": {label: at for at, label in enumerate(labels)}}


FOUR = [(1, 1.0), (1, 0.7), (0, 1.0), (0, -0.5)]
HEADS: dict[str, tuple[Callable[[Path], None], str]] = {
    "regression": (headed([(1, 1.0)], problem_type="regression", **named("LABEL_0")), "none"),
    "one label": (headed([(1, 1.0)], **named("relevance")), "sigmoid"),
    "several numbers": (headed(FOUR, problem_type="regression", **named(*MOODS)), "none"),
    "independent labels": (headed(FOUR, problem_type="multi_label_classification", **named(*MOODS)), "sigmoid"),
    "one label of four": (headed(FOUR, problem_type="single_label_classification", **named(*MOODS)), "softmax"),
    "labels by number": (edited("config.json", id2label=None, label2id=None, num_labels=2), "softmax"),
    "labels unnamed": (edited("config.json", id2label=None, label2id=None), "softmax"),
    "cut on the left": (edited("tokenizer_config.json", truncation_side="left"), "softmax"),
}
"""What is done to a checkpoint of two labels, and the function that transformers' pipeline then applies."""


PIECES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "albert": (
        "spiece.model",
        "AlbertTokenizer",
        {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "user_defined_symbols": "[CLS],[SEP],[MASK]"},
    ),
    "roberta": ("sentencepiece.bpe.model", "XLMRobertaTokenizer", {}),
    "deberta": (
        "spm.model",
        "DebertaV2Tokenizer",
        {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "pad_piece": "[PAD]", "unk_piece": "[UNK]"}
        | {"bos_piece": "[CLS]", "eos_piece": "[SEP]"},
    ),
}
"""The file of SentencePiece in checkpoints of a family, its tokenizer, and how it was trained."""


def make_pieces(folder: Path, family: str, texts: Sequence[str]) -> Path:
    """Write a checkpoint with a tokenizer of SentencePiece alone, trained on the texts, and weights by chance."""
    import sentencepiece
    from small_checkpoints import WINDOW, classifier, sentences, write_texts

    folder.mkdir()
    file, tokenizer, rules = PIECES[family]
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=trained,
        vocab_size=80,
        hard_vocab_limit=False,
        minloglevel=2,
        **rules,
    )
    (folder / file).write_bytes(trained.getvalue())
    torch.manual_seed(7)
    classifier(family, 100).save_pretrained(folder)
    said = {"tokenizer_class": tokenizer, "model_max_length": WINDOW}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    write_texts(folder, sentences(40))
    return folder


def pipeline_scores(checkpoint: Path, inputs: Sequence[Any], window: int) -> list[list[LabelScore]]:
    """Return what transformers' own pipeline answers: all labels, best first."""
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(checkpoint), device="cpu", dtype=torch.float32)
    told = [classify(one, top_k=None, truncation=True, max_length=window) for one in inputs]
    return [[LabelScore(one["label"], one["score"]) for one in scores] for scores in told]
