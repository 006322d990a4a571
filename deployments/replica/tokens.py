"""Turns texts into token ids and back, for tasks that cut and join texts themselves, and counts tokens.

Knows tokenizer.json; knows no windows, padding or engines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from gateway.model.manifest import VariantManifest

SAMPLE = "a"

TOKENIZER_FILE = "tokenizer.json"


class TextTokens:
    """A tokenizer that neither cuts nor pads. Safe to use from many threads, since it never changes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Takes a tokenizer without truncation and padding, as `open` makes it."""
        self._tokenizer = tokenizer
        mask = list(tokenizer.encode(SAMPLE).special_tokens_mask)
        self._leading = mask.index(0) if 0 in mask else len(mask)
        self.specials = sum(mask)

    @classmethod
    def open(cls, tokenizer_file: Path) -> TextTokens:
        """Loads a tokenizer.json without its truncation and padding."""
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(tokenizer)

    def encode(self, text: str) -> list[int]:
        """Gives the text's token ids between its `specials`. Lone surrogates count as U+FFFD."""
        ids: list[int] = encoding_of(self._tokenizer, text).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Gives the token ids of each text, as `encode` does; faster than one by one."""
        try:
            encodings: list[Encoding] = self._tokenizer.encode_batch(list(texts))
        except TypeError:
            encodings = self._tokenizer.encode_batch([well_formed(text) for text in texts])
        return [encoding.ids for encoding in encodings]

    def cut(self, token_ids: Sequence[int], window: int) -> list[int]:
        """Cuts a text's token ids to `window`: keeps the head, and the specials at the end."""
        if len(token_ids) <= window:
            return list(token_ids)
        trailing = self.specials - self._leading
        return [*token_ids[: window - trailing], *token_ids[len(token_ids) - trailing :]]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Gives the text of token ids without specials, spaced by the tokenizer's own decoder."""
        text: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return text


def counters_of(
    manifests: Mapping[str, VariantManifest], folders: Mapping[str, Path]
) -> dict[str, Callable[[str], int]]:
    """Opens the token counter of each checkpoint whose variant is on this host; equal tokenizers share one.

    Blocking.
    """
    by_digest: dict[str, Callable[[str], int]] = {}
    counters: dict[str, Callable[[str], int]] = {}
    for name, folder in folders.items():
        file, digest = folder / TOKENIZER_FILE, manifests[name].files.get(TOKENIZER_FILE, "")
        if digest not in by_digest and digest and file.exists():
            by_digest[digest] = _counter(file)
        if digest in by_digest:
            counters[name] = by_digest[digest]
    return counters


def _counter(tokenizer_file: Path) -> Callable[[str], int]:
    tokenizer = TextTokens.open(tokenizer_file)
    return lambda text: len(tokenizer.encode(text))


def encoding_of(tokenizer: Tokenizer, text: str) -> Encoding:
    """Tokenises a text, with lone surrogates, which UTF-8 cannot hold, as U+FFFD."""
    try:
        return tokenizer.encode(text)
    except TypeError:  # what tokenizers raises for a str that UTF-8 cannot hold
        return tokenizer.encode(well_formed(text))


def well_formed(text: str) -> str:
    """Replaces every lone surrogate by U+FFFD, and every surrogate pair by its character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
