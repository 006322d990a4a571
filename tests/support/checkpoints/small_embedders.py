"""A tiny embedder, always equal: a random encoder with the files that sentence-transformers puts beside one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from small_checkpoints import WINDOW, sentences, wordpiece
from transformers import BertConfig, BertModel, MPNetConfig, MPNetModel, PreTrainedModel, RobertaConfig, RobertaModel

DIMENSIONS = 32
SIZES = {
    "hidden_size": DIMENSIONS,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "initializer_range": 0.5,  # so that texts differ by more than the rounding of int8
}
LENGTH = 24
"""The window by the embedder's own configuration, under that of its positions."""


def encoder(family: str, vocabulary: int) -> PreTrainedModel:
    """Return a random encoder of two layers."""
    torch.manual_seed(5)
    if family == "bert":
        return BertModel(BertConfig(vocab_size=vocabulary, max_position_embeddings=WINDOW, **SIZES))
    if family == "mpnet":
        return MPNetModel(MPNetConfig(vocab_size=vocabulary, max_position_embeddings=WINDOW + 2, **SIZES))
    return RobertaModel(
        RobertaConfig(vocab_size=vocabulary, max_position_embeddings=WINDOW + 2, pad_token_id=0, **SIZES)
    )


def make_embedder_checkpoint(
    folder: Path,
    family: str = "bert",
    pooling: Sequence[str] = ("mean_tokens",),
    *,
    normalize: bool = True,
    prompts: Mapping[str, str] | None = None,
    summaries: bool = True,
) -> Path:
    """Write a checkpoint with its configuration of pooling, texts of its own and, if asked for, their summaries."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = wordpiece()
    encoder(family, tokenizer.get_vocab_size()).save_pretrained(folder, safe_serialization=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizerFast", "model_max_length": WINDOW})
    )
    modules = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    rows = [
        {"idx": at, "name": str(at), "path": paths[at], "type": f"sentence_transformers.models.{kind}"}
        for at, kind in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(rows))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    config = {f"pooling_mode_{name}": True for name in pooling} | {"word_embedding_dimension": DIMENSIONS}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": LENGTH, "do_lower_case": False}))
    if prompts:
        (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": dict(prompts)}))
    texts = [one.text for one in sentences(40)]
    lines = [{"text": text} | ({"summary": " ".join(text.split()[:-1])} if summaries else {}) for text in texts]
    (folder / "verification.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder
