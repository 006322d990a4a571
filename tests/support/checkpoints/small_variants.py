"""A variant small enough to make in milliseconds and without torch, for unit tests to open, run and damage.

Its graph sums a row of a fixed table for every token that the mask lets through.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from deployments.engines.base import Logits
from deployments.engines.onnx import OnnxEngine
from deployments.engines.opening import ONNX_FILE
from deployments.replica.classify import LabelScorer
from deployments.replica.tokens import TOKENIZER_FILE
from deployments.replica.variant import file_sha256
from exporters.kinds.graphs import add_openvino
from exporters.verification import record_self_test
from gateway.model.manifest import ClassifierManifest, Precision, SourceOf, Verification, write_manifest
from gateway.model.profile import ProfileCell, ProfileDocument

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "film", "good", "bad", "very", "##s", "."]
LABELS = ("negative", "positive")
WINDOW = 12
TEXTS = ("good film", "a very bad film.", "films")


def tokenizer() -> Tokenizer:
    """Return a tokenizer of BERT's kind, with truncation and padding left on, as saved ones often have them."""
    made = Tokenizer(models.WordPiece({piece: at for at, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.enable_truncation(4)
    made.enable_padding(length=9)
    return made


def weights() -> Logits:
    """Return the table: one row of two logits a token."""
    drawn: Logits = np.random.default_rng(5).normal(size=(len(PIECES), 2)).astype(np.float32)
    return drawn


def write_graph(path: Path, extra_input: str | None = None) -> None:
    """Write the graph; an extra input, if named, is added to the ids."""
    names = ["input_ids", "attention_mask", *([extra_input] if extra_input else [])]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in names]
    ids = "input_ids"
    nodes = []
    if extra_input:
        ids = "sum_ids"
        nodes.append(helper.make_node("Add", ["input_ids", extra_input], [ids]))
    nodes += [
        helper.make_node("Gather", ["table", ids], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["floats", "last"], ["mask"]),
        helper.make_node("Mul", ["rows", "mask"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "tokens_axis"], ["logits"], keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(weights(), "table"),
        numpy_helper.from_array(np.array([2], dtype=np.int64), "last"),
        numpy_helper.from_array(np.array([1], dtype=np.int64), "tokens_axis"),
    ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "sum", inputs, [output], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def write_variant(folder: Path, cpu_features: tuple[str, ...] = (), engine: str = "onnx") -> ClassifierManifest:
    """Write a whole variant of the graph for an engine: files, self-test, profile, manifest."""
    folder.mkdir(parents=True)
    write_graph(folder / ONNX_FILE)
    if engine == "openvino":
        add_openvino(folder)
    tokenizer().save(str(folder / TOKENIZER_FILE))
    task = LabelScorer.open(folder / TOKENIZER_FILE, LABELS, WINDOW)
    cell = ProfileCell(batch=1, tokens=8, samples=1, p50_s=0.001, p95_s=0.002, min_s=0.001, max_s=0.002)
    manifest = ClassifierManifest(
        checkpoint="by-hand",
        task="classify",
        family="sum",
        engine=engine,
        precision=Precision.FP32,
        source=SourceOf(location="here", revision="", sha256="0" * 64),
        labels=LABELS,
        max_tokens=WINDOW,
        files={file.name: file_sha256(file) for file in sorted(folder.iterdir())},
        cpu_features=cpu_features,
        verification=Verification(
            texts=3, data_set="by hand", label_agreement=1, label_agreement_floor=1, largest_logit_difference=0
        ),
        self_test=record_self_test(OnnxEngine.open(folder / ONNX_FILE, 1), task.ids, WINDOW, TEXTS),
        profile=ProfileDocument(threads=1, measured_on="somewhere else", cells=(cell,)),
        made_with={},
    )
    write_manifest(folder, manifest)
    return manifest
