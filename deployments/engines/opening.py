"""Opens the engine that a manifest names. Imports an engine's library only when a variant needs it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from deployments.engines.base import (
    CAUSAL_FILES,
    ONNX_FILE,
    OPENVINO_FILE,
    OPENVINO_WEIGHTS,
    SEQ2SEQ_FILES,
    CausalEngine,
    Engine,
    Seq2SeqEngine,
)
from deployments.engines.host import usable_cores
from gateway.model.manifest import VariantManifest
from gateway.model.profile import LoneRuns

__all__ = [
    "CAUSAL_FILES",
    "ONNX_FILE",
    "SEQ2SEQ_FILES",
    "EngineSize",
    "graph_files",
    "open_causal_engine",
    "open_engine",
    "open_engine_named",
    "open_lone_engine",
    "open_seq2seq_engine",
]

log = logging.getLogger("punctual.engines")


@dataclass(frozen=True, slots=True)
class EngineSize:
    """What an engine is opened for: the threads of one run, the runs at a time, and the most tokens of a row.

    A `lone` one makes one run at a time, on threads that spin while it lasts.
    """

    threads: int
    at_once: int
    window: int
    lone: bool = False


def graph_files(engine: str) -> tuple[str, ...]:
    """The files that an engine runs of a variant in one pass; PyTorch's weights may be in several, which differ."""
    own = {"torch": (), "openvino": (ONNX_FILE, OPENVINO_FILE, OPENVINO_WEIGHTS)}
    return own.get(engine, (ONNX_FILE,))


def open_engine(folder: Path, manifest: VariantManifest, threads: int, at_once: int = 1) -> Engine:
    """Opens the engine of a variant's folder, for `at_once` runs at a time on `threads` threads each.

    Where OpenVINO cannot be loaded, ONNX Runtime runs the same graph in fp32, which takes longer; the log says so.
    Raises ValueError for an unknown engine.
    """
    size = EngineSize(threads, at_once, manifest.max_tokens)
    try:
        return open_engine_named(manifest.engine, folder, size)
    except (ImportError, OSError, RuntimeError) as error:
        if manifest.engine != "openvino":
            raise
        why = next(iter(str(error).splitlines()), type(error).__name__)
        log.warning("%s: OpenVINO cannot be loaded (%s); ONNX Runtime runs it in fp32", manifest.checkpoint, why)
        return open_engine_named("onnx", folder, size)


def open_lone_engine(folder: Path, manifest: VariantManifest, most_threads: int) -> Engine | None:
    """Opens the engine for lone runs, on the threads that the variant's profile says, if as many may be used.

    None if it was not measured or does not pay, if the processors are too few, or if it cannot be opened once more,
    which the log says.
    """
    lone = LoneRuns.from_document(manifest.profile)
    if lone is None or lone.threads > min(most_threads, usable_cores()):
        return None
    size = EngineSize(lone.threads, 1, manifest.max_tokens, lone=True)
    try:
        return open_engine_named(manifest.engine, folder, size)
    except (ImportError, OSError, RuntimeError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        log.warning("%s makes no lone runs: %s", manifest.checkpoint, why)
        return None


def open_engine_named(name: str, folder: Path, size: EngineSize) -> Engine:
    """Opens the engine of that name on a folder without a manifest, as an export verifies it. Raises ValueError."""
    match name:
        case "onnx":
            from deployments.engines.onnx import OnnxEngine

            return OnnxEngine.open(folder / ONNX_FILE, size.threads, lone=size.lone)
        case "openvino":
            from deployments.engines.openvino import OpenVinoEngine  # 0.3 s and 60 MB; only its extra installs it

            return OpenVinoEngine.open(folder / OPENVINO_FILE, size.threads, size.at_once, size.window)
        case "torch":
            from deployments.engines.torch import TorchEngine  # takes 2 s and 277 MB, which ONNX replicas do without

            return TorchEngine.open(folder, size.threads)
    raise ValueError(f"no engine is called {name!r}")


def open_seq2seq_engine(name: str, folder: Path, threads: int) -> Seq2SeqEngine:
    """Opens the encoder-decoder engine of that name on a folder. Raises ValueError for an unknown engine."""
    if name != "onnx":
        raise ValueError(f"no engine that writes is called {name!r}")
    from deployments.engines.onnx_seq2seq import OnnxSeq2Seq

    return OnnxSeq2Seq.open(folder, threads)


def open_causal_engine(name: str, folder: Path, threads: int) -> CausalEngine:
    """Opens the decoder-only engine of that name on a folder. Raises ValueError for an unknown engine."""
    if name != "onnx":
        raise ValueError(f"no engine that writes on is called {name!r}")
    from deployments.engines.onnx_causal import OnnxCausal

    return OnnxCausal.open(folder, threads)
