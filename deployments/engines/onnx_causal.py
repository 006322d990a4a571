"""Runs decoder-only checkpoints with ONNX Runtime on the CPU, from one graph as optimum exports it.

The graph takes tokens, and the keys and values of the tokens before them. Inputs, outputs and the shapes of keys and
values are found in the graph, so Llama, GPT-2 and GPT-Neo need no code of their own.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime

from deployments.engines.base import CAUSAL_FILES, Decoder, Logits, Pending, TokenIds
from deployments.engines.onnx import ATTENTION_MASK, INPUT_IDS, LOGITS, open_session
from deployments.engines.onnx_seq2seq import (
    FLOATS,
    PAST,
    Arrays,
    bytes_a_position,
    check_given,
    check_taken,
    last_logits,
    names_in,
    present_of,
)
from deployments.engines.past_memory import PastLedger, PastNeed, bytes_of
from deployments.engines.prefixes import Prefixes

POSITION_IDS = "position_ids"

SCORED_FROM = "scored_from"
"""The input of a graph that says from which of the given tokens on it computes logits: its head is a large matrix, and
of a prompt only the last token's are of use. Graphs without it compute them all."""

WASTED = 2
"""What prompts share is put together anew where it is more than this multiple of what those still there need."""

COPIES = WASTED + 1
"""The most that pasts take at any time, divided by what is in them: `WASTED`, while all of it is copied once."""


@dataclass(frozen=True, slots=True)
class CausalGraph:
    """The session with the names of its inputs. Safe to use from several threads at once.

    `empty` are the keys and values before the first token, of one row and no tokens, by the names of inputs.
    """

    session: onnxruntime.InferenceSession
    inputs: frozenset[str]
    empty: Arrays

    def run(
        self, tokens: TokenIds, past: Arrays, scored_from: int, lengths: TokenIds | None = None
    ) -> tuple[Logits, Arrays]:
        """Runs tokens (rows, tokens) after the past of as many rows.

        Gives the logits from the token at `scored_from` on, or of all tokens, and the past with these tokens.
        `lengths` (rows,) are the tokens of each row's past, where it is padded on its left; all of them without.
        """
        before = next(iter(past.values())).shape[2]
        rows, count = tokens.shape
        places = np.arange(before + count, dtype=np.int64)
        padding = np.zeros((rows, 1), dtype=np.int64) if lengths is None else before - lengths[:, np.newaxis]
        feeds: Arrays = {
            INPUT_IDS: tokens,
            ATTENTION_MASK: (places >= padding).astype(np.int64),
            POSITION_IDS: places[before:] - padding,
            SCORED_FROM: np.asarray([scored_from], dtype=np.int64),
        }
        fed = {name: array for name, array in feeds.items() if name in self.inputs} | past
        logits, *made = self.session.run([LOGITS, *map(present_of, past)], fed)
        return logits, dict(zip(past, made, strict=True))


class OnnxCausal:
    """Runs a decoder-only checkpoint on the calling thread and `threads - 1` helpers. Implements `CausalEngine`."""

    def __init__(self, graph: CausalGraph) -> None:
        """Takes an open graph, as `open` makes it."""
        self.prefixes = Prefixes()
        self._graph = graph
        self._pasts = CausalPasts()
        self._position_bytes = bytes_a_position(graph.session, list(graph.empty))

    def most_bytes(self, needs: Sequence[PastNeed]) -> int:
        """The most bytes that the keys and values of texts of these needs take together, copies included.

        In company every row is as long as the longest.
        """
        rows, longest = sum(one.rows for one in needs), max((one.positions for one in needs), default=0)
        return COPIES * rows * (longest + 1) * self._position_bytes

    @property
    def held_bytes(self) -> int:
        """The bytes of keys and values that its texts hold now."""
        return self._pasts.ledger.held_bytes + self.prefixes.held_bytes

    @classmethod
    def open(cls, folder: Path, threads: int) -> OnnxCausal:
        """Loads the graph of a folder. Raises ValueError for one that this engine cannot feed, and ORT's errors.

        A graph must take a mask and positions, without which prompts of unlike lengths cannot step together.
        """
        (file,) = CAUSAL_FILES
        session = open_session(folder / file, threads, many_shapes=True)
        inputs = names_in(session)
        past = [name for name in inputs if name.startswith(PAST)]
        check_taken(file, inputs, {INPUT_IDS, ATTENTION_MASK, POSITION_IDS, *past}, {SCORED_FROM})
        check_given(file, session, (LOGITS, *map(present_of, past)))
        if not past:
            raise ValueError(f"{file} takes no keys and values of earlier tokens")
        return cls(CausalGraph(session, frozenset(inputs), _empty(file, session)))

    def encode(self, token_ids: TokenIds) -> OnnxWriting:
        """Reads a prompt without its last token, token ids (tokens,), and gives its decoder. Blocking.

        What it has in common with one that was read before is restored, if that is kept.
        """
        self._pasts.tidy()
        restored, kept = self.prefixes.restore(token_ids)
        past = dict(kept) if restored else self._graph.empty
        if restored < len(token_ids):
            left = token_ids[restored:]
            _, past = self._graph.run(left[np.newaxis], past, len(left) - 1)
            self.prefixes.keep(token_ids, past)
        return OnnxWriting(self._graph, past, self._pasts, restored)

    def step_together(self, decoders: Sequence[Decoder], pending: Sequence[Pending]) -> list[Logits]:
        """Runs the next token of each decoder in one step; gives logits (1, vocabulary) of each. Blocking.

        Each decoder has had its first step, and has one row. Keys and values are put together only when other decoders
        step together than in the last step of each of them.
        """
        writings = [one for one in decoders if isinstance(one, OnnxWriting)]
        shared = self._pasts.shared_by(writings)
        rows = [one.row for one in writings]
        lengths, column = np.empty(len(rows), dtype=np.int64), np.empty((len(rows), 1), dtype=np.int64)
        lengths[rows], column[rows] = [one.length for one in writings], [tokens for tokens, _ in pending]
        try:
            logits, shared.past = self._graph.run(column, shared.past, 0, lengths)
            for one in writings:
                one.length += 1
        finally:
            shared.stepping = False
        found = last_logits(logits)
        return [found[row : row + 1] for row in rows]

    def score(self, token_ids: TokenIds) -> Logits:
        """Computes the logits (tokens, vocabulary) after each token of a text, token ids (tokens,). Blocking."""
        logits: Logits = self._graph.run(token_ids[np.newaxis], self._graph.empty, 0)[0][0]
        return logits.astype(np.float32, copy=False)


class OnnxWriting:
    """One prompt that is written on, in one row or several. Implements `Decoder`.

    The graph itself makes the keys and values anew with each token; they are copied once more only when rows fork or
    die, and when others step together with it than before. `length` is that of its past. While it steps together with
    others its past is a `row` of what they have `shared`.
    """

    def __init__(self, graph: CausalGraph, past: Arrays, pasts: CausalPasts, restored: int = 0) -> None:
        """Takes the keys and values of all tokens of the prompt but the last, in one row, and the engine's pasts.

        So many of its tokens were restored.
        """
        self.restored = restored
        self.length = _tokens_in(past)
        self.shared: PaddedPast | None = None
        self.row = 0
        self._graph = graph
        self._past = past
        self._pasts = pasts
        self._rows = 1
        self._begun = False
        pasts.ledger.add(self)

    @property
    def nbytes(self) -> int:
        """The bytes of keys and values that are its own; none while it has a row of what several share."""
        return bytes_of(self._past.values())

    def step(self, tokens: TokenIds, origins: TokenIds) -> Logits:
        """Runs one step; gives logits (rows, vocabulary), float32. Raises ValueError for several rows at first."""
        if not self._begun and len(tokens) != 1:
            raise ValueError(f"a first step of {len(tokens)} rows")
        self._begun = True
        self._pasts.part(self)
        self._follow(origins)
        logits, self._past = self._graph.run(tokens[:, np.newaxis], self._past, 0)
        self.length += 1
        return last_logits(logits)

    def past(self) -> Arrays:
        """Its keys and values, without padding."""
        if self.shared is None:
            return self._past
        row = slice(self.row, self.row + 1)
        return {name: array[row, :, -self.length :] for name, array in self.shared.past.items()}

    def share(self, shared: PaddedPast, row: int) -> None:
        """Goes on in a row of what several share, which has its keys and values."""
        self._past, self.shared, self.row = {}, shared, row

    def part(self) -> None:
        """Goes on alone, with a copy of its keys and values if they are a row of what several share."""
        if self.shared is not None:
            self._past = {name: np.ascontiguousarray(array) for name, array in self.past().items()}
            self.shared = None

    def _follow(self, origins: TokenIds) -> None:
        """Reorders keys and values by the rows' origins."""
        rows = len(origins)
        if rows != self._rows or (origins != np.arange(rows)).any():
            self._past = {name: array.take(origins, axis=0) for name, array in self._past.items()}
        self._rows = rows


@dataclass(slots=True, eq=False, weakref_slot=True)
class PaddedPast:
    """Keys and values of prompts that step together: all end at the same place, and are padded before they begin.

    So optimum's graphs want them: GPT-Neo's local attention counts places from the last one, not positions. It knows
    its prompts weakly, so that it goes when the last of them does.
    """

    past: Arrays
    begun: Sequence[weakref.ref[OnnxWriting]]
    stepping: bool = False

    @property
    def nbytes(self) -> int:
        """The bytes of its keys and values."""
        return bytes_of(self.past.values())

    @property
    def members(self) -> list[OnnxWriting]:
        """The prompts that are still there: neither ended nor gone on elsewhere."""
        return [one for begun in self.begun if (one := begun()) is not None and one.shared is self]


@dataclass(slots=True)
class CausalPasts:
    """The pasts of one engine. One thread at a time may arrange them; steps run beside that."""

    ledger: PastLedger = field(default_factory=PastLedger)
    _arranging: threading.Lock = field(default_factory=threading.Lock)

    def shared_by(self, writings: Sequence[OnnxWriting]) -> PaddedPast:
        """What these prompts, and no others, share: as it is, or put together anew. It counts as stepping from now."""
        with self._arranging:
            shared = writings[0].shared
            if (
                shared is None
                or len(shared.begun) != len(writings)
                or any(one.shared is not shared for one in writings)
            ):
                shared = joined(writings)
                self.ledger.add(shared)
                self._tidy()
            shared.stepping = True
            return shared

    def part(self, writing: OnnxWriting) -> None:
        """Has a prompt go on alone."""
        if writing.shared is not None:
            with self._arranging:
                writing.part()
                self._tidy()

    def tidy(self) -> None:
        """Gives back the rows of prompts that are gone. What is under a step has only prompts that step."""
        with self._arranging:
            self._tidy()

    def _tidy(self) -> None:
        for shared in self.ledger.of(PaddedPast):
            members = shared.members
            needed = len(members) * max((one.length for one in members), default=0)
            if not shared.stepping and members and len(shared.begun) * _tokens_in(shared.past) > WASTED * needed:
                self.ledger.add(joined(members))


def joined(writings: Sequence[OnnxWriting]) -> PaddedPast:
    """Puts the keys and values of prompts together, each with at least one token."""
    pasts = [one.past() for one in writings]
    longest = max(map(_tokens_in, pasts))
    together: Arrays = {}
    for name, first in pasts[0].items():
        _, heads, _, width = first.shape
        together[name] = np.zeros((len(writings), heads, longest, width), dtype=first.dtype)
        for row, past in enumerate(pasts):
            together[name][row, :, longest - past[name].shape[2] :] = past[name][0]
    shared = PaddedPast(together, [weakref.ref(one) for one in writings])
    for row, one in enumerate(writings):
        one.share(shared, row)
    return shared


def _tokens_in(past: Arrays) -> int:
    """The tokens that keys and values have, padding included."""
    tokens: int = next(iter(past.values())).shape[2]
    return tokens


def _empty(file: str, session: onnxruntime.InferenceSession) -> Arrays:
    """Keys and values of one row and no tokens. Raises ValueError for those of a shape or type that is not known."""
    found: Arrays = {}
    for node in session.get_inputs():
        if not node.name.startswith(PAST):
            continue
        rows, heads, tokens, width = node.shape if len(node.shape) == 4 else (0, 0, 0, 0)
        sized = isinstance(heads, int) and isinstance(width, int)
        if node.type not in FLOATS or not sized or isinstance(rows, int) or isinstance(tokens, int):
            raise ValueError(f"{file} takes {node.name} as {node.type} {node.shape}")
        found[node.name] = np.zeros((1, heads, 0, width), dtype=FLOATS[node.type])
    return found
