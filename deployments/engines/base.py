"""What all engines share: their ports, the padded batch, the files of exported graphs, faults and priority."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gateway.model.messages import Failure, FailureKind

TokenIds: TypeAlias = NDArray[np.int64]
Logits: TypeAlias = NDArray[np.float32]


ONNX_FILE = "model.onnx"
"""The graph of a variant that runs in one pass."""

OPENVINO_FILE = "openvino.xml"
OPENVINO_WEIGHTS = "openvino.bin"
"""The same graph as OpenVINO keeps it, with its weights beside it in fp16."""

ENCODER_FILE = "encoder_model.onnx"
FIRST_STEP_FILE = "decoder_model.onnx"
NEXT_STEP_FILE = "decoder_with_past_model.onnx"
SEQ2SEQ_FILES = (ENCODER_FILE, FIRST_STEP_FILE, NEXT_STEP_FILE)
"""The graphs of an encoder-decoder, named as optimum exports them."""

CAUSAL_FILES = (ONNX_FILE,)
"""The graph of a decoder-only checkpoint, which takes any number of tokens after those that it has read."""


class Engine(Protocol):
    """Runs one variant. Blocking: call it on the engine's thread, never on the replica's loop."""

    def run(self, token_ids: TokenIds, attention_mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        """Computes logits (batch, labels) of ids, mask and types, all (batch, tokens). Raises the library's errors.

        Types say which of two texts a token is of; without them all are 0. A variant that knows none ignores them.
        """


class Decoder(Protocol):
    """One text under decoding: the encoder's output, and the keys and values of the tokens written so far.

    Any thread may call it, one at a time. Its memory is freed when the last reference goes.
    """

    def step(self, tokens: TokenIds, origins: TokenIds) -> Logits:
        """Runs one decoding step; gives logits (rows, vocabulary) after one more token for each row. Blocking.

        `tokens` (rows,) continue the rows `origins` (rows,) of the step before, so that beams may fork and die. The
        first step continues row 0, the only one.
        """


Pending: TypeAlias = tuple[TokenIds, TokenIds]
"""What a decoder's next step takes: tokens (rows,), and the rows that they continue."""


@runtime_checkable
class SharesSteps(Protocol):
    """An encoder-decoder engine whose texts may step together. Safe to use from several threads at once."""

    @property
    def shares_steps(self) -> bool:
        """False if its graph of later steps knows one length of past for all rows."""

    def step_together(self, decoders: Sequence[Decoder], pending: Sequence[Pending]) -> list[Logits]:
        """Runs one step of each of this engine's decoders at once; gives the logits (rows, vocabulary) of each.

        Each decoder has had its first step. Blocking.
        """

    def twin(self, decoder: Decoder) -> Decoder:
        """Makes a decoder of a text of its own that is just as far as another. That one has had its first step."""


class Seq2SeqEngine(Protocol):
    """Runs one encoder-decoder variant. Safe to use from several threads at once."""

    def encode(self, token_ids: TokenIds) -> Decoder:
        """Runs the encoder on one text, token ids (tokens,), and gives its decoder. Blocking."""


class CausalEngine(Protocol):
    """Runs one decoder-only variant. Safe to use from several threads at once. Is a `Seq2SeqEngine` too."""

    def encode(self, token_ids: TokenIds) -> Decoder:
        """Reads a prompt without its last token, token ids (tokens,), of which there may be none. Blocking.

        The first step of the decoder that it gives continues row 0 with the prompt's last token.
        """

    def step_together(self, decoders: Sequence[Decoder], pending: Sequence[Pending]) -> list[Logits]:
        """Runs the next token of each of this engine's decoders in one step; logits (1, vocabulary) of each. Blocking.

        Each decoder has had its first step, and has one row.
        """

    def score(self, token_ids: TokenIds) -> Logits:
        """Computes the logits (tokens, vocabulary) after each token of a text, token ids (tokens,). Blocking."""


@dataclass(frozen=True)
class PaddedBatch:
    """Token ids and their mask, both (batch, longest row). The mask is 0 for padding, which is on the right.

    Token types are None where all are 0.
    """

    token_ids: TokenIds
    attention_mask: TokenIds
    token_types: TokenIds | None = None


def padded(rows: Sequence[Sequence[int]], pad_id: int, types: Sequence[Sequence[int]] | None = None) -> PaddedBatch:
    """Pads rows to the length of the longest, and their token types, if any row has some, with 0."""
    longest = max(map(len, rows))
    token_ids = np.full((len(rows), longest), pad_id, dtype=np.int64)
    attention_mask = np.zeros((len(rows), longest), dtype=np.int64)
    for at, row in enumerate(rows):
        token_ids[at, : len(row)] = row
        attention_mask[at, : len(row)] = 1
    if types is None or not any(map(any, types)):
        return PaddedBatch(token_ids, attention_mask)
    token_types = np.zeros_like(token_ids)
    for at, one in enumerate(types):
        token_types[at, : len(one)] = one
    return PaddedBatch(token_ids, attention_mask, token_types)


Made = TypeVar("Made")


def guarded(run: Callable[[], Made]) -> Made | Failure:
    """Calls `run`; turns an exception into an ENGINE failure with its type only, as its message may quote a request."""
    try:
        return run()
    except Exception as error:
        return Failure(FailureKind.ENGINE, type(error).__name__)


LEAST_URGENT = 19
"""The highest niceness."""


def yield_to_others(niceness: int) -> None:
    """Sets the niceness (0 to 19) of the calling thread and of threads that it starts. On Linux, of no others.

    At 19 the thread also gets the kernel's idle policy where there is one. Any other thread that wakes up on its core
    then runs at once; with niceness alone, it waits for the end of a time slice of milliseconds.
    """
    if niceness:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    if niceness == LEAST_URGENT and hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
