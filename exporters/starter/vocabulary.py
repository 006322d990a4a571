"""Prunes a WordPiece vocabulary for the starter checkpoints.

Keeps the special tokens, every single character (alone and as a continuation), every piece used in the training texts
and VADER's lexicon, and the most frequent of the rest. A text whose pieces are all kept is split exactly as by the full
vocabulary, and no word of known characters becomes [UNK].
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from exporters.starter.publishing import write_json

SIZE = 22_000
MAX_TOKENS = 512
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


@dataclass(frozen=True)
class Vocabulary:
    """Kept tokens in the order of their new ids, each with its id in the base vocabulary."""

    tokens: tuple[str, ...]
    base_ids: tuple[int, ...]


def full_tokenizer(base: Path) -> Tokenizer:
    """The base checkpoint's tokenizer, without its padding and truncation."""
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def prune(base: Mapping[str, int], used: Collection[str], size: int = SIZE) -> Vocabulary:
    """The pieces to keep, special tokens first, then by base id (in this vocabulary, the frequency rank).

    Raises `ValueError` if more than `size` pieces must be kept.
    """
    specials = list(SPECIAL.values())
    used = set(used)
    ranked = sorted((t for t in base if not _placeholder(t) and t not in specials), key=base.__getitem__)
    must = {t for t in ranked if t in used or len(t.removeprefix("##")) == 1}
    spare = size - len(specials) - len(must)
    if spare < 0:
        raise ValueError(f"{len(must)} pieces must stay, more than {size} allow")
    kept = must | set([t for t in ranked if t not in must][:spare])
    tokens = (*specials, *(t for t in ranked if t in kept))
    return Vocabulary(tokens, tuple(base[t] for t in tokens))


def pruned_tokenizer(base: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """The base `tokenizer.json` with only the kept tokens, without truncation and padding."""
    ids = {token: i for i, token in enumerate(vocabulary.tokens)}
    added = [{**entry, "id": ids[entry["content"]]} for entry in base["added_tokens"]]
    post = dict(base["post_processor"])
    post["special_tokens"] = {t: {**entry, "ids": [ids[t]]} for t, entry in post["special_tokens"].items()}
    return {
        **base,
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(added, key=lambda entry: entry["id"]),
        "post_processor": post,
        "model": {**base["model"], "vocab": ids},
    }


def write_tokenizer(tokenizer: Mapping[str, Any], folder: Path, tokenizer_class: str, inputs: list[str]) -> None:
    """Writes the four tokenizer files; `inputs` names the arguments of the checkpoint's forward pass."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "tokenizer_class": tokenizer_class,
        "do_lower_case": True,
        "tokenize_chinese_chars": True,
        "strip_accents": None,
        "model_max_length": MAX_TOKENS,
        "model_input_names": inputs,
        "clean_up_tokenization_spaces": False,
        **SPECIAL,
    }
    tokens = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].__getitem__)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False) + "\n", encoding="utf-8")
    write_json(config, folder / "tokenizer_config.json", sort_keys=False)
    write_json(SPECIAL, folder / "special_tokens_map.json", sort_keys=False)
    (folder / "vocab.txt").write_text("".join(f"{t}\n" for t in tokens), encoding="utf-8")


def _placeholder(token: str) -> bool:
    return token.startswith("[unused") and token.endswith("]")
