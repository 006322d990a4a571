"""A tiny MPNet as a base: its folder, its tokenizer of MPNet's kind, and four sentences on each side of the split."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import MPNetConfig, MPNetModel

from exporters.starter.adapter.material import Material
from exporters.starter.data import LABELS, Split
from exporters.starter.vocabulary import full_tokenizer
from exporters.texts import Sentence

LAYERS = 4
WINDOW = 64
TEXTS = {"positive": ("the film was good", "a grand plot"), "negative": ("the plot is dull", "a bad film")}
WORDS = ["a", "bad", "dull", "film", "good", "grand", "is", "plot", "the", "was"]


def make_base(folder: Path) -> Path:
    """Writes a bare MPNet of four layers, 24 wide, with random weights; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>", *WORDS]
    tokenizer = Tokenizer(models.WordPiece({piece: at for at, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>", length=WINDOW)
    tokenizer.enable_truncation(WINDOW)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "MPNetTokenizer", "model_max_length": WINDOW, "unk_token": "[UNK]"})
    )
    torch.manual_seed(0)
    config = MPNetConfig(
        vocab_size=len(pieces),
        hidden_size=24,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=WINDOW + 2,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    config.save_pretrained(folder)
    save_file(MPNetModel(config).state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def material_of(base: Path) -> Material:
    """The same four sentences on each side of the split."""
    rated = [
        Sentence(text, label, 2.0 if label == "positive" else -2.0, "tweets")
        for label in LABELS
        for text in TEXTS[label]
    ]
    return Material({split: rated for split in Split}, base, full_tokenizer(base))
