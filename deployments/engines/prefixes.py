"""Keeps what was made of texts that were read: the next prompt that begins alike reads the rest alone.

Chats of one application begin with the same system message. Of an encoder-decoder a source is kept as a whole, for the
next one that is equal. It knows token ids and arrays, no text and no client.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from deployments.engines.past_memory import bytes_of

BLOCK = 16
"""Tokens that are restored together: fewer are read in the time of a step, and nobody learns by the time that a reading
takes how a prompt of somebody else goes on, token by token. Set by hand."""

MOST_KEPT = 64
"""Prompts that are kept at most, since each is compared with the next prompt. Set by hand."""

Read: TypeAlias = Mapping[str, NDArray[Any]]
"""Arrays by name, such as keys and values (1, heads, tokens, width). Nobody writes to them."""


KeptT = TypeVar("KeptT")


class Kept(Generic[KeptT]):
    """Texts that were read, with what was made of them, within limits of bytes and number. Any thread may call it.

    The least recently used goes first. Without a limit that was set, none is kept.
    """

    def __init__(self) -> None:
        self.restored_prompts = 0
        self.restored_tokens = 0
        self._limit_bytes = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, tuple[KeptT, int]] = OrderedDict()
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """The bytes that it holds."""
        return self._held_bytes

    def resize(self, limit_bytes: int) -> None:
        """Sets the limit, and lets go what is over it."""
        with self._lock:
            self._limit_bytes = limit_bytes
            self._shrink(limit_bytes)

    def _take_in(self, name: bytes, kept: KeptT, size: int) -> None:
        """Keeps one that is within the limit, in place of others where they would be over it together."""
        if name in self._kept:
            self._drop(name)
        self._shrink(self._limit_bytes - size, MOST_KEPT - 1)
        self._kept[name] = kept, size
        self._held_bytes += size

    def _used(self, name: bytes, tokens: int) -> None:
        """Notes that so many tokens of one were restored."""
        self._kept.move_to_end(name)
        self.restored_prompts += 1
        self.restored_tokens += tokens

    def _shrink(self, to_bytes: int, to_texts: int = MOST_KEPT) -> None:
        while self._kept and (self._held_bytes > to_bytes or len(self._kept) > to_texts):
            self._drop(next(iter(self._kept)))

    def _drop(self, name: bytes) -> None:
        self._held_bytes -= self._kept.pop(name)[1]


class Prefixes(Kept[tuple[NDArray[np.int64], Read]]):
    """Prompts of a decoder-only checkpoint with their keys and values, of which the beginnings are restored."""

    def restore(self, token_ids: NDArray[np.int64]) -> tuple[int, Read]:
        """With how many whole blocks of tokens this prompt begins as a kept one does: tokens, keys and values."""
        with self._lock:
            longest, found = 0, b""
            for name, ((ids, _), _) in self._kept.items():
                alike = _alike(ids, token_ids)
                if alike > longest:
                    longest, found = alike, name
            longest -= longest % BLOCK
            if not longest:
                return 0, {}
            self._used(found, longest)
            (_, read), _ = self._kept[found]
            return longest, {name: array[:, :, :longest] for name, array in read.items()}

    def keep(self, token_ids: NDArray[np.int64], read: Read) -> None:
        """Keeps a prompt with its keys and values, in place of those that are a beginning of it."""
        size = bytes_of(read.values())
        with self._lock:
            if size > self._limit_bytes or len(token_ids) < BLOCK:
                return
            for name, ((ids, _), _) in list(self._kept.items()):
                if _alike(ids, token_ids) == len(ids):
                    self._drop(name)
            self._take_in(token_ids.tobytes(), (token_ids, read), size)


@dataclass(frozen=True, slots=True)
class ReadSource:
    """What was made of a source when it was read: the encoder's output, and the first step with its keys and values.

    Nobody writes to its arrays. `start` is the token of the first step.
    """

    text: Read
    start: int
    logits: NDArray[np.float32]
    past: Read


class Sources(Kept[ReadSource]):
    """Sources of an encoder-decoder that were read: an equal one is not read again."""

    def restore(self, token_ids: NDArray[np.int64]) -> ReadSource | None:
        """What was made of an equal source; None if none is kept."""
        name = token_ids.tobytes()
        with self._lock:
            if name not in self._kept:
                return None
            self._used(name, len(token_ids))
            return self._kept[name][0]

    def keep(self, token_ids: NDArray[np.int64], read: ReadSource) -> None:
        """Keeps what was made of a source."""
        size = bytes_of([*read.text.values(), *read.past.values(), read.logits])
        with self._lock:
            if size <= self._limit_bytes:
                self._take_in(token_ids.tobytes(), read, size)


@runtime_checkable
class KeepsPrefixes(Protocol):
    """An engine that restores what was read."""

    @property
    def prefixes(self) -> Kept[Any]:
        """The prompts, or sources, that it keeps."""


@runtime_checkable
class Restored(Protocol):
    """A decoder that may have read a part of its prompt only, or nothing of its source."""

    @property
    def restored(self) -> int:
        """The tokens of its prompt that were not read anew."""


def _alike(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    """With how many tokens two prompts begin alike."""
    most = min(len(one), len(other))
    differ = np.flatnonzero(one[:most] != other[:most])
    return int(differ[0]) if len(differ) else most
