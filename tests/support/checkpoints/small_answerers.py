"""A tiny checkpoint that finds answers, always equal: a random encoder, with contexts and questions of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from small_checkpoints import SIZES, WINDOW, byte_level, sentences, wordpiece
from tokenizers import Tokenizer, processors
from transformers import (
    AlbertConfig,
    AlbertForQuestionAnswering,
    BertConfig,
    BertForQuestionAnswering,
    DistilBertConfig,
    DistilBertForQuestionAnswering,
    ElectraConfig,
    ElectraForQuestionAnswering,
    LongformerConfig,
    LongformerForQuestionAnswering,
    PreTrainedModel,
    RobertaConfig,
    RobertaForQuestionAnswering,
)

SHARED: dict[str, Any] = {"initializer_range": 0.5}
"""Weights far enough apart that answers differ by more than the rounding of int8."""

FAMILIES: dict[str, tuple[str, Callable[[int], PreTrainedModel]]] = {
    "bert": (
        "BertTokenizerFast",
        lambda words: BertForQuestionAnswering(
            BertConfig(vocab_size=words, max_position_embeddings=WINDOW, **SIZES, **SHARED)
        ),
    ),
    "distilbert": (
        "DistilBertTokenizerFast",
        lambda words: DistilBertForQuestionAnswering(
            DistilBertConfig(
                vocab_size=words, max_position_embeddings=WINDOW, dim=32, hidden_dim=64, n_layers=2, n_heads=2, **SHARED
            )
        ),
    ),
    "roberta": (
        "RobertaTokenizerFast",
        lambda words: RobertaForQuestionAnswering(
            RobertaConfig(vocab_size=words, max_position_embeddings=WINDOW + 2, pad_token_id=1, **SIZES, **SHARED)
        ),
    ),
    "albert": (
        "BertTokenizerFast",
        lambda words: AlbertForQuestionAnswering(
            AlbertConfig(vocab_size=words, embedding_size=16, max_position_embeddings=WINDOW, **SIZES, **SHARED)
        ),
    ),
    "electra": (
        "ElectraTokenizerFast",
        lambda words: ElectraForQuestionAnswering(
            ElectraConfig(vocab_size=words, embedding_size=16, max_position_embeddings=WINDOW, **SIZES, **SHARED)
        ),
    ),
}
"""The class of the tokenizer, and what makes a random model of two layers."""


def longformer(words: int) -> PreTrainedModel:
    """Return a random model that attends to a question from everywhere, and else within a window."""
    positions = {"attention_window": 8, "max_position_embeddings": WINDOW + 2, "pad_token_id": 1, "sep_token_id": 2}
    sizes: dict[str, Any] = {"vocab_size": words, **positions, **SIZES, **SHARED}
    return LongformerForQuestionAnswering(LongformerConfig(**sizes))


WITHOUT_GRAPH = {"longformer": ("RobertaTokenizerFast", longformer)}
"""Families that PyTorch alone runs, as `FAMILIES`."""


def pairing(family: str) -> Tokenizer:
    """Return the family's tokenizer; of BERT's kind it says which of two texts a token is of."""
    if family in ("roberta", "longformer"):
        return byte_level()
    tokenizer = wordpiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def make_answerer_checkpoint(folder: Path, family: str = "bert", **told: object) -> Path:
    """Write a checkpoint with contexts of its own, of one window or several; `told` are settings of its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, (kind, model) = pairing(family), (FAMILIES | WITHOUT_GRAPH)[family]
    torch.set_num_threads(1)  # with more threads, such small matrices only wait for each other
    torch.manual_seed(7)
    model(tokenizer.get_vocab_size()).save_pretrained(folder, safe_serialization=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": kind, "model_max_length": WINDOW, **told}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    texts = [one.text for one in sentences(24, seed=4)]
    rows = [{"text": " . ".join(texts[at : at + 1 + at % 4]), "question": "was it good ?"} for at in range(20)]
    (folder / "verification.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder
