"""Exports a loaded model as ONNX graphs: in fp32, then quantised if planned."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from deployments.engines.base import CAUSAL_FILES, ONNX_FILE, OPENVINO_FILE, SEQ2SEQ_FILES, Engine
from deployments.engines.opening import EngineSize, open_engine_named
from exporters.errors import ExportFailed
from exporters.plan import Step, Workbench
from gateway.model.manifest import Precision

if TYPE_CHECKING:
    import onnx
    import torch
    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto
    from transformers import PreTrainedModel

Quantise: TypeAlias = Mapping[Precision, Callable[[Path, Path], None]]

OPSET = 17
LARGEST_FILE = 2**31 - 2**24
"""The most bytes in one ONNX file, with a margin; larger weights go to a separate file beside it."""

SPAN_OUTPUTS = ("start_logits", "end_logits")
"""The outputs of a graph that finds answers, as optimum names them."""

WRONG_GRAPHS = {
    "longformer": "has no graph that is right for texts of every length; "
    "its classifiers, taggers and answerers are served by engine: torch",
}
"""Why the graphs that tracing makes of an architecture are not served."""

BLOCK = 128
"""Weights that share a scale, where a kind does not say otherwise."""


def export_graph(model: PreTrainedModel, folder: Path) -> None:
    """Writes a classifier's model.onnx, with dynamic batch and token axes. Raises ExportFailed.

    Skips optimum's validation: our verification compares more texts, more strictly.
    """
    _export(model, folder, "text-classification", (ONNX_FILE,))


def export_tagging_graph(model: PreTrainedModel, folder: Path) -> None:
    """Writes the model.onnx of a model that labels tokens, with dynamic batch and token axes. Raises ExportFailed."""
    _export(model, folder, "token-classification", (ONNX_FILE,))


def export_span_graph(model: PreTrainedModel, folder: Path) -> None:
    """Writes the model.onnx of a model that finds answers: two logits for each token, of the first and the last.

    Raises ExportFailed.
    """
    import onnx  # export time only

    from deployments.engines.onnx import LOGITS  # imports ONNX Runtime

    _export(model, folder, "question-answering", (ONNX_FILE,))
    exported = onnx.load(folder / ONNX_FILE, load_external_data=False)
    graph, helper = exported.graph, onnx.helper
    names = [one.name for one in graph.output]
    if names[:2] != list(SPAN_OUTPUTS):
        raise ExportFailed(f"the graph of {model.config.model_type} gives {', '.join(names)}")
    graph.initializer.append(onnx.numpy_helper.from_array(np.asarray([2]), f"{LOGITS}_axis"))
    for name in SPAN_OUTPUTS:
        graph.node.append(helper.make_node("Unsqueeze", [name, f"{LOGITS}_axis"], [f"{name}_column"]))
    graph.node.append(helper.make_node("Concat", [f"{name}_column" for name in SPAN_OUTPUTS], [LOGITS], axis=2))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(LOGITS, onnx.TensorProto.FLOAT, ["batch", "tokens", 2]))
    onnx.save(exported, folder / ONNX_FILE)


def export_mask_graph(model: PreTrainedModel, folder: Path, mask_id: int) -> None:
    """Writes the model.onnx of a model that fills masks: logits (batch, masks, vocabulary) of its masks alone.

    A text with fewer masks than another of its batch has logits of other tokens after those of its own. The rows of
    masks are gathered before the last product, which is with a number for every token of the vocabulary: of all tokens
    it would take as long as several layers, and hundreds of MB. Raises ExportFailed.
    """
    import onnx  # export time only

    from deployments.engines.onnx import INPUT_IDS, LOGITS  # imports ONNX Runtime

    _export(model, folder, "fill-mask", (ONNX_FILE,))
    exported = onnx.load(folder / ONNX_FILE, load_external_data=False)
    graph = exported.graph
    last = _last_product(graph, LOGITS)
    if last is None:
        raise ExportFailed(f"the head of {model.config.model_type} does not end with a product for each token")
    added = _masked_rows(graph, INPUT_IDS, last.input[0], mask_id)
    last.input[0] = added[-1].output[0]
    at = next(place for place, one in enumerate(graph.node) if one.output[0] == last.output[0])
    nodes = [*graph.node[:at], *added, *graph.node[at:]]
    del graph.node[:]
    graph.node.extend(nodes)
    axes = ["batch", "masks", "vocabulary"]
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info(LOGITS, onnx.TensorProto.FLOAT, axes))
    onnx.save(exported, folder / ONNX_FILE)


def _masked_rows(graph: onnx.GraphProto, ids: str, hidden: str, mask_id: int) -> list[onnx.NodeProto]:
    """Nodes that take the rows of masks, in order, out of hidden states (batch, tokens, size); the last gives them.

    Every text has as many rows as the one with the most masks, and at least one.
    """
    import onnx

    constants = {"mask": np.asarray([mask_id]), "one": np.asarray([1]), "last": np.asarray([-1])}
    constants |= {"least": np.ones(1, dtype=np.float32)}
    for name, value in constants.items():
        graph.initializer.append(onnx.numpy_helper.from_array(value, f"masks_{name}"))
    make, kinds = onnx.helper.make_node, onnx.TensorProto
    return [
        make("Equal", [ids, "masks_mask"], ["masks_found"]),
        make("Cast", ["masks_found"], ["masks_scores"], to=kinds.FLOAT),
        make("ReduceSum", ["masks_scores", "masks_one"], ["masks_counts"], keepdims=0),
        make("ReduceMax", ["masks_counts"], ["masks_most"], keepdims=1),
        make("Max", ["masks_most", "masks_least"], ["masks_some"]),
        make("Cast", ["masks_some"], ["masks_number"], to=kinds.INT64),
        make("TopK", ["masks_scores", "masks_number"], ["masks_top", "masks_places"], axis=1),  # equal ones in order
        make("Unsqueeze", ["masks_places", "masks_last"], ["masks_indices"]),
        make("GatherND", [hidden, "masks_indices"], ["masks_rows"], batch_dims=1),
    ]


def _last_product(graph: onnx.GraphProto, output: str) -> onnx.NodeProto | None:
    """The product that gives an output, but for what is added to each of its columns; None if another thing does."""
    made = {name: node for node in graph.node for name in node.output}
    known = {one.name for one in graph.initializer}
    node = made.get(output)
    while node is not None and node.op_type in ("Add", "Identity"):
        node = next((made[name] for name in node.input if name in made and name not in known), None)
    return node if node is not None and node.op_type == "MatMul" else None


def export_seq2seq_graphs(model: PreTrainedModel, folder: Path) -> None:
    """Writes an encoder-decoder's three graphs: encoder, first decoding step, later steps. Raises ExportFailed.

    Weights over 2 GB go beside their graph, since an ONNX file holds no more.
    """
    _export(model, folder, "text2text-generation-with-past", SEQ2SEQ_FILES)


def export_causal_graph(model: PreTrainedModel, folder: Path) -> None:
    """Writes a decoder-only model's model.onnx, with the keys and values of earlier tokens. Raises ExportFailed.

    The graph computes the logits of the tokens that are asked for alone.
    """
    import onnx  # export time only

    _export(model, folder, "text-generation-with-past", CAUSAL_FILES)
    file = folder / CAUSAL_FILES[0]
    made = onnx.load(file)
    _part_products(made.graph)
    _score_from(made.graph)
    _save(made, file)


def _part_products(graph: GraphProto) -> None:
    """Makes a product and a sum of each product with a bias, so that its matrix can be quantised in blocks.

    GPT-2 has such products alone.
    """
    import onnx  # export time only

    weights = {one.name for one in graph.initializer}
    nodes: list[NodeProto] = []
    for node in graph.node:
        settings = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        plain = settings.get("alpha", 1.0) == settings.get("beta", 1.0) == 1.0
        turned = settings.get("transA", 0) or settings.get("transB", 0)
        if node.op_type != "Gemm" or len(node.input) < 3 or node.input[1] not in weights or turned or not plain:
            nodes.append(node)
            continue
        product = f"{node.output[0]}_product"
        nodes.append(onnx.helper.make_node("MatMul", node.input[:2], [product], f"{node.name}_product"))
        nodes.append(onnx.helper.make_node("Add", [product, node.input[2]], node.output, node.name))
    del graph.node[:]
    graph.node.extend(nodes)


def _score_from(graph: GraphProto) -> None:
    """Gives a graph the input that says from which token on logits are computed, if a head of one matrix makes them.

    A number may be added to each logit. Of SmolLM2-135M's multiplications the head's are a fifth, and its logits take
    197 kB a token.
    """
    import onnx  # export time only

    from deployments.engines.onnx import LOGITS  # imports ONNX Runtime
    from deployments.engines.onnx_causal import SCORED_FROM

    weights = {one.name for one in graph.initializer}
    head = _last_product(graph, LOGITS)
    if head is None or head.input[1] not in weights:
        return
    at = next(place for place, one in enumerate(graph.node) if one.output[0] == head.output[0])
    graph.input.append(onnx.helper.make_tensor_value_info(SCORED_FROM, onnx.TensorProto.INT64, [1]))
    bounds = {"end": np.iinfo(np.int64).max, "axis": 1}
    for name, value in bounds.items():
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray([value], np.int64), f"{SCORED_FROM}_{name}"))
    inputs = [head.input[0], SCORED_FROM, *(f"{SCORED_FROM}_{name}" for name in bounds)]
    graph.node.insert(at, onnx.helper.make_node("Slice", inputs, [f"{SCORED_FROM}_output"], f"{SCORED_FROM}_slice"))
    head.input[0] = f"{SCORED_FROM}_output"
    next(one for one in graph.output if one.name == LOGITS).type.tensor_type.shape.dim[1].dim_param = "scored_length"


def export_vectors(model: PreTrainedModel, pooled: torch.nn.Module, file: Path) -> None:
    """Writes the graph of a model with its pooling: token ids and mask in, vectors out, batch and tokens dynamic.

    Raises ExportFailed.
    """
    import torch

    from deployments.engines.onnx import ATTENTION_MASK, INPUT_IDS, LOGITS  # imports ONNX Runtime

    _check_traceable(model.config.model_type)
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


def copy_weights(bench: Workbench) -> None:
    """Copies the checkpoint's files, which the torch engine runs as they are."""
    source = bench.source.path
    for file in (source / "config.json", *source.glob("*.safetensors*")):
        shutil.copyfile(file, bench.folder / file.name)


def open_exported(bench: Workbench, scratch: Path, window: int) -> Engine:
    """Opens what was exported, to prove it: the fp32 graph in the scratch folder, or the weights as torch runs them.

    Raises ValueError for a graph with inputs that no text gives.
    """
    size = EngineSize(bench.plan.threads, 1, window)
    if bench.plan.engine == "torch":
        return open_engine_named("torch", bench.folder, size)
    return open_engine_named("onnx", scratch, size)


def place_graphs(bench: Workbench, scratch: Path, names: Sequence[str], ways: Quantise | None = None) -> None:
    """Moves the named fp32 graphs from the scratch folder to the variant's, in the plan's precision.

    One at a time: quantising needs several times the graph's memory, so release the model first. `ways` are in place of
    `QUANTISED`.
    """
    quantised = (ways or QUANTISED).get(bench.plan.precision)
    for at, name in enumerate(names):
        if quantised is not None:
            bench.progress(Step.QUANTISING, at / len(names))
            quantised(scratch / name, bench.folder / name)
        for file in scratch.glob(f"{name}*"):
            if quantised is not None:
                file.unlink()
            else:
                file.rename(bench.folder / file.name)


def graph_folders(bench: Workbench, scratch: Path, precisions: Iterable[Precision]) -> dict[Precision, Path]:
    """The folder of a one-pass graph for each precision, below a scratch folder that holds the fp32 graph.

    Engines make bf16 of the fp32 graph themselves.
    """
    folders = dict.fromkeys(precisions, scratch)
    for precision in folders.keys() & QUANTISED.keys():
        bench.progress(Step.QUANTISING, 0.0)
        folders[precision] = scratch / precision
        folders[precision].mkdir()
        QUANTISED[precision](scratch / ONNX_FILE, folders[precision] / ONNX_FILE)
    return folders


def add_openvino(folder: Path) -> None:
    """Writes the folder's fp32 graph once more, in OpenVINO's own form with weights in fp16, unless it is there.

    What is served is read from this form, so the proof compares it. Raises what OpenVINO raises.
    """
    import openvino  # part of its extra

    if not (folder / OPENVINO_FILE).exists():
        openvino.save_model(
            openvino.Core().read_model(folder / ONNX_FILE), folder / OPENVINO_FILE, compress_to_fp16=True
        )


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


def quantise_weights(fp32: Path, out: Path, block: int = BLOCK, tables: bool = False) -> None:
    """Quantises the matrices of a graph to int8 in blocks of weights, each with a scale; the rest stays fp32.

    `tables` has tables of embeddings quantised too.

    ONNX Runtime multiplies them with activations that it rounds to int8 in blocks as well (`MatMulNBits`). A block is
    finer than a channel, so a deep model keeps more of its answers than by `quantise`: of mpnet-sentiment's labels on
    its dev split 99.4 %, not 97.7 %.
    """
    import onnx  # export time only

    model = onnx.load(fp32)
    graph = model.graph
    weights = {one.name: one for one in graph.initializer}
    users = Counter(name for node in graph.node for name in node.input)
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in weights:
            continue
        name = node.input[1]
        matrix = onnx.numpy_helper.to_array(weights[name])
        if matrix.ndim != 2 or matrix.dtype != np.float32 or users[name] > 1:
            continue
        packed, scales = in_blocks(matrix, block)
        graph.initializer.remove(weights.pop(name))
        for suffix, array in (("packed", packed), ("scales", scales)):
            graph.initializer.append(onnx.numpy_helper.from_array(array, f"{name}_{suffix}"))
        sizes = {"K": matrix.shape[0], "N": matrix.shape[1], "bits": 8, "block_size": block, "accuracy_level": 4}
        inputs = [node.input[0], f"{name}_packed", f"{name}_scales"]
        node.CopyFrom(
            onnx.helper.make_node("MatMulNBits", inputs, node.output, node.name, domain="com.microsoft", **sizes)
        )
    if tables:
        _pack_tables(graph, block)
    if not any(one.domain == "com.microsoft" for one in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    _save(model, out)


def _pack_tables(graph: GraphProto, block: int) -> None:
    """Quantises tables that rows are taken of, in blocks along each row. ONNX Runtime makes floats of what it takes.

    SmolLM2's is in such blocks already, so that nothing is lost. It takes 32 MB in place of 113.
    """
    import onnx  # export time only

    weights = {one.name: one for one in graph.initializer}
    users = Counter(name for node in graph.node for name in node.input)
    for node in graph.node:
        name = node.input[0] if node.op_type == "Gather" else ""
        if name not in weights or users[name] > 1:
            continue
        table = onnx.numpy_helper.to_array(weights[name])
        if table.ndim != 2 or table.dtype != np.float32 or table.shape[1] % block:
            continue
        packed, scales = in_blocks(table.T, block)
        graph.initializer.remove(weights.pop(name))
        for suffix, array in (("packed", packed.reshape(table.shape)), ("scales", scales)):
            graph.initializer.append(onnx.numpy_helper.from_array(array, f"{name}_{suffix}"))
        sizes: dict[str, Any] = {"gather_axis": 0, "quantize_axis": 1, "block_size": block, "bits": 8}
        inputs = [f"{name}_packed", node.input[1], f"{name}_scales"]
        node.CopyFrom(
            onnx.helper.make_node(
                "GatherBlockQuantized", inputs, node.output, node.name, domain="com.microsoft", **sizes
            )
        )


def _save(model: ModelProto, out: Path) -> None:
    """Writes a graph; large weights go to a separate file beside it, in place of what lies there."""
    import onnx  # export time only

    beside = f"{out.name}.data"
    for old in out.parent.glob(f"{out.name}*"):
        old.unlink()
    onnx.save(model, out, save_as_external_data=model.ByteSize() > LARGEST_FILE, location=beside)


def in_blocks(matrix: NDArray[np.float32], block: int = BLOCK) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The columns of a matrix (K, N) as uint8 (N, blocks, `block`), and the scale of each block (N, blocks).

    A weight is its number less 128, times its block's scale; the last block is filled up with zeros.
    """
    rows, columns = matrix.shape
    blocks = -(-rows // block)
    padded = np.zeros((columns, blocks * block), dtype=np.float32)
    padded[:, :rows] = matrix.T
    padded = padded.reshape(columns, blocks, block)
    scales = np.abs(padded).max(axis=2) / 127
    scales[scales == 0] = 1.0
    packed = np.rint(padded / scales[:, :, None]) + 128
    return packed.astype(np.uint8), scales


QUANTISED: Quantise = {
    Precision.INT8: quantise,
    Precision.INT8_WEIGHTS: quantise_weights,
}
"""What makes a graph of the fp32 graph, by precision. Engines make bf16 themselves."""


def _export(model: PreTrainedModel, folder: Path, task: str, files: tuple[str, ...]) -> None:
    """Exports with optimum, without its last step, which would merge the decoder graphs; or by a way of our own.

    Raises ExportFailed.
    """
    from optimum.exporters.onnx import onnx_export_from_model  # imports torch

    from exporters.kinds.own_graphs import CONFIGURED, OWN  # imports torch

    family = model.config.model_type
    _check_traceable(family)
    if (family, task) in OWN:
        OWN[family, task](model, folder)
        return
    told: dict[str, Any] = {}
    if (family, task) in CONFIGURED:
        told["custom_onnx_configs"] = {"model": CONFIGURED[family, task](model.config)}
    plain = len(files) > 1
    try:
        onnx_export_from_model(model, output=folder, task=task, do_validation=False, no_post_process=plain, **told)
    except (ValueError, KeyError, IndexError, NotImplementedError, RuntimeError) as error:
        raise ExportFailed(f"{family} cannot be exported to ONNX: {_in_short(error)}") from error
    missing = [name for name in files if not (folder / name).exists()]
    if missing:
        raise ExportFailed(f"the export of {family} left no {', '.join(missing)}")


def _check_traceable(family: str) -> None:
    """Raises ExportFailed for an architecture whose graph would be wrong."""
    if family in WRONG_GRAPHS:
        raise ExportFailed(f"{family} {WRONG_GRAPHS[family]}")


def _in_short(error: Exception) -> str:
    """The first line of what a library says, without its advice."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return said.partition(". Please ")[0]
