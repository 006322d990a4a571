"""Which engine runs a variant, and how to open it. Imports an engine's library only when a variant needs it."""

from __future__ import annotations

from pathlib import Path

from deployments.engines.port import Engine
from gateway.manifest import VariantManifest

ONNX_FILE = "model.onnx"


def open_engine(folder: Path, manifest: VariantManifest, threads: int) -> Engine:
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
