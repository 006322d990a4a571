"""Texts to token ids and back, for tasks that cut and join texts themselves.

Knows one tokenizer.json; refuses to know windows, padding and engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Encoding, Tokenizer

SAMPLE = "a"

TOKENIZER_FILE = "tokenizer.json"


class TextTokens:
    """A tokenizer that neither cuts nor pads. Safe to use from many threads: nothing in it changes after `open`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Takes a tokenizer without truncation and padding; `open` makes it so."""
        self._tokenizer = tokenizer
        mask = list(tokenizer.encode(SAMPLE).special_tokens_mask)
        self._leading = mask.index(0) if 0 in mask else len(mask)
        self.specials = sum(mask)

    @classmethod
    def open(cls, tokenizer_file: Path) -> TextTokens:
        """Loads a tokenizer.json; whatever truncation and padding it carries is left off."""
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(tokenizer)

    def encode(self, text: str) -> list[int]:
        """The text's token ids, its `specials` around them. A lone surrogate, which no UTF-8 can hold, is U+FFFD."""
        try:
            encoding: Encoding = self._tokenizer.encode(text)
        except TypeError:  # what tokenizers raises for a str that UTF-8 cannot hold
            encoding = self._tokenizer.encode(well_formed(text))
        ids: list[int] = encoding.ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, as `encode` gives them; many texts at once take less time than one by one."""
        try:
            encodings: list[Encoding] = self._tokenizer.encode_batch(list(texts))
        except TypeError:
            encodings = self._tokenizer.encode_batch([well_formed(text) for text in texts])
        return [encoding.ids for encoding in encodings]

    def cut(self, token_ids: Sequence[int], window: int) -> list[int]:
        """At most `window` of a text's token ids: its head, and the specials that close it."""
        if len(token_ids) <= window:
            return list(token_ids)
        trailing = self.specials - self._leading
        return [*token_ids[: window - trailing], *token_ids[len(token_ids) - trailing :]]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, without specials, spaced as the tokenizer's own decoder does."""
        text: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return text


def well_formed(text: str) -> str:
    """The text with every lone surrogate as U+FFFD, and every pair of them as the character that it stands for."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
