"""Turns a text into the token ids that fit a checkpoint's window, and counts all of its tokens.

Knows tokenizer.json and windows; knows no engines and no tasks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tokenizers import Encoding, Tokenizer

from deployments.replica.tokens import TextEncoder
from gateway.model.messages import Failure, FailureKind

Side: TypeAlias = Literal["left", "right"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text's token ids, cut to the window, and the `tokens_total` before the cut, specials included in both."""

    token_ids: list[int]
    tokens_total: int

    @property
    def kept(self) -> int:
        """How many tokens go to the engine."""
        return len(self.token_ids)

    @property
    def truncated(self) -> bool:
        """True if the text has more tokens than were kept."""
        return self.tokens_total > len(self.token_ids)


def cutting_tokenizer(tokenizer_file: Path, window: int, side: Side = "right") -> Tokenizer:
    """Loads a tokenizer.json, and replaces its truncation and padding by a cut at the window, on that side."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(window, stride=0, strategy="longest_first", direction=side)
    return tokenizer


READ_CHARACTERS = 16
"""Characters of a text that are tokenised at first, for each token of the window: 20 ms for 8,192 dots, the worst seen.

English has four to five characters a token, so that most texts that are cut are counted exactly.
"""


class WindowedTokens:
    """Tokenises texts and cuts them on one side. Safe to use from many threads, since it never changes."""

    def __init__(self, tokenizer: Tokenizer, window: int, side: Side = "right") -> None:
        """Takes a tokenizer that truncates at `window` on that side and does not pad, as `open` makes it."""
        self._encoder = TextEncoder(tokenizer)
        self.window = window
        self.side = side

    @classmethod
    def open(cls, tokenizer_file: Path, window: int, side: Side = "right") -> WindowedTokens:
        """Loads a tokenizer.json as `cutting_tokenizer` does."""
        return cls(cutting_tokenizer(tokenizer_file, window, side), window, side)

    def encode(self, text: str, *, cut: bool = True) -> Encoded | Failure:
        """Tokenises a text and cuts it to the window; TOO_LONG if it is longer and may not be cut.

        Reads only as much of a text as overfills the window, and estimates the rest, so that no text holds the replica
        for long.
        """
        characters = READ_CHARACTERS * self.window
        encoding, total = self._read(self._part(text, characters))
        while total <= self.window and characters < len(text):
            characters *= 4
            encoding, total = self._read(self._part(text, characters))
        if characters < len(text):
            total = math.ceil(total * len(text) / characters)
        if total > self.window and not cut:
            return Failure(FailureKind.TOO_LONG, "over the checkpoint's window", total, self.window)
        return Encoded(encoding.ids, total)

    def ids(self, text: str) -> list[int]:
        """The text's token ids, cut to the window."""
        encoded = self.encode(text)
        assert isinstance(encoded, Encoded), "a text that may be cut is never refused"
        return encoded.token_ids

    def _part(self, text: str, characters: int) -> str:
        """The part of the text on the side that is kept."""
        return text[:characters] if self.side == "right" else text[-characters:]

    def _read(self, text: str) -> tuple[Encoding, int]:
        """Encodes a text within the window, and counts all of its tokens.

        One pass does both: the tokenizer returns what it cut off as overflow, in pieces with special tokens of their
        own, which are not counted again.
        """
        encoding = self._encoder.encode(text)
        total = len(encoding.ids)
        if total >= self.window:
            total += sum(len(piece) - sum(piece.special_tokens_mask) for piece in encoding.overflowing)
        return encoding, total
