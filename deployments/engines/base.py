"""What every engine shares: its port, the padded batch that it takes, its priority, and where its faults end."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.model.messages import Failure, FailureKind

TokenIds: TypeAlias = NDArray[np.int64]
Logits: TypeAlias = NDArray[np.float32]


class Engine(Protocol):
    """Runs one variant. Blocking: call it on the engine's thread, never on the replica's loop."""

    def run(self, token_ids: TokenIds, attention_mask: TokenIds) -> Logits:
        """Logits (batch, labels) for token ids and mask, both (batch, tokens). Raises whatever the library raises."""


class Decoder(Protocol):
    """One text under decoding: what its encoder said and the keys and values of the tokens written so far.

    It belongs to one caller at a time, on whichever thread; it frees its memory when it is let go of.
    """

    def step(self, tokens: TokenIds, origins: TokenIds) -> Logits:
        """Logits (rows, vocabulary) after one more token for each row. Blocking: one decoding step.

        `tokens` (rows,) continue the rows `origins` (rows,) of the step before, so that beams may fork and die; the
        first step continues row 0, the only one there is.
        """


class Seq2SeqEngine(Protocol):
    """Runs one encoder-decoder variant. Safe to use from several threads at once."""

    def encode(self, token_ids: TokenIds) -> Decoder:
        """Reads one text, token ids (tokens,), and stands ready to write. Blocking: one run of the encoder."""


@dataclass(frozen=True)
class PaddedBatch:
    """Token ids and their mask, both (batch, longest); the mask is 0 where a row was filled up on its right."""

    token_ids: TokenIds
    attention_mask: TokenIds


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> PaddedBatch:
    """The rows as one batch, no longer than its longest row."""
    longest = max(map(len, rows))
    token_ids = np.full((len(rows), longest), pad_id, dtype=np.int64)
    attention_mask = np.zeros((len(rows), longest), dtype=np.int64)
    for at, row in enumerate(rows):
        token_ids[at, : len(row)] = row
        attention_mask[at, : len(row)] = 1
    return PaddedBatch(token_ids, attention_mask)


Made = TypeVar("Made")


def guarded(run: Callable[[], Made]) -> Made | Failure:
    """What the run gives, or an ENGINE failure that names the kind of error: its words may hold text of a request."""
    try:
        return run()
    except Exception as error:
        return Failure(FailureKind.ENGINE, type(error).__name__)


LEAST_URGENT = 19


def yield_to_others(niceness: int) -> None:
    """Gives the calling thread, and those it starts, this niceness (0 to 19, which yields most). Linux: no others.

    At 19 it also gets the scheduler's idle policy, where there is one: whatever else wakes up on its core then runs at
    once, where a niceness alone lets the thread finish its slice of milliseconds first.
    """
    if niceness:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    if niceness == LEAST_URGENT and hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
