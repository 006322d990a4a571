"""ONNX Runtime on the CPU: the engine of every exported variant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from deployments.engines.onnx_session import open_session
from deployments.engines.port import Logits, TokenIds

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
