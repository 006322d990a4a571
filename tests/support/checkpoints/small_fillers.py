"""A tiny checkpoint that fills masks, always equal: a random encoder, with texts of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from small_checkpoints import WINDOW, byte_level, sentences, small_model, wordpiece, write_texts
from tokenizers import decoders

SHARED: dict[str, Any] = {"initializer_range": 0.5}
"""Weights far enough apart that words differ by more than the rounding of int8."""

FAMILIES = ("bert", "distilbert", "roberta", "albert", "electra", "mobilebert")
TOKENIZERS = {
    "distilbert": "DistilBertTokenizerFast",
    "roberta": "RobertaTokenizerFast",
    "electra": "ElectraTokenizerFast",
}
"""The class of the tokenizer, where it is not BERT's."""


def make_filler_checkpoint(folder: Path, family: str = "bert", *, cleans: bool = True) -> Path:
    """Write a checkpoint with texts of its own; `cleans` says whether its tokenizer cleans what it writes."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_level() if family == "roberta" else wordpiece()
    tokenizer.decoder = decoders.ByteLevel() if family == "roberta" else decoders.WordPiece(cleanup=False)
    names = ("<pad>", "<unk>", "<mask>") if family == "roberta" else ("[PAD]", "[UNK]", "[MASK]")
    torch.set_num_threads(1)  # with more threads, such small matrices only wait for each other
    torch.manual_seed(7)
    model = small_model(family, "ForMaskedLM", tokenizer.get_vocab_size(), **SHARED)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = dict(zip(("pad_token", "unk_token", "mask_token"), names, strict=True))
    kind = TOKENIZERS.get(family, "BertTokenizerFast")
    settings = {"tokenizer_class": kind, "model_max_length": WINDOW, "clean_up_tokenization_spaces": cleans, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    write_texts(folder, sentences(24, seed=4), labelled=False)
    return folder
