"""The ports that engines implement: a padded batch in, one row of numbers out; or one sequence, step by step."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

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
