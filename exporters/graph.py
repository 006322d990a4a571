"""From a loaded model to fp32 ONNX graphs, by way of optimum."""

from __future__ import annotations

from pathlib import Path

from optimum.exporters.onnx import onnx_export_from_model
from transformers import PreTrainedModel

from deployments.engines.opening import ONNX_FILE, SEQ2SEQ_FILES
from exporters.errors import ExportFailed


def export_graph(model: PreTrainedModel, folder: Path) -> None:
    """Writes a classifier's model.onnx, with every axis of batch and tokens left open. Raises ExportFailed.

    Optimum's own validation is left out: `verify` compares more texts with more care.
    """
    _export(model, folder, "text-classification", (ONNX_FILE,))


def export_seq2seq_graphs(model: PreTrainedModel, folder: Path) -> None:
    """Writes an encoder-decoder's encoder, first and later decoding step, likewise. Raises ExportFailed.

    Weights over 2 GB lie beside their graph, since no ONNX file holds more.
    """
    _export(model, folder, "text2text-generation-with-past", SEQ2SEQ_FILES)


def _export(model: PreTrainedModel, folder: Path, task: str, files: tuple[str, ...]) -> None:
    """Without optimum's last step, which would merge graphs that are run apart."""
    kind = model.config.model_type
    try:
        onnx_export_from_model(model, output=folder, task=task, do_validation=False, no_post_process=len(files) > 1)
    except (ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        raise ExportFailed(f"{kind} cannot be exported to ONNX: {error}") from error
    missing = [name for name in files if not (folder / name).exists()]
    if missing:
        raise ExportFailed(f"the export of {kind} left no {', '.join(missing)}")
