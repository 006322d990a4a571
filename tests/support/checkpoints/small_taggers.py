"""A tiny tagger, always equal: a random encoder that labels tokens, with texts of its own."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from small_checkpoints import SIZES, WINDOW, sentences, wordpiece
from transformers import BertConfig, BertForTokenClassification

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-MISC", "I-MISC")


def make_tagger_checkpoint(folder: Path, *, aggregation: str | None = None, window: int = WINDOW) -> Path:
    """Write a checkpoint with texts of its own; `aggregation` is its own strategy, `window` its tokenizer's."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = wordpiece()
    own = {"token-classification": {"aggregation_strategy": aggregation}} if aggregation else None
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=WINDOW,
        initializer_range=0.5,  # so that labels differ by more than the rounding of int8
        id2label=dict(enumerate(LABELS)),
        label2id={label: at for at, label in enumerate(LABELS)},
        task_specific_params=own,
        **SIZES,
    )
    BertForTokenClassification(config).save_pretrained(folder, safe_serialization=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "BertTokenizerFast", "model_max_length": window, "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    rows = [{"text": one.text} for one in sentences(24, seed=4)]
    (folder / "verification.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder
