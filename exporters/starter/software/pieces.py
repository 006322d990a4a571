"""The word pieces of the summariser: MiniLM's, pruned to those that descriptions and synopses use most."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import Tokenizer

from exporters.starter.vocabulary import SPECIAL, Vocabulary, prune, pruned_tokenizer

SIZE = 17_000
"""As many as leave the weights under 50 MB in fp16."""


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


def tokenizer_of(shipped: Mapping[str, Any], vocabulary: Vocabulary) -> Tokenizer:
    """The base's tokenizer over the kept pieces, without truncation or padding."""
    return Tokenizer.from_str(json.dumps(pruned_tokenizer(shipped, vocabulary)))
