"""Laws of graphs whose matrices are int8 in blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from exporters.kinds.graphs import BLOCK, in_blocks, quantise_weights

CHANCE = np.random.default_rng(5)


@pytest.mark.parametrize("rows", [1, BLOCK - 1, BLOCK, 3 * BLOCK, 3 * BLOCK + 7])
def test_each_weight_is_within_half_a_step_of_its_block(rows: int) -> None:
    """Every weight is kept to half a step of its own block's scale, and what fills up the last block is zero."""
    matrix = CHANCE.normal(size=(rows, 5)).astype(np.float32)
    matrix[:, 2] *= 100
    matrix[:, 3] = 0
    packed, scales = in_blocks(matrix)
    again = ((packed.astype(np.float32) - 128) * scales[:, :, None]).reshape(5, -1).T
    steps = np.repeat(scales, BLOCK, axis=1).T
    assert (np.abs(again[:rows] - matrix) <= steps[:rows] * 0.501).all()
    assert (again[rows:] == 0).all()


def graph(path: Path, rows: int = 200) -> None:
    """Writes a graph of two matrix products, of which the second multiplies two inputs of the graph's own making."""
    weight = onnx.numpy_helper.from_array(CHANCE.normal(size=(rows, 6)).astype(np.float32), "weight")
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "weight"], ["y"], "first"),
        onnx.helper.make_node("Transpose", ["y"], ["turned"]),
        onnx.helper.make_node("MatMul", ["y", "turned"], ["z"], "second"),
    ]
    taken, given = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", [None, rows]), ("z", [None, None]))
    )
    whole = onnx.helper.make_graph(nodes, "products", [taken], [given], [weight])
    model = onnx.helper.make_model(whole, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def test_a_graph_in_blocks_answers_nearly_as_in_fp32(tmp_path: Path) -> None:
    """Only products with a matrix of weights are quantised, and the answers stay close to those in fp32."""
    graph(tmp_path / "fp32.onnx")
    quantise_weights(tmp_path / "fp32.onnx", tmp_path / "blocks.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "blocks.onnx").graph.node]
    assert kinds == ["MatMulNBits", "Transpose", "MatMul"]
    asked = {"x": CHANCE.normal(size=(4, 200)).astype(np.float32)}
    fp32, blocks = (
        onnxruntime.InferenceSession(str(tmp_path / name), providers=["CPUExecutionProvider"]).run(None, asked)[0]
        for name in ("fp32.onnx", "blocks.onnx")
    )
    assert not np.array_equal(fp32, blocks)
    assert np.abs(fp32 - blocks).max() < 0.02 * np.abs(fp32).max()


def test_a_table_in_blocks_gives_nearly_the_rows_in_fp32(tmp_path: Path) -> None:
    """Rows taken of a quantised table are within half a step of their blocks; other tables stay as they are."""
    tables = {"wide": CHANCE.normal(size=(50, 64)).astype(np.float32), "odd": np.ones((50, 7), dtype=np.float32)}
    nodes = [onnx.helper.make_node("Gather", [name, "ids"], [f"{name}_rows"], name) for name in tables]
    taken = onnx.helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, [None])
    given = [
        onnx.helper.make_tensor_value_info(f"{name}_rows", onnx.TensorProto.FLOAT, [None, None]) for name in tables
    ]
    known = [onnx.numpy_helper.from_array(table, name) for name, table in tables.items()]
    whole = onnx.helper.make_graph(nodes, "tables", [taken], given, known)
    model = onnx.helper.make_model(whole, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "fp32.onnx")
    quantise_weights(tmp_path / "fp32.onnx", tmp_path / "blocks.onnx", block=32, tables=True)
    kinds = [node.op_type for node in onnx.load(tmp_path / "blocks.onnx").graph.node]
    assert kinds == ["GatherBlockQuantized", "Gather"]
    session = onnxruntime.InferenceSession(str(tmp_path / "blocks.onnx"), providers=["CPUExecutionProvider"])
    ids = np.array([3, 49, 0])
    rows = session.run(["wide_rows"], {"ids": ids})[0]
    step = np.abs(tables["wide"][ids]).max(axis=1, keepdims=True) / 127
    assert (np.abs(rows - tables["wide"][ids]) <= 0.51 * step).all() and not np.array_equal(rows, tables["wide"][ids])
