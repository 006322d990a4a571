"""Runs encoder-decoders with ONNX Runtime on the CPU, from three graphs.

The graphs are the encoder, the decoder's first step, which also computes the keys and values of cross-attention, and
the decoder's later steps, which take all keys and values as inputs. The first two are optimum's, and so may the third
be; where it is ours, several texts may share a step. Inputs and outputs are found by name, so BART, Pegasus and T5 need
no code of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

from deployments.engines.base import (
    ENCODER_FILE,
    FIRST_STEP_FILE,
    NEXT_STEP_FILE,
    SEQ2SEQ_FILES,
    Decoder,
    Logits,
    Pending,
    TokenIds,
)
from deployments.engines.onnx import open_session
from deployments.engines.past_memory import PastLedger, PastNeed, bytes_of
from deployments.engines.prefixes import ReadSource, Sources
from deployments.engines.shared_past import (
    PLACES,
    POSITIONS,
    SLOTS,
    Share,
    SharedPast,
    StepRunner,
    Values,
    by_row,
    most_bytes,
    twin,
)

INPUT_IDS, ATTENTION_MASK, STATES, LOGITS = "input_ids", "attention_mask", "last_hidden_state", "logits"
ENCODER_MASK, ENCODER_STATES = "encoder_attention_mask", "encoder_hidden_states"
PAST, PRESENT, CROSS = "past_key_values.", "present.", ".encoder."

Arrays = dict[str, NDArray[Any]]

FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
"""The types that keys and values may have."""


@dataclass(frozen=True, slots=True)
class DecoderGraphs:
    """The two decoder sessions and the names of their inputs. Safe to use from several threads at once."""

    first: onnxruntime.InferenceSession
    later: onnxruntime.InferenceSession
    first_inputs: frozenset[str]
    later_inputs: frozenset[str]
    own: tuple[str, ...]  # inputs of the later steps: keys and values of self-attention, by layer
    cross: tuple[str, ...]  # inputs of the later steps: keys and values of cross-attention, by layer
    shares_cross: bool  # True if one row of cross-attention serves all rows, which saves copies
    shares_steps: bool  # True if rows may be of several texts, and unequally far

    def begin(self, tokens: TokenIds, text: Arrays) -> tuple[Logits, Arrays]:
        """Runs the first step after the encoder; gives its logits, and all keys and values by the later steps' inputs.

        Raises ValueError for several rows.
        """
        if len(tokens) != 1:
            raise ValueError(f"a first step of {len(tokens)} rows")
        past = (*self.cross, *self.own)
        feeds = {name: array for name, array in text.items() if name in self.first_inputs}
        logits, *made = self.first.run([LOGITS, *map(present_of, past)], feeds | {INPUT_IDS: tokens[:, np.newaxis]})
        return last_logits(logits), dict(zip(past, made, strict=True))

    def run_rows(self, past: SharedPast, shares: Sequence[Share], ids: TokenIds) -> tuple[Logits, Sequence[Values]]:
        """Runs the next token of each row of several texts. See `RunRows`."""
        rows, lengths = by_row(shares)
        beams, many = max(len(one.rows) for one in shares), max(len(one.pages) for one in shares)
        pages, page = sum(len(one.pages) for one in shares), past.cross[0].shape[2]
        positions = np.empty_like(rows)
        positions[rows] = lengths
        places, slots = np.zeros((pages, beams), dtype=np.int64), np.full((len(rows), many), -1)
        mask = np.zeros((pages, page), dtype=np.int64)
        for one in shares:
            places[one.pages, : len(one.rows)] = one.rows
            slots[one.rows, : len(one.pages)] = one.pages * beams + np.arange(len(one.rows))[:, np.newaxis]
            mask[one.pages] = 1
            mask[one.pages[-1], one.source - page * (len(one.pages) - 1) :] = 0
        feeds: Arrays = {INPUT_IDS: ids[:, np.newaxis], POSITIONS: positions, PLACES: places, SLOTS: slots}
        feeds |= {ENCODER_MASK: mask}
        feeds |= {name: one[: len(rows)] for name, one in zip(self.own, past.own, strict=True)}
        feeds |= {name: one[:pages] for name, one in zip(self.cross, past.cross, strict=True)}
        logits, *made = self.later.run([LOGITS, *map(present_of, self.own)], feeds)
        return last_logits(logits), made


class OnnxSeq2Seq:
    """Runs an encoder-decoder on the calling thread and `threads - 1` helpers. Implements `Seq2SeqEngine`."""

    def __init__(self, encoder: onnxruntime.InferenceSession, graphs: DecoderGraphs) -> None:
        """Takes open sessions, as `open` makes them."""
        self.prefixes = Sources()
        self._encoder = encoder
        self._wants_mask = ATTENTION_MASK in names_in(encoder)
        self._graphs = graphs
        self._runner = StepRunner(graphs.run_rows)
        self._own_bytes = bytes_a_position(graphs.later, graphs.own)
        self._cross_bytes = bytes_a_position(graphs.later, graphs.cross)

    def most_bytes(self, needs: Sequence[PastNeed]) -> int:
        """The most bytes that the keys and values of texts of these needs take together, copies included."""
        if not (self._graphs.shares_cross or self.shares_steps):  # each row has its text's source once more
            needs = [PastNeed(one.rows, one.positions, one.source * one.rows) for one in needs]
        return most_bytes(needs, self._own_bytes, self._cross_bytes)

    @property
    def held_bytes(self) -> int:
        """The bytes of keys and values that its texts hold now, and of sources that were read."""
        return self._runner.ledger.held_bytes + self.prefixes.held_bytes

    @property
    def shares_steps(self) -> bool:
        """True if its graph of later steps lets texts step together."""
        return self._graphs.shares_steps

    @classmethod
    def open(cls, folder: Path, threads: int) -> OnnxSeq2Seq:
        """Loads the three graphs of a folder.

        Raises ValueError for graphs that this engine cannot feed or that do not fit together, and ONNX Runtime's
        errors.
        """
        encoder, first, later = (open_session(folder / name, threads, many_shapes=True) for name in SEQ2SEQ_FILES)
        check_taken(ENCODER_FILE, names_in(encoder), {INPUT_IDS}, {ATTENTION_MASK})
        check_taken(FIRST_STEP_FILE, names_in(first), {INPUT_IDS, ENCODER_STATES}, {ENCODER_MASK})
        taken = names_in(later)
        past = tuple(name for name in taken if name.startswith(PAST))
        cross = tuple(name for name in past if CROSS in name)
        own = tuple(name for name in past if CROSS not in name)
        of_rows = {POSITIONS, PLACES, SLOTS} if SLOTS in taken else set[str]()
        check_taken(NEXT_STEP_FILE, taken, {INPUT_IDS, *past, *of_rows}, {ENCODER_MASK, ENCODER_STATES})
        check_given(ENCODER_FILE, encoder, (STATES,))
        check_given(FIRST_STEP_FILE, first, (LOGITS, *map(present_of, past)))
        check_given(NEXT_STEP_FILE, later, (LOGITS, *map(present_of, own)))
        if not own or not cross:
            raise ValueError(f"{NEXT_STEP_FILE} takes no keys and values of earlier steps")
        graphs = DecoderGraphs(
            first,
            later,
            first_inputs=frozenset(names_in(first)),
            later_inputs=frozenset(taken),
            own=own,
            cross=cross,
            shares_cross=not of_rows and shares_cross(later, own, cross),
            shares_steps=bool(of_rows),
        )
        return cls(encoder, graphs)

    def encode(self, token_ids: TokenIds) -> Decoder:
        """Runs the encoder on one text, token ids (tokens,) without padding, and gives its decoder. Blocking.

        If an equal text was read before, and that is kept, nothing is run.
        """
        self._runner.tidy()
        read = self.prefixes.restore(token_ids)
        text = dict(read.text) if read is not None else self._encoded(token_ids)
        source = _Source(self._graphs, self.prefixes, token_ids, text, read)
        if self.shares_steps:
            return OnnxSharedDecoder(self._graphs, self._runner, source)
        return OnnxDecoder(self._graphs, source, self._runner.ledger)

    def _encoded(self, token_ids: TokenIds) -> Arrays:
        mask = np.ones((1, len(token_ids)), dtype=np.int64)
        feeds: Arrays = {INPUT_IDS: token_ids[np.newaxis]}
        if self._wants_mask:
            feeds[ATTENTION_MASK] = mask
        return {ENCODER_STATES: self._encoder.run([STATES], feeds)[0], ENCODER_MASK: mask}

    def step_together(self, decoders: Sequence[Decoder], pending: Sequence[Pending]) -> list[Logits]:
        """Runs one step of each decoder at once; gives the logits (rows, vocabulary) of each. Blocking.

        Raises ValueError for a decoder of another kind, or without its first step.
        """
        return self._runner.step([_share_of(one) for one in decoders], pending)

    def twin(self, decoder: Decoder) -> Decoder:
        """Makes a decoder of a text of its own that is just as far as another. Raises ValueError as above."""
        return OnnxSharedDecoder(self._graphs, self._runner, None, twin(_share_of(decoder)))


@dataclass(slots=True)
class _Source:
    """A source before its first step: the encoder's states (1, tokens, width) and mask (1, tokens).

    What an equal one has `read` is its first step too; else the first step is kept for the next.
    """

    graphs: DecoderGraphs
    sources: Sources
    token_ids: TokenIds
    text: Arrays
    read: ReadSource | None

    @property
    def restored(self) -> int:
        """The tokens that were not read anew."""
        return 0 if self.read is None else len(self.token_ids)

    def begin(self, tokens: TokenIds) -> tuple[Logits, Arrays]:
        """Gives the first step's logits, and all keys and values, to which nobody writes. See `DecoderGraphs.begin`."""
        if self.read is not None and tokens.tolist() == [self.read.start]:
            return self.read.logits, dict(self.read.past)
        logits, made = self.graphs.begin(tokens, self.text)
        self.sources.keep(self.token_ids, ReadSource(self.text, int(tokens[0]), logits, dict(made)))
        return logits, made


class OnnxSharedDecoder:
    """One text under decoding whose steps may be shared with others'. Implements `Decoder`."""

    def __init__(
        self, graphs: DecoderGraphs, runner: StepRunner, source: _Source | None, share: Share | None = None
    ) -> None:
        """Takes the source of a text, or the share of one."""
        self.share = share
        self.restored = 0 if source is None else source.restored
        self._graphs = graphs
        self._runner = runner
        self._source = source

    def step(self, tokens: TokenIds, origins: TokenIds) -> Logits:
        """Runs one step alone; gives logits (rows, vocabulary). Raises ValueError for several rows at first."""
        if self.share is not None or self._source is None:
            return self._runner.step((_share_of(self),), ((tokens, origins),))[0]
        graphs = self._graphs
        logits, made = self._source.begin(tokens)
        own, cross = [made[name] for name in graphs.own], [made[name] for name in graphs.cross]
        self.share = SharedPast.begun(own, cross, self._runner.ledger)
        self._source = None
        return logits


def _share_of(decoder: Decoder) -> Share:
    """The share of a text that may step together. Raises ValueError for one that may not."""
    if not isinstance(decoder, OnnxSharedDecoder) or decoder.share is None:
        raise ValueError("a decoder whose steps cannot be shared")
    return decoder.share


class OnnxDecoder:
    """One text under decoding, whose steps are its own. Implements `Decoder`.

    ONNX Runtime shares memory with numpy for inputs and outputs, so keys and values are copied only when beams fork or
    die. IO binding was measured to be no faster (within 2 % of a step).
    """

    def __init__(self, graphs: DecoderGraphs, source: _Source, ledger: PastLedger) -> None:
        """Takes the source of a text, and the engine's ledger."""
        self.restored = source.restored
        self._graphs = graphs
        self._source: _Source | None = source
        self._text: Arrays = {}
        self._own: Arrays = {}
        self._rows = 0
        ledger.add(self)

    @property
    def nbytes(self) -> int:
        """The bytes of its keys and values; before the first step it has none."""
        cross = [array for name, array in self._text.items() if name in self._graphs.cross]
        return bytes_of(self._own.values()) + bytes_of(cross)

    def step(self, tokens: TokenIds, origins: TokenIds) -> Logits:
        """Runs one step; gives logits (rows, vocabulary), float32. Raises ValueError for several rows at first."""
        if self._source is not None:
            return self._first_step(self._source, tokens)
        self._follow(origins)
        graphs = self._graphs
        outputs = [LOGITS, *map(present_of, graphs.own)]
        feeds = self._text | self._own | {INPUT_IDS: tokens[:, np.newaxis]}
        logits, *own = graphs.later.run(outputs, feeds)
        self._own = dict(zip(graphs.own, own, strict=True))
        return last_logits(logits)

    def _first_step(self, source: _Source, tokens: TokenIds) -> Logits:
        """Takes the first step, and keeps only the arrays that later steps take."""
        graphs = self._graphs
        logits, kept = source.begin(tokens)
        self._own = {name: kept.pop(name) for name in graphs.own}
        self._text = {name: array for name, array in (source.text | kept).items() if name in graphs.later_inputs}
        self._source, self._rows = None, 1
        return logits

    def _follow(self, origins: TokenIds) -> None:
        """Reorders keys and values of self-attention by the rows' origins; cross-attention is equal for all rows."""
        rows = len(origins)
        if rows != self._rows and not self._graphs.shares_cross:
            self._text = {name: np.repeat(array[:1], rows, axis=0) for name, array in self._text.items()}
        if rows != self._rows or (origins != np.arange(rows)).any():
            for name, array in self._own.items():
                self._own[name] = array.take(origins, axis=0)
        self._rows = rows


def names_in(session: onnxruntime.InferenceSession) -> list[str]:
    """Lists the names of a graph's inputs, in its order."""
    return [node.name for node in session.get_inputs()]


def shares_cross(later: onnxruntime.InferenceSession, own: tuple[str, ...], cross: tuple[str, ...]) -> bool:
    """True if a later step gives equal results for one shared row of cross-attention and for a copy in each row.

    Matrix products may broadcast one row to all, but not every graph allows it, so it is tried with random numbers.
    Raises ValueError for keys and values of unknown shapes.
    """
    chance = np.random.default_rng(0)
    rows, past, text = 2, 3, 5
    shared: Arrays = {INPUT_IDS: np.zeros((rows, 1), dtype=np.int64), ENCODER_MASK: np.ones((1, text), dtype=np.int64)}
    for node in later.get_inputs():
        if node.name in own or node.name in cross:
            if node.type != "tensor(float)" or len(node.shape) != 4 or not isinstance(node.shape[1], int):
                raise ValueError(f"{NEXT_STEP_FILE} takes {node.name} as {node.type} {node.shape}")
            size = (rows, node.shape[1], past) if node.name in own else (1, node.shape[1], text)
            shared[node.name] = chance.normal(size=(*size, node.shape[3])).astype(np.float32)
        elif node.name == ENCODER_STATES:
            shared[node.name] = np.zeros((1, text, node.shape[2]), dtype=np.float32)
    shared = {name: array for name, array in shared.items() if name in names_in(later)}
    apart = {name: np.repeat(array, rows // len(array), axis=0) for name, array in shared.items()}
    outputs = [LOGITS, *map(present_of, own)]
    try:
        found = later.run(outputs, shared)
    except (Fail, InvalidArgument, RuntimeException):
        return False
    return all(map(np.array_equal, found, later.run(outputs, apart)))


def bytes_a_position(session: onnxruntime.InferenceSession, names: Sequence[str]) -> int:
    """The bytes that one position of one row takes in all of these keys and values.

    Raises ValueError for those of unknown shapes or types.
    """
    found = 0
    for node in session.get_inputs():
        if node.name in names:
            heads, width = (node.shape[1], node.shape[3]) if len(node.shape) == 4 else (None, None)
            if node.type not in FLOATS or not isinstance(heads, int) or not isinstance(width, int):
                raise ValueError(f"the graph takes {node.name} as {node.type} {node.shape}")
            found += heads * width * np.dtype(FLOATS[node.type]).itemsize
    return found


def present_of(past: str) -> str:
    """The output name that belongs to an input name of past keys and values."""
    return PRESENT + past.removeprefix(PAST)


def last_logits(logits: Logits) -> Logits:
    """Takes the only position of (rows, 1, vocabulary), as float32."""
    last: Logits = logits[:, -1].astype(np.float32, copy=False)
    return last


def check_taken(file: str, inputs: list[str], needed: set[str], fed: set[str]) -> None:
    """Raises ValueError for an input that is not fed, or a missing one."""
    if not needed <= set(inputs) <= needed | fed:
        raise ValueError(f"{file} wants the inputs {sorted(inputs)}")


def check_given(file: str, session: onnxruntime.InferenceSession, needed: tuple[str, ...]) -> None:
    """Raises ValueError for a missing output."""
    missing = sorted(set(needed) - {node.name for node in session.get_outputs()})
    if missing:
        raise ValueError(f"{file} does not give {', '.join(missing)}")
