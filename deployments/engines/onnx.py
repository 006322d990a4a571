"""ONNX Runtime on the CPU: the engine of every exported variant, and how its sessions are opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from deployments.engines.base import Logits, TokenIds


def open_session(path: Path, threads: int, many_shapes: bool = False) -> onnxruntime.InferenceSession:
    """Loads a graph. Raises what ONNX Runtime raises.

    The calling thread and `threads - 1` helpers run it. Spinning is off because two spinning threads burn a core at
    50 requests/s; the thread count is always given, because ONNX Runtime would size its pool by the machine and not by
    what the process may use. For every combination of input shapes a session keeps a plan of its memory, for good:
    `many_shapes` is for graphs that meet thousands of them, and does without.
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
    """One session, run by the calling thread and `threads - 1` helpers that sleep rather than spin between runs."""

    def __init__(self, session: onnxruntime.InferenceSession, inputs: frozenset[str]) -> None:
        """Takes an open session and the names of the graph's inputs; `open` makes both."""
        self._session = session
        self._wants_types = TOKEN_TYPES in inputs

    @classmethod
    def open(cls, path: Path, threads: int) -> OnnxEngine:
        """Loads the graph. Raises ValueError for inputs this engine cannot feed, else what ONNX Runtime raises."""
        session = open_session(path, threads)
        inputs = frozenset(node.name for node in session.get_inputs())
        if not {INPUT_IDS, ATTENTION_MASK} <= inputs <= {INPUT_IDS, ATTENTION_MASK, TOKEN_TYPES}:
            raise ValueError(f"{path.name} wants the inputs {sorted(inputs)}")
        return cls(session, inputs)

    def run(self, token_ids: TokenIds, attention_mask: TokenIds) -> Logits:
        """Logits (batch, labels), float32; token types, where the graph wants them, are all zero: single texts."""
        feeds = {INPUT_IDS: token_ids, ATTENTION_MASK: attention_mask}
        if self._wants_types:
            feeds[TOKEN_TYPES] = np.zeros_like(token_ids)
        logits: Logits = self._session.run([LOGITS], feeds)[0].astype(np.float32, copy=False)
        return logits
