"""What every engine of a decoding race can be asked for, and what crosses between the race and an engine's process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class DecodingPeer(Protocol):
    """One engine with one checkpoint loaded. Blocking: it runs on the calling thread and its own pool."""

    @property
    def arithmetic(self) -> str:
        """The precision it really runs in, as the library says it."""

    @property
    def encodes_alone(self) -> bool:
        """Whether `encode` can be asked for: not every library lets its encoder run by itself."""

    def encode(self, token_ids: Sequence[int]) -> None:
        """Reads one text and writes nothing. Raises NotImplementedError where it does not encode alone."""

    def write(self, token_ids: Sequence[int], beams: int, tokens: int) -> int:
        """Reads one text and writes so many tokens, never the end's; gives back how many the best sequence has."""


class DecodingJob(msgspec.Struct, frozen=True):
    """Which engine to load from which folder, and the text it is asked to read: the first line to the process."""

    engine: str
    folder: str
    threads: int
    token_ids: tuple[int, ...]
    start_id: int
    end_id: int


class Loaded(msgspec.Struct, frozen=True):
    """The process's first answer. Seconds from the library's import to a model that is ready; resident bytes then."""

    load_s: float
    resident_bytes: int
    arithmetic: str


class Ask(msgspec.Struct, frozen=True):
    """One turn: so many tokens with so many beams (1: greedy), a line of its own."""

    beams: int
    tokens: int


class Told(msgspec.Struct, frozen=True):
    """One turn's answer: seconds for the encoder alone (None: it cannot), for one token and for all of them."""

    encode_s: float | None
    one_s: float
    all_s: float
    resident_bytes: int
