"""A tiny checkpoint that fills masks, always equal: a random encoder, with texts of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from small_checkpoints import SIZES, WINDOW, byte_level, sentences, wordpiece, write_texts
from tokenizers import decoders
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    MobileBertConfig,
    MobileBertForMaskedLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

SHARED: dict[str, Any] = {"initializer_range": 0.5}
"""Weights far enough apart that words differ by more than the rounding of int8."""

FAMILIES: dict[str, tuple[str, Callable[[int], PreTrainedModel]]] = {
    "bert": (
        "BertTokenizerFast",
        lambda words: BertForMaskedLM(BertConfig(vocab_size=words, max_position_embeddings=WINDOW, **SIZES, **SHARED)),
    ),
    "distilbert": (
        "DistilBertTokenizerFast",
        lambda words: DistilBertForMaskedLM(
            DistilBertConfig(
                vocab_size=words, max_position_embeddings=WINDOW, dim=32, hidden_dim=64, n_layers=2, n_heads=2, **SHARED
            )
        ),
    ),
    "roberta": (
        "RobertaTokenizerFast",
        lambda words: RobertaForMaskedLM(
            RobertaConfig(vocab_size=words, max_position_embeddings=WINDOW + 2, pad_token_id=1, **SIZES, **SHARED)
        ),
    ),
    "albert": (
        "BertTokenizerFast",
        lambda words: AlbertForMaskedLM(
            AlbertConfig(vocab_size=words, embedding_size=16, max_position_embeddings=WINDOW, **SIZES, **SHARED)
        ),
    ),
    "electra": (
        "ElectraTokenizerFast",
        lambda words: ElectraForMaskedLM(
            ElectraConfig(vocab_size=words, embedding_size=16, max_position_embeddings=WINDOW, **SIZES, **SHARED)
        ),
    ),
    "mobilebert": (
        "BertTokenizerFast",
        lambda words: MobileBertForMaskedLM(
            MobileBertConfig(
                vocab_size=words,
                max_position_embeddings=WINDOW,
                embedding_size=16,
                intra_bottleneck_size=16,
                num_feedforward_networks=2,
                **SIZES,
                **SHARED,
            )
        ),
    ),
}
"""The class of the tokenizer, and what makes a random model of two layers."""


def make_filler_checkpoint(folder: Path, family: str = "bert", *, cleans: bool = True) -> Path:
    """Write a checkpoint with texts of its own; `cleans` says whether its tokenizer cleans what it writes."""
    folder.mkdir(parents=True, exist_ok=True)
    kind, model = FAMILIES[family]
    tokenizer = byte_level() if family == "roberta" else wordpiece()
    tokenizer.decoder = decoders.ByteLevel() if family == "roberta" else decoders.WordPiece(cleanup=False)
    names = ("<pad>", "<unk>", "<mask>") if family == "roberta" else ("[PAD]", "[UNK]", "[MASK]")
    torch.set_num_threads(1)  # with more threads, such small matrices only wait for each other
    torch.manual_seed(7)
    model(tokenizer.get_vocab_size()).save_pretrained(folder, safe_serialization=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = dict(zip(("pad_token", "unk_token", "mask_token"), names, strict=True))
    settings = {"tokenizer_class": kind, "model_max_length": WINDOW, "clean_up_tokenization_spaces": cleans, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    write_texts(folder, sentences(24, seed=4), labelled=False)
    return folder
