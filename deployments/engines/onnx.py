"""Runs exported classifiers and encoders with ONNX Runtime on the CPU, and opens its sessions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from deployments.engines.base import Logits, TokenIds


def open_session(path: Path, threads: int, many_shapes: bool = False) -> onnxruntime.InferenceSession:
    """Loads a graph, to run on the calling thread and `threads - 1` helpers. Raises what ONNX Runtime raises.

    Spinning is off: two spinning threads burn a core at 50 requests/s. The number of threads is always given, because
    ONNX Runtime's default follows the machine and not what the process may use. A session keeps a memory plan forever
    for each combination of input shapes; `many_shapes` turns plans off for graphs that see thousands.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = not many_shapes
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


INPUT_IDS, ATTENTION_MASK, TOKEN_TYPES, LOGITS = "input_ids", "attention_mask", "token_type_ids", "logits"


class OnnxEngine:
    """Runs one session on the calling thread and `threads - 1` helpers, which sleep between runs."""

    def __init__(self, session: onnxruntime.InferenceSession, inputs: frozenset[str]) -> None:
        """Takes an open session and the names of the graph's inputs, as `open` makes them."""
        self._session = session
        self._wants_types = TOKEN_TYPES in inputs

    @classmethod
    def open(cls, path: Path, threads: int) -> OnnxEngine:
        """Loads the graph. Raises ValueError for inputs that this engine cannot feed, and ONNX Runtime's errors."""
        session = open_session(path, threads)
        inputs = frozenset(node.name for node in session.get_inputs())
        if not {INPUT_IDS, ATTENTION_MASK} <= inputs <= {INPUT_IDS, ATTENTION_MASK, TOKEN_TYPES}:
            raise ValueError(f"{path.name} wants the inputs {sorted(inputs)}")
        return cls(session, inputs)

    def run(self, token_ids: TokenIds, attention_mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        """Computes logits (batch, labels), float32. Token types count if the graph takes them."""
        feeds = {INPUT_IDS: token_ids, ATTENTION_MASK: attention_mask}
        if self._wants_types:
            feeds[TOKEN_TYPES] = np.zeros_like(token_ids) if token_types is None else token_types
        logits: Logits = self._session.run([LOGITS], feeds)[0].astype(np.float32, copy=False)
        return logits
