"""A tiny checkpoint that finds answers, always equal: a random encoder, with contexts and questions of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from small_checkpoints import WINDOW, byte_level, sentences, small_model, wordpiece
from tokenizers import Tokenizer, processors

SHARED: dict[str, Any] = {"initializer_range": 0.5}
"""Weights far enough apart that answers differ by more than the rounding of int8."""

FAMILIES = ("bert", "distilbert", "roberta", "albert", "electra")
TOKENIZERS = {
    "distilbert": "DistilBertTokenizerFast",
    "roberta": "RobertaTokenizerFast",
    "electra": "ElectraTokenizerFast",
    "longformer": "RobertaTokenizerFast",  # which PyTorch alone runs
}
"""The class of the tokenizer, where it is not BERT's."""


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
    tokenizer = pairing(family)
    torch.set_num_threads(1)  # with more threads, such small matrices only wait for each other
    torch.manual_seed(7)
    more = SHARED | ({"sep_token_id": 2} if family == "longformer" else {})
    model = small_model(family, "ForQuestionAnswering", tokenizer.get_vocab_size(), **more)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": TOKENIZERS.get(family, "BertTokenizerFast"), "model_max_length": WINDOW, **told}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    texts = [one.text for one in sentences(24, seed=4)]
    rows = [{"text": " . ".join(texts[at : at + 1 + at % 4]), "question": "was it good ?"} for at in range(20)]
    (folder / "verification.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder
