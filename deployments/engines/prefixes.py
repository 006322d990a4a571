"""Keeps the keys and values of prompts that were read: the next one that begins alike reads the rest alone.

Chats of one application begin with the same system message. It knows token ids and arrays, no text and no client.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from deployments.engines.past_memory import bytes_of

BLOCK = 16
"""Tokens that are restored together: fewer are read in the time of a step, and nobody learns by the time that a reading
takes how a prompt of somebody else goes on, token by token. Set by hand."""

MOST_KEPT = 64
"""Prompts that are kept at most, since each is compared with the next prompt. Set by hand."""

Read: TypeAlias = Mapping[str, NDArray[Any]]
"""Keys and values (1, heads, tokens, width) by name. Nobody writes to them."""


class Prefixes:
    """Prompts that were read, with their keys and values, within limits of bytes and number. Any thread may call it.

    The least recently used goes first. Without a limit that was set, none is kept.
    """

    def __init__(self) -> None:
        self.restored_prompts = 0
        self.restored_tokens = 0
        self._limit_bytes = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, tuple[NDArray[np.int64], Read]] = OrderedDict()
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

    def restore(self, token_ids: NDArray[np.int64]) -> tuple[int, Read]:
        """With how many whole blocks of tokens this prompt begins as a kept one does: tokens, keys and values."""
        with self._lock:
            longest, found = 0, b""
            for name, (ids, _) in self._kept.items():
                alike = _alike(ids, token_ids)
                if alike > longest:
                    longest, found = alike, name
            longest -= longest % BLOCK
            if not longest:
                return 0, {}
            self._kept.move_to_end(found)
            self.restored_prompts += 1
            self.restored_tokens += longest
            return longest, {name: array[:, :, :longest] for name, array in self._kept[found][1].items()}

    def keep(self, token_ids: NDArray[np.int64], read: Read) -> None:
        """Keeps a prompt with its keys and values, in place of those that are a beginning of it."""
        size = bytes_of(read.values())
        with self._lock:
            if size > self._limit_bytes or len(token_ids) < BLOCK:
                return
            for name, (ids, _) in list(self._kept.items()):
                if _alike(ids, token_ids) == len(ids):
                    self._drop(name)
            self._shrink(self._limit_bytes - size, MOST_KEPT - 1)
            self._kept[token_ids.tobytes()] = token_ids, read
            self._held_bytes += size

    def _shrink(self, to_bytes: int, to_prompts: int = MOST_KEPT) -> None:
        while self._kept and (self._held_bytes > to_bytes or len(self._kept) > to_prompts):
            self._drop(next(iter(self._kept)))

    def _drop(self, name: bytes) -> None:
        self._held_bytes -= bytes_of(self._kept.pop(name)[1].values())


@runtime_checkable
class KeepsPrefixes(Protocol):
    """An engine that restores what prompts have in common."""

    @property
    def prefixes(self) -> Prefixes:
        """The prompts that it keeps."""


@runtime_checkable
class Restored(Protocol):
    """A decoder that may have read a part of its prompt only."""

    @property
    def restored(self) -> int:
        """The tokens of its prompt that were not read anew."""


def _alike(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    """With how many tokens two prompts begin alike."""
    most = min(len(one), len(other))
    differ = np.flatnonzero(one[:most] != other[:most])
    return int(differ[0]) if len(differ) else most
