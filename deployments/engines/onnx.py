"""Runs exported classifiers and encoders with ONNX Runtime on the CPU, and opens its sessions."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnxruntime

from deployments.engines.base import Logits, TokenIds


def open_session(
    path: Path, threads: int, many_shapes: bool = False, *, spinning: bool = False
) -> onnxruntime.InferenceSession:
    """Loads a graph, to run on the calling thread and `threads - 1` helpers. Raises what ONNX Runtime raises.

    Spinning is off: two spinning threads burn a core at 50 requests/s. The number of threads is always given, because
    ONNX Runtime's default follows the machine and not what the process may use. A session keeps a memory plan forever
    for each combination of input shapes; `many_shapes` turns plans off for graphs that see thousands. With `spinning`
    helpers spin while a run lasts, and sleep once it has ended.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = not many_shapes
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    options.add_session_config_entry("session.force_spinning_stop", "1" if spinning else "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


INPUT_IDS, ATTENTION_MASK, TOKEN_TYPES, LOGITS = "input_ids", "attention_mask", "token_type_ids", "logits"


class Helpers:
    """The threads of a session beside the calling one, which are kept off its processor while a run lasts.

    Linux wakes a thread where its waker runs. Two threads that spin for each other on one processor take several times
    as long as one alone, until the next tick moves one of them (docs/performance.md).
    """

    def __init__(self, threads: Collection[int]) -> None:
        """Takes the threads' ids. Where Linux's calls are missing, nothing is moved."""
        self._threads = threads
        self._allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
        self._here = getattr(ctypes.CDLL(None), "sched_getcpu", None)

    def give_way(self) -> None:
        """Keeps the threads off the processor that the caller runs on."""
        if self._here is not None and (others := self._allowed - {self._here()}):
            for thread in self._threads:
                with suppress(OSError):  # the processors that may be used have changed
                    os.sched_setaffinity(thread, others)


def _threads() -> set[int]:
    """The ids of this process's threads; none where Linux's files are missing."""
    try:
        return set(map(int, os.listdir("/proc/self/task")))
    except OSError:
        return set()


class OnnxEngine:
    """Runs one session on the calling thread and `threads - 1` helpers, which sleep between runs."""

    def __init__(
        self, session: onnxruntime.InferenceSession, inputs: frozenset[str], helpers: Helpers | None = None
    ) -> None:
        """Takes an open session and the names of the graph's inputs, as `open` makes them, and helpers that spin."""
        self._session = session
        self._wants_types = TOKEN_TYPES in inputs
        self._helpers = helpers

    @classmethod
    def open(cls, path: Path, threads: int, *, lone: bool = False) -> OnnxEngine:
        """Loads the graph; for a `lone` engine, with helpers that spin during its runs.

        Raises ValueError for inputs that this engine cannot feed, and ONNX Runtime's errors.
        """
        before = _threads()
        session = open_session(path, threads, spinning=lone)
        helpers = Helpers(_threads() - before) if lone else None
        inputs = frozenset(node.name for node in session.get_inputs())
        if not {INPUT_IDS, ATTENTION_MASK} <= inputs <= {INPUT_IDS, ATTENTION_MASK, TOKEN_TYPES}:
            raise ValueError(f"{path.name} wants the inputs {sorted(inputs)}")
        return cls(session, inputs, helpers)

    def run(self, token_ids: TokenIds, attention_mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        """Computes logits (batch, labels), float32. Token types count if the graph takes them."""
        feeds = {INPUT_IDS: token_ids, ATTENTION_MASK: attention_mask}
        if self._wants_types:
            feeds[TOKEN_TYPES] = np.zeros_like(token_ids) if token_types is None else token_types
        if self._helpers is not None:
            self._helpers.give_way()
        logits: Logits = self._session.run([LOGITS], feeds)[0].astype(np.float32, copy=False)
        return logits
