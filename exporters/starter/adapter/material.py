"""The inputs of training: the labelled sentences of each side of the split, and the base with its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from exporters.sources.registry import fetch
from exporters.sources.texts import Sentence
from exporters.starter.data import Split, decided, on_side, read_rated
from exporters.starter.packages import VADER
from exporters.starter.sentiment.fit import Rows
from exporters.starter.sentiment.material import rows_of
from exporters.starter.training import encode
from exporters.starter.vocabulary import full_tokenizer


@dataclass(frozen=True)
class Material:
    """The labelled sentences of each side, and the base."""

    sentences: dict[Split, list[Sentence]]
    base: Path
    tokenizer: Tokenizer

    def rows(self, split: Split, max_tokens: int) -> Rows:
        """The encoded sentences of one side."""
        sentences = self.sentences[split]
        return rows_of(sentences, self.encode(sentences, max_tokens))

    def encode(self, sentences: Sequence[Sentence], max_tokens: int) -> list[list[int]]:
        """Token ids of the sentences, cut at `max_tokens`."""
        return encode(self.tokenizer, [s.text for s in sentences], max_tokens)


def prepare(base: Path, cache: Path, limit: int | None = None) -> Material:
    """Fetches and splits the sentences; `limit` thins each side to about that many (smoke run)."""
    rated = decided(read_rated(fetch(VADER, cache)))
    sides = {split: on_side(rated, split) for split in Split}
    if limit is not None:
        sides = {split: side[:: max(1, len(side) // limit)] for split, side in sides.items()}
    return Material(sides, base, full_tokenizer(base))
