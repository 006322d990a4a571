"""From a loaded model to the ONNX graphs of its variant: exported in fp32, quantised where planned, put in place."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.engines.opening import ONNX_FILE, SEQ2SEQ_FILES
from exporters.errors import ExportFailed
from exporters.plan import Step, Workbench
from gateway.model.manifest import Precision

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LARGEST_FILE = 2**31 - 2**24
"""Bytes that one ONNX file can hold, a margin left: larger weights lie in a file of their own beside it."""


def export_graph(model: PreTrainedModel, folder: Path) -> None:
    """Writes a classifier's model.onnx, with every axis of batch and tokens left open. Raises ExportFailed.

    Optimum's own validation is left out: the verification compares more texts with more care.
    """
    _export(model, folder, "text-classification", (ONNX_FILE,))


def export_seq2seq_graphs(model: PreTrainedModel, folder: Path) -> None:
    """Writes an encoder-decoder's three graphs: encoder, first and later decoding step. Raises ExportFailed.

    Weights over 2 GB lie beside their graph, since no ONNX file holds more.
    """
    _export(model, folder, "text2text-generation-with-past", SEQ2SEQ_FILES)


@contextmanager
def scratch_folder(bench: Workbench) -> Iterator[Path]:
    """An empty folder on the variant's own disk, gone with all that is left in it when the block ends."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        yield Path(folder)


def place_graphs(bench: Workbench, scratch: Path, names: Sequence[str]) -> None:
    """Moves the named fp32 graphs from the scratch folder into the variant's, in the plan's precision.

    One after the other: quantising takes memory for several times its graph, so let go of the model before.
    """
    for at, name in enumerate(names):
        if bench.plan.precision is Precision.INT8:
            bench.progress(Step.QUANTISING, at / len(names))
            quantise(scratch / name, bench.folder / name)
        for file in scratch.glob(f"{name}*"):
            if bench.plan.precision is Precision.INT8:
                file.unlink()
            else:
                file.rename(bench.folder / file.name)


def quantise(fp32: Path, int8: Path) -> None:
    """Writes the dynamically quantised graph, embeddings included; weights beside it where they were or must be.

    Per channel and without reduce_range: 98.7 % of a DistilBERT's labels agreed with fp32, per tensor 95 to 97 %, with
    reduce_range down to 92 %. It therefore needs a processor with int8 dot products.

    A BART wrote 60 % of 300 texts as in fp32; 65 % with its embeddings left in fp32, 60 % with its last layer so, 85 %
    with its encoder so. ROUGE-L against the texts' summaries was the same for all four: not worth twice the memory.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic  # imports onnx: export time only

    fp32_bytes = sum(file.stat().st_size for file in fp32.parent.glob(f"{fp32.name}*"))
    quantize_dynamic(
        fp32,
        int8,
        per_channel=True,
        reduce_range=False,
        weight_type=QuantType.QInt8,
        use_external_data_format=fp32_bytes > LARGEST_FILE,
    )


def _export(model: PreTrainedModel, folder: Path, task: str, files: tuple[str, ...]) -> None:
    """By optimum, without its last step, which would merge graphs that are run apart."""
    from optimum.exporters.onnx import onnx_export_from_model  # imports torch

    family = model.config.model_type
    try:
        onnx_export_from_model(model, output=folder, task=task, do_validation=False, no_post_process=len(files) > 1)
    except (ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        raise ExportFailed(f"{family} cannot be exported to ONNX: {error}") from error
    missing = [name for name in files if not (folder / name).exists()]
    if missing:
        raise ExportFailed(f"the export of {family} left no {', '.join(missing)}")
