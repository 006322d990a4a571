"""Tokenises texts for a tagger, with the place of each token, and divides long ones into overlapping windows.

A window is what the engine is given: a part of the text's tokens between the special ones. Of a token that is in two
windows, the labels of the one count in which it lies farther from the edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
from tokenizers import Tokenizer

from deployments.engines.base import Logits
from deployments.replica.tokens import SAMPLE, Encoded, TextEncoder
from gateway.tasks.tokens import overlap_of
from gateway.tasks.windows import windows_of

CUT_WORD = 128
"""Most tokens that a word may gain by being cut: WordPiece takes words of up to 100 characters apart."""

Place: TypeAlias = tuple[int, int]
"""The first character of something in a text, and the one after its last."""


@dataclass(frozen=True)
class ReadText:
    """One text with its tokens, specials left out: their ids, pieces, places, and the windows that hold them.

    `first` is the index of the first token among all of the text's, where specials count.
    """

    text: str
    ids: Sequence[int]
    pieces: Sequence[str]
    places: Sequence[Place]
    windows: Sequence[tuple[int, int]]
    first: int


class TextReader:
    """Tokenises texts for one tagger. Safe to use from many threads, since it never changes."""

    def __init__(self, tokenizer: Tokenizer, window: int) -> None:
        """Takes a tokenizer without truncation and padding, as `open` makes it."""
        self._encoder = TextEncoder(tokenizer)
        self._window = window
        sample = tokenizer.encode(SAMPLE)
        mask = list(sample.special_tokens_mask)
        leading = mask.index(0) if 0 in mask else len(mask)
        trailing = sum(mask) - leading
        self._before, self._after = sample.ids[:leading], sample.ids[len(mask) - trailing :]

    @classmethod
    def open(cls, tokenizer_file: Path, window: int) -> TextReader:
        """Loads a tokenizer.json without its truncation and padding."""
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(tokenizer, window)

    @property
    def specials(self) -> int:
        """The special tokens of each window."""
        return len(self._before) + len(self._after)

    def read(self, text: str, stride: int | None = None) -> ReadText:
        """Tokenises a text; places are in the text as it is given."""
        encoding, places = self._encoder.encode_placed(text)
        own = slice(len(self._before), len(encoding.ids) - len(self._after))
        ids = encoding.ids[own]
        room = self._window - self.specials
        windows = windows_of(len(ids), room, overlap_of(room, stride))
        return ReadText(text, ids, encoding.tokens[own], places[own], windows, len(self._before))

    def takes_over(self, windows: int, text: str, stride: int | None = None) -> bool:
        """True if a part of a long text is seen to take more windows than so many, by reading no more than is needed.

        A text is refused for that much sooner than it is read: 200,000 dots take a quarter of a second of a core.
        """
        room = self._window - self.specials
        most = windows * (room - overlap_of(room, stride)) + room + CUT_WORD
        characters = 2 * most
        while characters < len(text):
            if len(self._encoder.encode(text[:characters]).ids) > most:
                return True
            characters *= 4
        return False

    def encoded(self, read: ReadText) -> list[Encoded]:
        """The token ids of each window."""
        rows = [[*self._before, *read.ids[start:end], *self._after] for start, end in read.windows]
        return [Encoded(row, len(row)) for row in rows]

    def ids(self, text: str) -> list[int]:
        """The token ids of a text's first window."""
        return self.encoded(self.read(text))[0].token_ids

    def joined(self, read: ReadText, rows: Sequence[Logits]) -> Logits:
        """The logits (tokens, labels) of a text, from those of its windows, which may be padded on the right."""
        before, ends = len(self._before), [end for _, end in read.windows]
        borders = [0, *((start + end) // 2 for (_, end), (start, _) in pairwise(read.windows)), ends[-1]]
        parts = [
            row[before + begin - start : before + end - start]
            for row, (start, _), (begin, end) in zip(rows, read.windows, pairwise(borders), strict=True)
        ]
        return np.concatenate(parts)
