"""Writes the weights of exported ONNX graphs as safetensors, under the names that their checkpoints had.

Exporters keep the names of embeddings, biases and norms, and leave the matrices of linear layers anonymous. Each of
those is named by the bias that the graph adds to its product.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import GraphProto, NodeProto

    Tensors: TypeAlias = dict[str, NDArray[Any]]

IN_BLOCKS, PLAIN = "MatMulNBits", "MatMul"
"""The operators of linear layers: over a matrix in blocks of few bits, and over one of floats."""

QUANTISED = "_quantized"
"""What the name of a table ends with that is one integer for each weight."""

PARTS = (".weight", ".bias")


def of_onnx_bert(file: Path, out: Path) -> None:
    """Writes the weights of an exported BERT, without what wraps the transformer in their names.

    Raises ValueError if a matrix has no bias, or a bias no matrix.
    """
    from onnx import load, numpy_helper  # part of the export extra

    graph = load(str(file)).graph
    known = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    weights = _named(graph, known, file.name)
    _write({_own_name(name): tensor for name, tensor in weights.items()}, out)


def of_onnx_q4(file: Path, out: Path) -> None:
    """Writes the weights of a graph with matrices in blocks of 4 bits and tables in 8 bits, as fp32.

    Nothing is lost: the weights are those that the graph computes with. Raises ValueError as `of_onnx_bert` does, and
    for a matrix in another form.
    """
    from onnx import load, numpy_helper  # part of the export extra

    graph = load(str(file)).graph
    known = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    for node in graph.node:
        if node.op_type == IN_BLOCKS:
            known[node.input[1]] = _of_blocks(node, known)
    _write(_named(graph, known | _tables(known), file.name), out)


def matrices_of(graph: GraphProto, known: Mapping[str, object]) -> dict[str, str]:
    """The bias that belongs to each matrix of a graph's linear layers, both by the names of initializers.

    Raises ValueError for a matrix without one.
    """
    products = {
        node.output[0]: node.input[1]
        for node in graph.node
        if node.op_type in (PLAIN, IN_BLOCKS) and node.input[1] in known
    }
    biases: dict[str, str] = {}
    for node in graph.node:
        if node.op_type == "Add":
            for product, bias in (node.input, reversed(node.input)):
                if product in products and bias in known:
                    biases[products[product]] = bias
    unnamed = sorted({*products.values()} - {*biases})
    if unnamed:
        raise ValueError(f"no bias names the matrix {unnamed[0]}")
    return biases


def _named(graph: GraphProto, known: Mapping[str, NDArray[Any]], name: str) -> Tensors:
    """A graph's weights by the names of its checkpoint, matrices as PyTorch has them: outputs first."""
    weights = {name: known[name] for name in known if name.endswith(PARTS)}
    for matrix, bias in matrices_of(graph, known).items():
        weights[bias.removesuffix("bias") + "weight"] = known[matrix].T.copy()
    lonely = [one for one in weights if one.endswith(".bias") and f"{one.removesuffix('bias')}weight" not in weights]
    if lonely:
        raise ValueError(f"{name} has no matrix for {lonely[0]}")
    return weights


def _of_blocks(node: NodeProto, known: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """The matrix (inputs, outputs) of a linear layer in blocks of 4 bits: each number less 8, times its block's scale.

    Raises ValueError for another number of bits, or blocks with zero points of their own.
    """
    from onnx import helper

    sizes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    if sizes["bits"] != 4 or any(node.input[3:]):
        raise ValueError(f"{node.name} is not in blocks of 4 bits around 8")
    packed, columns = known[node.input[1]], int(sizes["N"])
    scales = known[node.input[2]].reshape(columns, -1, 1).astype(np.float32)
    numbers = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], -1).astype(np.float32) - 8
    whole = (numbers * scales).reshape(columns, -1)[:, : int(sizes["K"])]
    return np.ascontiguousarray(whole.T)


def _tables(known: Mapping[str, NDArray[Any]]) -> Tensors:
    """The tables of embeddings in 8 bits, under their own names: each number less the zero, times the scale."""
    found: Tensors = {}
    for name in known:
        if name.endswith(QUANTISED):
            own = name.removesuffix(QUANTISED)
            zero, scale = known[f"{own}_zero_point"].astype(np.float32), known[f"{own}_scale"].astype(np.float32)
            found[own] = (known[name].astype(np.float32) - zero) * scale
    return found


def _own_name(name: str) -> str:
    """A tensor's name without what wraps the transformer: `model.0.auto_model.encoder...` is `encoder...`."""
    for part in ("embeddings.", "encoder.", "pooler."):
        at = name.find(part)
        if at >= 0:
            return name[at:]
    return name


def _write(weights: Tensors, out: Path) -> None:
    from safetensors.numpy import save_file  # part of the export extra

    save_file(weights, out, metadata={"format": "pt"})
