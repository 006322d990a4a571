"""Fits texts into a model's window: takes a text's head or cuts it into pieces, and counts its tokens.

Pieces end at sentence borders and have similar lengths. The module knows a tokenizer and a window, and no engines.
Tokenising takes about 2 µs a character, so it tokenises no more than needed, and of a very long text no more than
there is time for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from deployments.replica.sentences import SentenceSpan, split_sentences
from deployments.replica.tokens import TextTokens
from gateway.model.deadline import Clock


def pieces_of(sentences: Sequence[SentenceSpan], tokens: Sequence[int], most_tokens: int) -> list[SentenceSpan]:
    """Joins consecutive sentences into as few pieces as possible, of similar lengths.

    `tokens` has the count of each sentence, without special tokens. A sentence with more than `most_tokens` is a piece
    of its own, which the window will cut. Raises ValueError unless both have one length.
    """
    pieces: list[SentenceSpan] = []
    target = sum(tokens) / max(1, _fewest(tokens, most_tokens))
    begun: SentenceSpan | None = None
    held = passed = 0.0
    for sentence, count in zip(sentences, tokens, strict=True):
        if begun is not None and (held + count > most_tokens or passed + count / 2 > target * (len(pieces) + 1)):
            pieces.append(begun)
            begun, held = None, 0.0
        begun = SentenceSpan(begun.start if begun else sentence.start, sentence.end)
        held += count
        passed += count
    return [*pieces, begun] if begun else pieces


def _fewest(tokens: Sequence[int], most_tokens: int) -> int:
    """Counts the pieces if each is filled before the next begins."""
    pieces, held = 0, most_tokens
    for count in tokens:
        if held + count > most_tokens:
            pieces, held = pieces + 1, 0
        held += count
    return pieces


HEAD = 8
"""Characters tokenised at first for each token of the window: in most texts, more than fits it."""

STRETCH = 64
"""Sentences that are tokenised between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class Head:
    """The token ids of a text, or of a head that overfills the window, and the text's total, estimated for a head."""

    token_ids: list[int]
    total: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text, and its number of tokens without specials and prefix."""

    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces of a text in order, and the tokens of the whole text, estimated if not all was counted."""

    pieces: list[Piece]
    total: int


_FIRST_TOKENS_PER_CHARACTER = 0.27
"""Tokens per character before any text was read. Set by hand."""

_SMOOTHING = 0.05
"""Weight of a new observation of tokens per character. Set by hand."""


class Windowing:
    """Fits texts into windows of one size. Safe to use from several threads at once."""

    def __init__(self, tokens: TextTokens, prefix: str, window: int) -> None:
        """`prefix` goes before every text, and its tokens count."""
        self.window = window
        self.own: int = len(tokens.encode(prefix)) if prefix else tokens.specials
        self._tokens = tokens
        self._prefix = prefix
        self._per_character = _FIRST_TOKENS_PER_CHARACTER

    def expected(self, characters: int) -> int:
        """Estimates the tokens of a text by its characters, prefix and specials included."""
        return math.ceil(characters * self._per_character) + self.own

    def encode(self, text: str) -> list[int]:
        """The token ids of the prefix and the text."""
        return self._tokens.encode(self._prefix + text)

    def cut(self, token_ids: Sequence[int]) -> list[int]:
        """Cuts token ids to the window."""
        return self._tokens.cut(token_ids, self.window)

    def head(self, text: str, *, to_the_end: bool) -> Head:
        """Tokenises the start of a text. Counts all of it only if asked `to_the_end`, or if it fits the window."""
        characters = len(text) if to_the_end else HEAD * self.window
        token_ids = self.encode(text[:characters])
        while len(token_ids) <= self.window and characters < len(text):
            characters *= 4
            token_ids = self.encode(text[:characters])
        if characters < len(text):
            return Head(token_ids, math.ceil(len(token_ids) * len(text) / characters))
        if text and len(token_ids) > self.own:
            self._per_character += _SMOOTHING * ((len(token_ids) - self.own) / len(text) - self._per_character)
        return Head(token_ids, len(token_ids))

    def pieces(self, text: str, clock: Clock, until: float) -> Pieces:
        """Cuts a text that does not fit the window between sentences. Leaves out sentences not counted by `until`."""
        if len(text) <= HEAD * self.window and (total := len(self.encode(text))) <= self.window:
            return Pieces([Piece(text, total - self.own)], total)
        spans = split_sentences(text)
        counts = self._counts(text, spans, clock, until)
        counted = spans[: len(counts)]
        total = sum(counts) + self.own
        if len(counts) < len(spans):
            total = math.ceil(total * len(text) / counted[-1].end)
        elif total <= self.window:
            return Pieces([Piece(text, total - self.own)], total)
        upto = dict(zip((span.end for span in counted), accumulate(counts), strict=True))
        pieces, before = [], 0
        for span in pieces_of(counted, counts, max(1, self.window - self.own)):
            pieces.append(Piece(text[span.start : span.end], upto[span.end] - before))
            before = upto[span.end]
        return Pieces(pieces, total)

    def _counts(self, text: str, spans: Sequence[SentenceSpan], clock: Clock, until: float) -> list[int]:
        """Counts the tokens of the first sentences, each with the space before it, until the clock says `until`."""
        counts: list[int] = []
        while len(counts) < len(spans) and (not counts or clock() < until):
            stretch = spans[len(counts) : len(counts) + STRETCH]
            starts = [spans[len(counts) - 1].end if counts else 0, *(span.end for span in stretch)]
            texts = [text[start : span.end] for start, span in zip(starts, stretch, strict=False)]
            counts += [len(ids) - self._tokens.specials for ids in self._tokens.encode_batch(texts)]
        return counts
