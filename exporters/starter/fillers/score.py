"""Scores how often the masked word of a sentence is found, by a filler and by counts of words, first and within five.

A sentence has one mask, in place of a whole word of one piece. Counts choose among words of one piece,
the filler among its whole vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import BertForMaskedLM

from exporters.starter.fillers.card import Score
from exporters.starter.fillers.fit import logits_of
from exporters.starter.fillers.masking import Words, in_batches
from exporters.starter.sentiment.build import wilson

MASK = "[MASK]"
WITHIN = 5
AT_ONCE = 32
MOST_TOKENS = 128

PAIRED = 0.9
"""The share of a probability that pairs give; the words' own frequency gives the rest. Set on dev."""


@dataclass(frozen=True)
class Cloze:
    """The tokens of a sentence, the place of the word that is masked, and that word."""

    kind: str
    row: tuple[int, ...]
    place: int
    word: int


Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Guesser: TypeAlias = Callable[[Sequence[Cloze]], list[list[int]]]
"""The likeliest words for each cloze, best first."""


def read_everyday(file: Path, tokenizer: Tokenizer) -> list[Cloze]:
    """The sentences of a file, each with its mask written out and the word for it.

    Raises `ValueError` for one without exactly one mask or with a word of several pieces.
    """
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        said = json.loads(line)
        row = tokenizer.encode(said["text"]).ids
        word, mask = tokenizer.token_to_id(said["word"]), tokenizer.token_to_id(MASK)
        if word is None or row.count(mask) != 1:
            raise ValueError(f"{file.name}: {said['text']!r} needs one {MASK} and a word of one piece")
        place = row.index(mask)
        found.append(Cloze("everyday", (*row[:place], word, *row[place + 1 :]), place, word))
    return found


def clozes(kinds: Sequence[str], rows: Sequence[Sequence[int]], chosen: Sequence[Sequence[int]]) -> list[Cloze]:
    """One cloze for each row with a chosen place."""
    every = zip(kinds, rows, chosen, strict=True)
    return [Cloze(kind, tuple(row), places[0], row[places[0]]) for kind, row, places in every if places]


def scored(guess: Guesser, asked: Sequence[Cloze]) -> Score:
    """The share of clozes whose word is guessed first, and within five. Raises `ValueError` for no clozes."""
    if not asked:
        raise ValueError("no sentences to score")
    guesses = guess(asked)
    first = sum(cloze.word == found[0] for cloze, found in zip(asked, guesses, strict=True))
    within = sum(cloze.word in found[:WITHIN] for cloze, found in zip(asked, guesses, strict=True))
    low, high = wilson(first, len(asked))
    return Score(
        sentences=len(asked),
        first=round(first / len(asked), 4),
        low=round(low, 4),
        high=round(high, 4),
        within=round(within / len(asked), 4),
    )


def by_model(model: BertForMaskedLM, words: Words) -> Guesser:
    """Guesses by a filler in fp32, which chooses among its whole vocabulary."""

    @torch.inference_mode()
    def guess(asked: Sequence[Cloze]) -> list[list[int]]:
        model.eval()
        order = sorted(range(len(asked)), key=lambda at: len(asked[at].row))
        rows, places = [asked[at].row for at in order], [[asked[at].place] for at in order]
        found: list[list[int]] = []
        for batch in in_batches(rows, places, words.mask_id, AT_ONCE):
            found += logits_of(model, batch).topk(WITHIN, dim=1).indices.tolist()
        ranked = dict(zip(order, found, strict=True))
        return [ranked[at] for at in range(len(asked))]

    return guess


class _Beside:
    """The words that stand on one side of each token."""

    def __init__(self, tokens: Integers, words: Integers) -> None:
        order = np.argsort(tokens, kind="stable")
        self._tokens, self._words = tokens[order], words[order]

    def counts(self, token: int, size: int) -> Floats:
        """How often each word of a vocabulary of this size stands there."""
        start, end = np.searchsorted(self._tokens, [token, token + 1])
        return np.bincount(self._words[start:end], minlength=size).astype(np.float64)


class Counts:
    """How often words of one piece stand in texts, and next to which tokens."""

    def __init__(self, rows: Sequence[Sequence[int]], words: Words) -> None:
        """Counts the words of rows of tokens."""
        self._size = size = len(words.is_word)
        places = [(row[at - 1], row[at], row[at + 1]) for row in rows for at in words.places(row)]
        left, word, right = np.array(places, dtype=np.int64).reshape(-1, 3).T
        self._words = np.bincount(word, minlength=size).astype(np.float64)
        self._tokens = np.bincount(np.concatenate([np.array(row) for row in rows]), minlength=size) + 1.0
        self._after, self._before = _Beside(left, word), _Beside(right, word)

    def by_frequency(self, asked: Sequence[Cloze]) -> list[list[int]]:
        """Guesses the most frequent words, whatever the sentence."""
        return [_best(self._words)] * len(asked)

    def by_pairs(self, asked: Sequence[Cloze]) -> list[list[int]]:
        """Guesses by the tokens on both sides: P(word | left) · P(right | word), each mixed with plain frequencies."""
        return [_best(self._worth(cloze.row[cloze.place - 1], cloze.row[cloze.place + 1])) for cloze in asked]

    def _worth(self, left: int, right: int) -> Floats:
        """The mixed probability of every word between two tokens."""
        after, before = self._after.counts(left, self._size), self._before.counts(right, self._size)
        often = self._tokens[right] / self._tokens.sum()
        on_left = PAIRED * after / max(1.0, after.sum()) + (1 - PAIRED) * self._words / self._words.sum()
        on_right = PAIRED * before / np.maximum(1.0, self._words) + (1 - PAIRED) * often
        worth: Floats = on_left * on_right
        return worth


def _best(worth: Floats) -> list[int]:
    """The words of most worth, best first."""
    best: list[int] = np.argsort(-worth, kind="stable")[:WITHIN].tolist()
    return best
