"""Checkpoints of the real architectures, tiny and the same every time: what the export tests work on.

Each is fitted, in some dozens of steps, to tell texts of good words from texts of bad ones, so that a label is decided
by more than the rounding of int8.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    MobileBertConfig,
    MobileBertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from deployments.engines.base import padded

GOOD = ["good", "great", "loved", "fast", "fine", "warm"]
BAD = ["bad", "awful", "hated", "slow", "poor", "cold"]
NEUTRAL = ["the", "a", "film", "was", "very", "and", "i", "it", "plot", "acting", "food", "service"]
WORDS = (*GOOD, *BAD, *NEUTRAL)
WINDOW = 64
STEPS = 25
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
LABEL_IDS = {"negative": 0, "positive": 1}
LABELS = {"id2label": {at: label for label, at in LABEL_IDS.items()}, "label2id": LABEL_IDS}


def wordpiece() -> Tokenizer:
    """BERT's kind of tokenizer over whole words, letters and a few marks, uncased."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys([*WORDS, *letters, *".,!?'"])]
    pieces += [f"##{letter}" for letter in letters]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def byte_level() -> Tokenizer:
    """RoBERTa's kind of tokenizer: bytes, `<s>` and `</s>`, padding at id 1."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({piece: place for place, piece in enumerate(pieces)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def distilbert(vocabulary: int) -> PreTrainedModel:
    """Two layers, no token types."""
    config = DistilBertConfig(
        vocab_size=vocabulary,
        max_position_embeddings=WINDOW,
        dim=32,
        hidden_dim=64,
        n_layers=2,
        n_heads=2,
        **LABELS,
    )
    return DistilBertForSequenceClassification(config)


def bert(vocabulary: int) -> PreTrainedModel:
    """Two layers, token types."""
    return BertForSequenceClassification(
        BertConfig(vocab_size=vocabulary, max_position_embeddings=WINDOW, **SIZES, **LABELS)
    )


def mobilebert(vocabulary: int) -> PreTrainedModel:
    """Two bottlenecked layers, which know no layer norm."""
    config = MobileBertConfig(
        vocab_size=vocabulary,
        max_position_embeddings=WINDOW,
        embedding_size=16,
        intra_bottleneck_size=16,
        num_feedforward_networks=2,
        **SIZES,
        **LABELS,
    )
    return MobileBertForSequenceClassification(config)


def roberta(vocabulary: int) -> PreTrainedModel:
    """Two layers whose positions start after the padding id, so the window is two shorter than the table."""
    return RobertaForSequenceClassification(
        RobertaConfig(vocab_size=vocabulary, max_position_embeddings=WINDOW + 2, pad_token_id=1, **SIZES, **LABELS)
    )


FAMILIES: dict[str, Callable[[int], PreTrainedModel]] = {
    "distilbert": distilbert,
    "bert": bert,
    "mobilebert": mobilebert,
    "roberta": roberta,
}


def make_checkpoint(folder: Path, family: str = "distilbert", half: bool = True) -> Path:
    """Writes a checkpoint of the family: config, safetensors (fp16 like the starters, or fp32), tokenizer, texts."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_level() if family == "roberta" else wordpiece()
    torch.manual_seed(7)
    model = FAMILIES[family](tokenizer.get_vocab_size())
    _fit(model, tokenizer)
    (model.half() if half else model).save_pretrained(folder, safe_serialization=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    kind = {"roberta": "RobertaTokenizerFast", "distilbert": "DistilBertTokenizerFast"}.get(family, "BertTokenizerFast")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind, "model_max_length": WINDOW}))
    write_texts(folder, sentences(60))
    return folder


@dataclass(frozen=True)
class Example:
    """A text with the label that its words give it."""

    text: str
    label: str


def sentences(count: int, seed: int = 11) -> list[Example]:
    """Texts of 3 to 30 words, good or bad ones among the neutral, the same every time."""
    chance = random.Random(seed)
    found = []
    for at in range(count):
        label, telling = (("negative", BAD), ("positive", GOOD))[at % 2]
        words = [chance.choice(telling if chance.random() < 0.5 else NEUTRAL) for _ in range(chance.randint(2, 29))]
        found.append(Example(" ".join([chance.choice(telling), *words]), label))
    return found


def write_texts(folder: Path, examples: list[Example], labelled: bool = True) -> None:
    """Gives the checkpoint verification texts of its own, with labels or without."""
    rows = [{"text": one.text} | ({"label": one.label} if labelled else {}) for one in examples]
    (folder / "verification.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def make_unquantisable(folder: Path) -> None:
    """Gives a DistilBERT outlier weights on features that are always zero: nothing to fp32, ruin to int8.

    One weight of 1000 sets the scale of its whole channel, whose other weights all round to zero.
    """
    weights = load_file(folder / "model.safetensors")
    for name, weight in weights.items():
        if ".v_lin." in name or ".lin1." in name:
            weight[0] = 0
        if name.endswith((".out_lin.weight", ".lin2.weight")):
            weight[:, 0] = 1000
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _fit(model: PreTrainedModel, tokenizer: Tokenizer) -> None:
    """A few steps of Adam over the whole tiny model, without dropout, so that it is quick and repeatable."""
    examples = sentences(64, seed=3)
    rows = [tokenizer.encode(one.text).ids[:WINDOW] for one in examples]
    batch = padded(rows, model.config.pad_token_id or 0)
    targets = torch.tensor([LABEL_IDS[one.label] for one in examples])
    model.eval()
    torch.set_num_threads(1)  # such small matrices only wait for each other on more
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        logits = model(torch.from_numpy(batch.token_ids), torch.from_numpy(batch.attention_mask)).logits
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(logits, targets).backward()
        optimiser.step()
