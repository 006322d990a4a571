"""From a loaded classifier to an fp32 ONNX graph, by way of optimum."""

from __future__ import annotations

from pathlib import Path

from optimum.exporters.onnx import onnx_export_from_model
from transformers import PreTrainedModel

from deployments.engines.opening import ONNX_FILE
from exporters.errors import ExportFailed


def export_graph(model: PreTrainedModel, folder: Path) -> None:
    """Writes model.onnx, with every axis of batch and tokens left open. Raises ExportFailed.

    Optimum's own validation is left out: `verify` compares more texts with more care.
    """
    try:
        onnx_export_from_model(model, output=folder, task="text-classification", do_validation=False)
    except (ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        raise ExportFailed(f"{model.config.model_type} cannot be exported to ONNX: {error}") from error
    if not (folder / ONNX_FILE).exists():
        raise ExportFailed(f"the export of {model.config.model_type} left no {ONNX_FILE}")
