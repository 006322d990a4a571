"""A tiny BERT as a base for a head that fills masks: its folder, its tokenizer, and a few sentences on each side."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from small_checkpoints import SIZES, WINDOW, wordpiece
from transformers import BertConfig, BertModel

from exporters.starter.data import Split
from exporters.starter.fillers.build import Material
from exporters.starter.fillers.material import Text, Texts

LAYERS = SIZES["num_hidden_layers"]
SENTENCES = (
    "the film was very good and fine",
    "the food was slow, awful and cold",
    "i loved a great plot and acting",
    "the service was poor and it was bad",
)


def make_base(folder: Path) -> Path:
    """Writes a bare BERT of two layers, 32 wide, with random weights; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = wordpiece()
    tokenizer.add_special_tokens(["[MASK]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = BertConfig(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=WINDOW, **SIZES)
    config.save_pretrained(folder)
    save_file(BertModel(config).state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def material_of(base: Path) -> Material:
    """The same sentences on each side of the split, as reviews and as chat, and one everyday sentence."""
    everyday = base.parent / "everyday.jsonl"
    everyday.write_text('{"text": "the film was very [MASK]", "word": "good"}\n')
    texts = [Text(kind, sentence) for kind in ("chat", "reviews") for sentence in SENTENCES]
    return Material.of(Texts({split: texts for split in Split}, ("bookworm",)), base, everyday)
