"""Turns texts into token ids and back, cut to a window or whole, and counts tokens.

`WindowedTokens` cuts texts for tasks that read a text as one input; `TextTokens` leaves that to tasks that cut and join
texts themselves. Knows tokenizer.json; knows no padding and no engines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeAlias
from unicodedata import category

from tokenizers import Encoding, Tokenizer

from gateway.model.manifest import VariantManifest
from gateway.model.messages import Failure, FailureKind

SAMPLE = "a"

TOKENIZER_FILE = "tokenizer.json"

Side: TypeAlias = Literal["left", "right"]


TAKEN_APART = 3
"""Most times that one text is taken apart; once is enough for every vocabulary that is known."""

INLINE_CHARACTERS = 2_000
"""Characters up to which texts are tokenised on the event loop (under 0.1 ms); longer ones are on a thread."""


class TextEncoder:
    """Encodes texts of clients, in which the name of a special token is text like any other.

    `[SEP]` in a text would end it for the model, and 200 times `[PAD]` would hide what follows. Tokenizers can leave
    such names in the text, but a vocabulary may have them as pieces too, as those of SentencePiece do. Where one is
    found as such, a space takes it apart. Safe to use from many threads, since it never changes.

    The tokenizer's `encode` keeps every other Python thread of the process waiting, for half a second if the text is
    200,000 dots; its `encode_batch` lets them run. So a long text is a batch of one.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Takes a tokenizer as its file has it, and sets it to leave special tokens in the text."""
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._pieces = _special_pieces(tokenizer)

    def encode(self, text: str) -> Encoding:
        """Encodes one text. Lone surrogates, which UTF-8 cannot hold, count as U+FFFD."""
        try:
            encoding = self._encoded(text)
        except TypeError:  # what tokenizers raises for a str that UTF-8 cannot hold
            text = well_formed(text)
            encoding = self._encoded(text)
        return self._apart(text, encoding) if self._pieces else encoding

    def encode_placed(self, text: str) -> tuple[Encoding, list[tuple[int, int]]]:
        """Encodes one text as `encode` does; gives each token's place in the text as it is given, in characters.

        Marks that the tokenizer takes off a letter, as many do, have the letter's place.
        """
        text = well_formed(text)
        encoding = self._encoded(text)
        parted, encoding = self._parted(text, encoding) if self._pieces else (text, encoding)
        offsets: list[tuple[int, int]] = encoding.offsets
        if parted != text:
            places = _places(text, parted)
            offsets = [(places[start], places[end]) for start, end in offsets]
        return encoding, _with_marks(text, offsets)

    def encode_pair(self, text: str, other: str) -> Encoding:
        """Encodes two texts as one input, in both of which names of special tokens are text."""
        text, other = (self._plain(well_formed(one)) for one in (text, other))
        if len(text) + len(other) <= INLINE_CHARACTERS:
            return self._tokenizer.encode(text, other)
        return self._tokenizer.encode_batch([(text, other)])[0]

    def specials(self, pair: bool) -> int:
        """How many special tokens an input has, of one text or of a pair."""
        number: int = self._tokenizer.num_special_tokens_to_add(pair)
        return number

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """Encodes each text as `encode` does; faster than one by one."""
        texts = list(texts)
        try:
            encodings: list[Encoding] = self._tokenizer.encode_batch(texts)
        except TypeError:
            texts = [well_formed(text) for text in texts]
            encodings = self._tokenizer.encode_batch(texts)
        if not self._pieces:
            return encodings
        return [self._apart(text, encoding) for text, encoding in zip(texts, encodings, strict=True)]

    def _plain(self, text: str) -> str:
        """The text with a space in each name of a special token that would become one."""
        return self._parted(text, self._encoded(text))[0] if self._pieces else text

    def _encoded(self, text: str) -> Encoding:
        """Encodes one text as the tokenizer does; a long one while other threads run. Raises TypeError."""
        if len(text) <= INLINE_CHARACTERS:
            return self._tokenizer.encode(text)
        return self._tokenizer.encode_batch([text])[0]

    def _apart(self, text: str, encoding: Encoding) -> Encoding:
        """The encoding of the text with a space in each name of a special token that became one."""
        return self._parted(text, encoding)[1]

    def _parted(self, text: str, encoding: Encoding) -> tuple[str, Encoding]:
        for _ in range(TAKEN_APART):
            marked = zip(encoding.ids, encoding.special_tokens_mask, encoding.offsets, strict=True)
            starts = [
                start
                for token_id, special, (start, end) in marked
                if not special and self._is_named(token_id, text[start:end])
            ]
            if not starts:
                break
            borders = [0, *(start + 1 for start in starts), len(text)]
            text = " ".join(text[begin:end] for begin, end in pairwise(borders))
            encoding = self._encoded(text)
        return text, encoding

    def _is_named(self, token_id: int, part: str) -> bool:
        """True if the part of a text became a special token by its name, not as something unknown."""
        return token_id in self._pieces and self._pieces[token_id] in _normalised(self._tokenizer, part)


def _special_pieces(tokenizer: Tokenizer) -> Mapping[int, str]:
    """The special tokens that their names become in a text, each with its name as the tokenizer reads it."""
    named = {at: token.content for at, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return {
        at: _normalised(tokenizer, name)
        for at, name in named.items()
        if at in tokenizer.encode(name, add_special_tokens=False).ids
    }


def _places(text: str, parted: str) -> list[int]:
    """For each character of a text with spaces put in, and for its end, the place in the text without them."""
    places, at = [], 0
    for character in parted:
        places.append(at)
        at += at < len(text) and character == text[at]
    return [*places, at]


def past_marks(text: str, at: int, limit: int) -> int:
    """The place behind the combining marks that stand there, at most `limit`."""
    while at < limit and category(text[at]).startswith("M"):
        at += 1
    return at


def _with_marks(text: str, places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The places of tokens, each with the marks behind it that are in no other; special tokens have empty ones."""
    widened: list[tuple[int, int]] = []
    limit = len(text)
    for start, end in reversed(places):
        widened.append((start, past_marks(text, end, limit) if start < end else end))
        limit = start if start < end else limit
    return widened[::-1]


def _normalised(tokenizer: Tokenizer, text: str) -> str:
    normaliser = tokenizer.normalizer
    return text if normaliser is None else str(normaliser.normalize_str(text))


class TextTokens:
    """A tokenizer that neither cuts nor pads. Safe to use from many threads, since it never changes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Takes a tokenizer without truncation and padding, as `open` makes it."""
        self._tokenizer = tokenizer
        self._encoder = TextEncoder(tokenizer)
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
        ids: list[int] = self._encoder.encode(text).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Gives the token ids of each text, as `encode` does; faster than one by one."""
        return [encoding.ids for encoding in self._encoder.encode_batch(texts)]

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


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text's token ids, cut to the window, and the `tokens_total` before the cut, specials included in both.

    Of a pair of texts, `token_types` has the type of each token, as the tokenizer gives it; a single text has none.
    """

    token_ids: list[int]
    tokens_total: int
    token_types: Sequence[int] = ()

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

    def encode_pair(self, text: str, other: str, *, cut: bool = True) -> Encoded | Failure:
        """Tokenises two texts as one input, and cuts the longer of them until both fit into the window.

        TOO_LONG if they do not and may not be cut. As much is read of each as of a text alone.
        """
        characters = READ_CHARACTERS * self.window
        counted = [self.encode(one) for one in (text, other)]
        alone, together = self._encoder.specials(False), self._encoder.specials(True)
        total = sum(one.tokens_total - alone for one in counted if isinstance(one, Encoded)) + together
        if total > self.window and not cut:
            return Failure(FailureKind.TOO_LONG, "over the checkpoint's window", total, self.window)
        while True:
            parts = self._part(text, characters), self._part(other, characters)
            encoding = self._encoder.encode_pair(*parts)
            if len(encoding.ids) >= min(self.window, total) or parts == (text, other):
                break
            characters *= 4
        kept = len(encoding.ids)
        return Encoded(encoding.ids, max(total, kept), encoding.type_ids)

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


def well_formed(text: str) -> str:
    """Replaces every lone surrogate by U+FFFD, and every surrogate pair by its character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
