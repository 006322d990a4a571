"""Tiny checkpoints of the real architectures, always equal, for the export tests.

Each is fitted, in 25 steps, to tell texts of good words from texts of bad ones, so that a label is decided by more than
the rounding of int8.
"""

from __future__ import annotations

import json
import random
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedModel

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
    """Return a tokenizer of BERT's kind over whole words, letters and a few marks, uncased."""
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
    """Return a tokenizer of RoBERTa's kind: bytes, `<s>` and `</s>`, padding at id 1."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({piece: place for place, piece in enumerate(pieces)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def left_padded() -> Tokenizer:
    """Return a tokenizer of XLNet's kind over the pieces of BERT's: `<sep> <cls>` at the end, the last of type 2."""
    tokenizer = wordpiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A:0 [SEP]:0 [CLS]:2",
        pair="$A:0 [SEP]:0 $B:1 [SEP]:1 [CLS]:2",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


_BEHIND_PADDING = {"max_position_embeddings": WINDOW + 2, "pad_token_id": 1}
"""Positions that start after the padding id, so that a window is two below its table."""

ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "distilbert": (
        "DistilBert",
        {"max_position_embeddings": WINDOW, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2},
    ),
    "bert": ("Bert", {"max_position_embeddings": WINDOW, **SIZES}),
    "mobilebert": (
        "MobileBert",
        {
            "max_position_embeddings": WINDOW,
            "embedding_size": 16,
            "intra_bottleneck_size": 16,
            "num_feedforward_networks": 2,
            **SIZES,
        },
    ),
    "roberta": ("Roberta", {**_BEHIND_PADDING, **SIZES}),
    "xlm-roberta": ("XLMRoberta", {**_BEHIND_PADDING, **SIZES}),
    "camembert": ("Camembert", {**_BEHIND_PADDING, **SIZES}),
    "albert": ("Albert", {"max_position_embeddings": WINDOW, "embedding_size": 16, **SIZES}),
    "electra": ("Electra", {"max_position_embeddings": WINDOW, "embedding_size": 16, **SIZES}),
    "deberta": (
        "DebertaV2",
        {
            "max_position_embeddings": WINDOW,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "type_vocab_size": 0,
            **SIZES,
        },
    ),
    "bart": (
        "Bart",
        {
            "max_position_embeddings": WINDOW,
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "pad_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "decoder_start_token_id": 3,
            "forced_eos_token_id": None,
        },
    ),
    "gpt2": ("GPT2", {"n_positions": WINDOW, "n_embd": 32, "n_layer": 2, "n_head": 2, "pad_token_id": 0}),
    "convbert": ("ConvBert", {"max_position_embeddings": WINDOW, "embedding_size": 16, **SIZES}),
    "longformer": ("Longformer", {"attention_window": 8, **_BEHIND_PADDING, **SIZES}),
    "layoutlm": ("LayoutLM", {"max_position_embeddings": WINDOW, **SIZES}),
    "xlnet": ("XLNet", {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64, "pad_token_id": 0}),
}
"""Each family by transformers' name, with the sizes of a model of two layers."""

FAMILIES = ("distilbert", "bert", "mobilebert", "roberta")
FURTHER_FAMILIES = tuple(family for family in ENCODERS if family not in FAMILIES)
"""Families of which not every law is tried."""


def small_model(family: str, head: str, vocabulary: int, **more: Any) -> PreTrainedModel:
    """Return a random model of a family with a head, such as `ForMaskedLM`; `more` are fields of its config."""
    name, sizes = ENCODERS[family]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # DeBERTa's module uses torch.jit.script, which torch has deprecated
        config, model = getattr(transformers, f"{name}Config"), getattr(transformers, f"{name}{head}")
    made: PreTrainedModel = model(config(vocab_size=vocabulary, **sizes, **more))
    return made


def classifier(family: str, vocabulary: int) -> PreTrainedModel:
    """Return a random model of a family that tells two labels apart."""
    model = small_model(family, "ForSequenceClassification", vocabulary, **LABELS)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if family == "xlnet" and name.endswith((".seg_embed", ".r_s_bias")):
                weight.normal_()  # so that a wrong token type shows
    return model


OF_ROBERTA = ("roberta", "xlm-roberta", "camembert")
TOKENIZERS = {
    **dict.fromkeys(OF_ROBERTA, "RobertaTokenizerFast"),
    "distilbert": "DistilBertTokenizerFast",
    "xlnet": "PreTrainedTokenizerFast",
}


def make_checkpoint(folder: Path, family: str = "distilbert", half: bool = True) -> Path:
    """Write a checkpoint of the family: config, safetensors (fp16 like the starters, or fp32), tokenizer, texts."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = {**dict.fromkeys(OF_ROBERTA, byte_level), "xlnet": left_padded}.get(family, wordpiece)()
    torch.manual_seed(7)
    model = classifier(family, tokenizer.get_vocab_size())
    _fit(model, tokenizer)
    (model.half() if half else model).save_pretrained(folder, safe_serialization=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    said: dict[str, object] = {"tokenizer_class": TOKENIZERS.get(family, "BertTokenizerFast")}
    said["model_max_length"] = WINDOW
    if family == "xlnet":
        said |= {"padding_side": "left", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    if family in ("bart", "gpt2"):
        said["model_input_names"] = ["input_ids", "attention_mask"]
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    write_texts(folder, sentences(60))
    return folder


@dataclass(frozen=True)
class Example:
    """A text with the label that its words give it."""

    text: str
    label: str


def sentences(count: int, seed: int = 11) -> list[Example]:
    """Return texts of 3 to 30 words, good or bad ones among neutral ones, equal at every call."""
    chance = random.Random(seed)
    found = []
    for at in range(count):
        label, telling = (("negative", BAD), ("positive", GOOD))[at % 2]
        words = [chance.choice(telling if chance.random() < 0.5 else NEUTRAL) for _ in range(chance.randint(2, 29))]
        found.append(Example(" ".join([chance.choice(telling), *words]), label))
    return found


def write_texts(folder: Path, examples: list[Example], labelled: bool = True) -> None:
    """Give the checkpoint verification texts of its own, with labels or without."""
    rows = [{"text": one.text} | ({"label": one.label} if labelled else {}) for one in examples]
    (folder / "verification.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def make_unquantisable(folder: Path) -> None:
    """Give a DistilBERT outlier weights on features that are always zero: harmless to fp32, ruinous to int8.

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
    """Fit the whole tiny model by a few steps of Adam, without dropout, so that it is quick and repeatable."""
    examples = sentences(64, seed=3)
    rows = [tokenizer.encode(one.text).ids[:WINDOW] for one in examples]
    batch = padded(rows, model.config.pad_token_id or 0)
    if model.config.model_type == "xlnet":  # which classifies at the last place of all
        for ids, mask in zip(batch.token_ids, batch.attention_mask, strict=True):
            at = len(mask) - int(mask.sum())
            ids[:], mask[:] = np.roll(ids, at), np.roll(mask, at)
    masked = torch.from_numpy(batch.attention_mask)
    targets = torch.tensor([LABEL_IDS[one.label] for one in examples])
    model.eval()
    torch.set_num_threads(1)  # with more threads, such small matrices only wait for each other
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        logits = model(input_ids=torch.from_numpy(batch.token_ids), attention_mask=masked).logits
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(logits, targets).backward()
        optimiser.step()
