"""Runs exported classifiers with OpenVINO on the CPU in bf16.

The graph is OpenVINO's own form of the one that ONNX Runtime takes, with weights in fp16. They are mapped into memory,
where those of an ONNX graph are copied: mpnet-sentiment takes 480 MB so, and 920 MB from its ONNX graph. Imported only
when such a variant is opened. The `openvino` extra installs it.
"""

from __future__ import annotations

import queue
from pathlib import Path

import numpy as np
import openvino as ov

from deployments.engines.base import Logits, TokenIds
from deployments.engines.onnx import ATTENTION_MASK, INPUT_IDS, LOGITS, TOKEN_TYPES

STRIDE = 8
"""Rows are padded to a multiple of so many tokens. OpenVINO prepares and keeps kernels for each shape that it meets: a
new one took 2.8 ms of a core more than a known one (3-layer DistilBERT). With 64 shapes the process grew by 207 MB,
with the 244 of every second length by 339 MB."""

WARM_TOKENS = 128
"""Single rows up to so many tokens are run once before the engine is ready, so that requests meet known shapes."""


class OpenVinoEngine:
    """Runs one compiled graph, up to `at_once` batches at a time, each on `threads` threads of OpenVINO's own."""

    def __init__(self, model: ov.CompiledModel, at_once: int, window: int) -> None:
        """Takes a compiled graph with `at_once` streams, and the most tokens of a row, as `open` gives them."""
        self._model = model
        self._window = window
        self._wants_types = TOKEN_TYPES in _inputs(model)
        self._idle: queue.SimpleQueue[ov.InferRequest] = queue.SimpleQueue()
        for _ in range(at_once):
            self._idle.put(model.create_infer_request())

    @classmethod
    def open(cls, path: Path, threads: int, at_once: int, window: int) -> OpenVinoEngine:
        """Compiles the graph and runs short rows once; `window` is the most tokens of a row.

        Raises ValueError for inputs that this engine cannot feed, and RuntimeError of OpenVINO's. Nothing is pinned to
        a core, since the replicas of one machine would all be pinned to the first.
        """
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16",
            "INFERENCE_NUM_THREADS": threads * at_once,
            "NUM_STREAMS": at_once,
            "ENABLE_CPU_PINNING": False,
        }
        core = ov.Core()
        model = core.compile_model(core.read_model(path), "CPU", settings)
        inputs = _inputs(model)
        if not {INPUT_IDS, ATTENTION_MASK} <= inputs <= {INPUT_IDS, ATTENTION_MASK, TOKEN_TYPES}:
            raise ValueError(f"{path.name} wants the inputs {sorted(inputs)}")
        engine = cls(model, at_once, window)
        for tokens in range(STRIDE, min(window, WARM_TOKENS) + 1, STRIDE):
            row = np.ones((1, tokens), dtype=np.int64)
            engine.run(row, row)
        return engine

    @property
    def threads(self) -> int:
        """The threads of all its streams together, as OpenVINO has them."""
        return int(self._model.get_property("INFERENCE_NUM_THREADS"))

    def run(self, token_ids: TokenIds, attention_mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        """Computes logits (batch, labels), float32. Token types count if the graph takes them.

        Safe to call from several threads; from more than `at_once`, some wait.
        """
        feeds = {INPUT_IDS: self._widened(token_ids), ATTENTION_MASK: self._widened(attention_mask)}
        if self._wants_types:
            feeds[TOKEN_TYPES] = self._widened(np.zeros_like(token_ids) if token_types is None else token_types)
        request = self._idle.get()
        try:
            request.infer(feeds)
            logits: Logits = request.get_tensor(LOGITS).data.astype(np.float32)  # a copy: the next run writes there
        finally:
            self._idle.put(request)
        return logits

    def _widened(self, rows: TokenIds) -> TokenIds:
        """Pads on the right with zeros to a multiple of `STRIDE` tokens, but not past the window."""
        tokens = rows.shape[1]
        more = max(0, min(-tokens % STRIDE, self._window - tokens))
        return np.pad(rows, ((0, 0), (0, more))) if more else rows


def _inputs(model: ov.CompiledModel) -> frozenset[str]:
    return frozenset(name for port in model.inputs for name in port.names)
