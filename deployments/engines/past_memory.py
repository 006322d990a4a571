"""What the keys and values of texts under way take in memory: how much is held now, and how much it may become.

It knows sizes alone: neither graphs nor texts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable
from weakref import ref

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PastNeed:
    """The most that one text's past may have: its rows, the tokens in each, and the tokens of its source, if any."""

    rows: int
    positions: int
    source: int = 0


@runtime_checkable
class CountsPasts(Protocol):
    """An engine that knows what its texts' keys and values take. Safe to use from several threads at once."""

    def most_bytes(self, needs: Sequence[PastNeed]) -> int:
        """The most bytes that texts of these needs hold together at any time, copies that are being made included."""

    @property
    def held_bytes(self) -> int:
        """The bytes that its texts hold now, copies that are being made left out."""


class HoldsPast(Protocol):
    """Has keys and values in buffers of its own."""

    @property
    def nbytes(self) -> int:
        """The bytes of its buffers."""


PastT = TypeVar("PastT", bound=HoldsPast)


class PastLedger:
    """Knows which pasts of an engine are alive. It keeps none alive. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: list[ref[HoldsPast]] = []

    def add(self, past: HoldsPast) -> None:
        """Takes in a past that has begun."""
        with self._lock:
            self._known = [one for one in self._known if one() is not None]
            self._known.append(ref(past))

    def of(self, kind: type[PastT]) -> list[PastT]:
        """The pasts of a kind that are alive."""
        return [one for one in self._alive() if isinstance(one, kind)]

    @property
    def held_bytes(self) -> int:
        """The bytes of all of them."""
        return sum(one.nbytes for one in self._alive())

    def _alive(self) -> list[HoldsPast]:
        with self._lock:
            return [past for one in self._known if (past := one()) is not None]


def bytes_of(arrays: Iterable[NDArray[Any]]) -> int:
    """The bytes of arrays that have their own memory."""
    return sum(one.nbytes for one in arrays)
