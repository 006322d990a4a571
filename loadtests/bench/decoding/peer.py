"""The interface of a decoding engine in a benchmark, and an adapter for engines driven step by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from deployments.engines.base import Seq2SeqEngine
from deployments.replica.writing.beam_search import BeamSearch, SearchRules


class DecodingPeer(Protocol):
    """One engine with one checkpoint loaded. Its methods block the calling thread."""

    @property
    def arithmetic(self) -> str:
        """The precision in use, as reported by the library."""

    @property
    def encodes_alone(self) -> bool:
        """True if `encode` works; not every library can run the encoder alone."""

    def encode(self, token_ids: Sequence[int]) -> None:
        """Runs the encoder only. Raises NotImplementedError if `encodes_alone` is False."""

    def write(self, token_ids: Sequence[int], beams: int, tokens: int) -> int:
        """Reads one text and writes `tokens` tokens, never the end token. Returns the best sequence's length."""


def rules_of(start_id: int, end_id: int, tokens: int, beams: int = 1) -> SearchRules:
    """The rules of a search that writes exactly this many tokens; the end token is forbidden before."""
    return SearchRules(
        decoder_start_token_id=start_id,
        eos_token_ids=(end_id,),
        pad_token_id=end_id,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        beams=beams,
    )


class StepByStep:
    """Adapts a seq2seq engine, driven by the replicas' own beam search."""

    encodes_alone = True

    def __init__(self, engine: Seq2SeqEngine, arithmetic: str, start_id: int, end_id: int) -> None:
        """Takes an open engine, its precision, and the ids of the start and end tokens."""
        self.arithmetic = arithmetic
        self._engine = engine
        self._ends = start_id, end_id

    def encode(self, token_ids: Sequence[int]) -> None:
        """Runs the encoder."""
        self._engine.encode(np.asarray(token_ids, dtype=np.int64))

    def write(self, token_ids: Sequence[int], beams: int, tokens: int) -> int:
        """Runs the encoder and `tokens` decode steps."""
        decoder = self._engine.encode(np.asarray(token_ids, dtype=np.int64))
        search = BeamSearch(rules_of(*self._ends, tokens, beams))
        while not search.done:
            search.feed(decoder.step(*search.pending))
        return search.steps


def open_peer(engine: str, folder: Path, threads: int, start_id: int, end_id: int) -> DecodingPeer:
    """Loads the engine `LIBRARY-PRECISION`; imports only its library. Raises ValueError for an unknown engine."""
    library, _, precision = engine.rpartition("-")
    match library:
        case "onnxruntime":
            from deployments.engines.onnx_seq2seq import OnnxSeq2Seq

            return StepByStep(OnnxSeq2Seq.open(folder, threads), precision, start_id, end_id)
        case "openvino":
            from loadtests.bench.decoding.openvino import OpenVinoSeq2Seq

            opened = OpenVinoSeq2Seq.open(folder, threads)
            return StepByStep(opened, opened.arithmetic, start_id, end_id)
        case "ctranslate2":
            from loadtests.bench.decoding.ctranslate2 import CTranslate2Peer

            return CTranslate2Peer.open(folder, threads)
        case "torch":
            from loadtests.bench.decoding.torch import TorchPeer

            return TorchPeer.open(folder, threads)
    raise ValueError(f"no engine is called {engine!r}")
