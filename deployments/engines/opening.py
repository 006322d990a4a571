"""Opens the engine that a manifest names. Imports an engine's library only when a variant needs it."""

from __future__ import annotations

from pathlib import Path

from deployments.engines.base import ONNX_FILE, SEQ2SEQ_FILES, Engine, Seq2SeqEngine
from gateway.model.manifest import ClassifierManifest, ExtractiveManifest

__all__ = ["ONNX_FILE", "SEQ2SEQ_FILES", "open_engine", "open_engine_named", "open_seq2seq_engine"]


def open_engine(folder: Path, manifest: ClassifierManifest | ExtractiveManifest, threads: int) -> Engine:
    """Opens the engine of a variant's folder on `threads` threads. Raises ValueError for an unknown engine."""
    return open_engine_named(manifest.engine, folder, threads)


def open_engine_named(name: str, folder: Path, threads: int) -> Engine:
    """Opens the engine of that name on a folder without a manifest, as an export verifies it. Raises ValueError."""
    match name:
        case "onnx":
            from deployments.engines.onnx import OnnxEngine

            return OnnxEngine.open(folder / ONNX_FILE, threads)
        case "torch":
            from deployments.engines.torch import TorchEngine  # takes 2 s and 277 MB, which ONNX replicas do without

            return TorchEngine.open(folder, threads)
    raise ValueError(f"no engine is called {name!r}")


def open_seq2seq_engine(name: str, folder: Path, threads: int) -> Seq2SeqEngine:
    """Opens the encoder-decoder engine of that name on a folder. Raises ValueError for an unknown engine."""
    if name != "onnx":
        raise ValueError(f"no engine that writes is called {name!r}")
    from deployments.engines.onnx_seq2seq import OnnxSeq2Seq

    return OnnxSeq2Seq.open(folder, threads)
