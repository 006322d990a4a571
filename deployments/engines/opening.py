"""Which engine runs a variant, and how to open it. Imports an engine's library only when a variant needs it."""

from __future__ import annotations

from pathlib import Path

from deployments.engines.base import Engine, Seq2SeqEngine
from gateway.model.manifest import ClassifierManifest, ExtractiveManifest

ONNX_FILE = "model.onnx"
ENCODER_FILE = "encoder_model.onnx"
DECODER_FILE = "decoder_model.onnx"
DECODER_WITH_PAST_FILE = "decoder_with_past_model.onnx"
SEQ2SEQ_FILES = (ENCODER_FILE, DECODER_FILE, DECODER_WITH_PAST_FILE)


def open_engine(folder: Path, manifest: ClassifierManifest | ExtractiveManifest, threads: int) -> Engine:
    """The engine for a variant's folder, on so many threads. Raises ValueError for an engine that is not known."""
    return open_engine_named(manifest.engine, folder, threads)


def open_engine_named(name: str, folder: Path, threads: int) -> Engine:
    """The engine of that name over a folder that has no manifest yet: what an export verifies before it signs."""
    match name:
        case "onnx":
            from deployments.engines.onnx import OnnxEngine

            return OnnxEngine.open(folder / ONNX_FILE, threads)
        case "torch":
            from deployments.engines.torch import TorchEngine  # 2 s and 277 MB that an ONNX replica must not pay

            return TorchEngine.open(folder, threads)
    raise ValueError(f"no engine is called {name!r}")


def open_seq2seq_engine(name: str, folder: Path, threads: int) -> Seq2SeqEngine:
    """The engine of that name that writes token by token, likewise. Raises ValueError."""
    if name != "onnx":
        raise ValueError(f"no engine that writes is called {name!r}")
    from deployments.engines.onnx_seq2seq import OnnxSeq2Seq

    return OnnxSeq2Seq.open(folder, threads)
