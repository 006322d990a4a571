"""A tiny tagger, always equal: a random encoder that labels tokens, with texts of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from small_checkpoints import WINDOW, byte_level, left_padded, sentences, small_model, wordpiece
from tokenizers import decoders
from transformers import PreTrainedModel

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-MISC", "I-MISC")


def model(family: str, vocabulary: int, own: dict[str, Any] | None) -> PreTrainedModel:
    """Return a random model of two layers that labels tokens; `own` are the parameters of its config for pipelines."""
    torch.manual_seed(7)
    return small_model(
        family,
        "ForTokenClassification",
        vocabulary,
        initializer_range=0.5,  # so that labels differ by more than the rounding of int8
        id2label=dict(enumerate(LABELS)),
        label2id={label: at for at, label in enumerate(LABELS)},
        task_specific_params=own,
    )


def make_tagger_checkpoint(folder: Path, family: str = "bert", *, aggregation: str | None = None) -> Path:
    """Write a checkpoint with texts of its own; `aggregation` is its own strategy."""
    folder.mkdir(parents=True, exist_ok=True)
    own = {"token-classification": {"aggregation_strategy": aggregation}} if aggregation else None
    if family == "bert":
        tokenizer, settings = wordpiece(), {"tokenizer_class": "BertTokenizerFast", "unk_token": "[UNK]"}
        tokenizer.decoder = decoders.WordPiece()
    elif family == "xlnet":
        tokenizer, settings = left_padded(), {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
        settings |= {"padding_side": "left", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        tokenizer.decoder = decoders.WordPiece()
    else:
        tokenizer, settings = byte_level(), {"tokenizer_class": "RobertaTokenizerFast", "unk_token": "<unk>"}
        tokenizer.decoder = decoders.ByteLevel()
    model(family, tokenizer.get_vocab_size(), own).save_pretrained(folder, safe_serialization=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": WINDOW}))
    rows = [{"text": one.text} for one in sentences(24, seed=4)]
    (folder / "verification.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder
