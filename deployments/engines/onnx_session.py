"""How every ONNX Runtime session of a replica is opened: on the CPU, on so many threads, quietly."""

from __future__ import annotations

from pathlib import Path

import onnxruntime


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
