"""Exports a loaded model as ONNX graphs: in fp32, then quantised if planned."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.engines.opening import ONNX_FILE, SEQ2SEQ_FILES
from exporters.errors import ExportFailed
from exporters.plan import Step, Workbench
from gateway.model.manifest import Precision

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

OPSET = 17
LARGEST_FILE = 2**31 - 2**24
"""The most bytes in one ONNX file, with a margin; larger weights go to a separate file beside it."""


def export_graph(model: PreTrainedModel, folder: Path) -> None:
    """Writes a classifier's model.onnx, with dynamic batch and token axes. Raises ExportFailed.

    Skips optimum's validation: our verification compares more texts, more strictly.
    """
    _export(model, folder, "text-classification", (ONNX_FILE,))


def export_seq2seq_graphs(model: PreTrainedModel, folder: Path) -> None:
    """Writes an encoder-decoder's three graphs: encoder, first decoding step, later steps. Raises ExportFailed.

    Weights over 2 GB go beside their graph, since an ONNX file holds no more.
    """
    _export(model, folder, "text2text-generation-with-past", SEQ2SEQ_FILES)


def export_vectors(model: PreTrainedModel, pooled: torch.nn.Module, file: Path) -> None:
    """Writes the graph of a model with its pooling: token ids and mask in, vectors out, batch and tokens dynamic.

    Raises ExportFailed.
    """
    import torch

    from deployments.engines.onnx import ATTENTION_MASK, INPUT_IDS, LOGITS  # imports ONNX Runtime

    model.set_attn_implementation("eager")  # exportable in every opset
    sample = torch.ones(2, 8, dtype=torch.int64)
    axes = {0: "batch", 1: "tokens"}
    try:
        with torch.inference_mode():
            torch.onnx.export(
                pooled,
                (sample, sample),
                str(file),
                input_names=[INPUT_IDS, ATTENTION_MASK],
                output_names=[LOGITS],
                dynamic_axes={INPUT_IDS: axes, ATTENTION_MASK: axes, LOGITS: {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
    except (ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        raise ExportFailed(f"{model.config.model_type} cannot be exported to ONNX: {error}") from error


@contextmanager
def scratch_folder(bench: Workbench) -> Iterator[Path]:
    """A temporary folder on the variant's disk."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        yield Path(folder)


def place_graphs(bench: Workbench, scratch: Path, names: Sequence[str]) -> None:
    """Moves the named fp32 graphs from the scratch folder to the variant's, in the plan's precision.

    One at a time: quantising needs several times the graph's memory, so release the model first.
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


def graph_folders(bench: Workbench, scratch: Path, precisions: Iterable[Precision]) -> dict[Precision, Path]:
    """The folder of a one-pass graph for each precision, below a scratch folder that holds the fp32 graph.

    Engines make bf16 of the fp32 graph themselves.
    """
    folders = dict.fromkeys(precisions, scratch)
    if Precision.INT8 in folders:
        bench.progress(Step.QUANTISING, 0.0)
        folders[Precision.INT8] = scratch / "int8"
        folders[Precision.INT8].mkdir()
        quantise(scratch / ONNX_FILE, folders[Precision.INT8] / ONNX_FILE)
    return folders


def quantise(fp32: Path, int8: Path) -> None:
    """Quantises a graph dynamically to int8, embeddings included; large weights go to a separate file.

    Per channel, without reduce_range: 98.7 % of a DistilBERT's labels agreed with fp32; per tensor 95 to 97 %; with
    reduce_range down to 92 %. The processor therefore needs int8 dot products.

    A BART generated 60 % of 300 summaries as in fp32; 65 % with its embeddings in fp32, 60 % with its last layer, 85 %
    with its encoder. ROUGE-L against the texts' summaries was equal for all four: not worth twice the memory.
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
    """Exports with optimum, without its last step, which would merge the decoder graphs."""
    from optimum.exporters.onnx import onnx_export_from_model  # imports torch

    family = model.config.model_type
    try:
        onnx_export_from_model(model, output=folder, task=task, do_validation=False, no_post_process=len(files) > 1)
    except (ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        raise ExportFailed(f"{family} cannot be exported to ONNX: {error}") from error
    missing = [name for name in files if not (folder / name).exists()]
    if missing:
        raise ExportFailed(f"the export of {family} left no {', '.join(missing)}")
