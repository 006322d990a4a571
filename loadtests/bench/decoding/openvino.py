"""OpenVINO in bf16 on the fp32 ONNX graphs, behind the port of seq2seq engines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino.preprocess import PrePostProcessor

from deployments.engines.base import Logits, TokenIds

ENCODER, FIRST, NEXT = "encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx"
GRAPHS = (ENCODER, FIRST, NEXT)
PAST, PRESENT, OF_TEXT, LOGITS = "past_key_values", "present", ".encoder.", "logits"


class OpenVinoSeq2Seq:
    """Three compiled graphs: the encoder, the first decode step, and all further steps."""

    def __init__(self, encoder: ov.CompiledModel, first: ov.CompiledModel, following: ov.CompiledModel) -> None:
        """Takes compiled graphs; `open` makes them."""
        self._encoder, self._first, self._next = encoder, first, following

    @classmethod
    def open(cls, folder: Path, threads: int) -> OpenVinoSeq2Seq:
        """Compiles optimum's three graphs with past. Raises OpenVINO's errors.

        If the processor computes in bf16, keys and values stay in bf16 between decode steps; otherwise they would be
        converted for every token.
        """
        core = ov.Core()
        halves = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if halves else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        models = [core.read_model(folder / name) for name in GRAPHS]
        if halves:
            models = [_keeping_halves(model) for model in models]
        return cls(*(core.compile_model(model, "CPU", settings) for model in models))

    @property
    def arithmetic(self) -> str:
        """The precision in use: bf16 only if the processor supports it."""
        return str(self._next.get_property("INFERENCE_PRECISION_HINT").get_type_name())

    def encode(self, token_ids: TokenIds) -> OpenVinoDecoder:
        """Runs the encoder on token ids (tokens,)."""
        request = self._encoder.create_infer_request()
        mask = np.ones((1, len(token_ids)), dtype=np.int64)
        request.infer({"input_ids": token_ids[None], "attention_mask": mask})
        return OpenVinoDecoder(self._first, self._next, request.get_output_tensor(0), mask)


class OpenVinoDecoder:
    """One text being decoded. Two infer requests alternate: each reads the other's output tensors without a copy."""

    def __init__(self, first: ov.CompiledModel, following: ov.CompiledModel, hidden: ov.Tensor, mask: TokenIds) -> None:
        self._first = first.create_infer_request()
        self._requests = [following.create_infer_request() for _ in range(2)]
        self._hidden, self._mask = hidden, mask
        self._rows = 0
        self._past: dict[str, ov.Tensor] = {}

    def step(self, tokens: TokenIds, origins: TokenIds) -> Logits:
        """Feeds one token per row, continuing the rows `origins`. Returns logits (rows, vocabulary).

        The encoder's keys and values stay a single row, which attention broadcasts over all beams.
        """
        if not self._rows:
            outputs = _run(self._first, {"encoder_hidden_states": self._hidden}, tokens, self._mask)
        else:
            self._reorder(origins)
            request = self._requests[0]
            self._requests.reverse()
            outputs = _run(request, self._past, tokens, self._mask)
        self._rows = len(tokens)
        logits: Logits = outputs.pop(LOGITS).data[:, -1]
        self._past |= {name.replace(PRESENT, PAST, 1): tensor for name, tensor in outputs.items()}
        return logits

    def _reorder(self, origins: TokenIds) -> None:
        """Makes row i continue row origins[i]."""
        if np.array_equal(origins, np.arange(self._rows)):
            return
        for name, tensor in self._past.items():
            if OF_TEXT not in name:
                rows = tensor.data[origins]  # NumPy sees bf16 as float16 with the same bits
                self._past[name] = ov.Tensor(rows, ov.Shape(rows.shape), tensor.element_type)


def _keeping_halves(model: ov.Model) -> ov.Model:
    """The model with bf16 keys and values as inputs and outputs."""
    edge = PrePostProcessor(model)
    for side, ports in ((edge.input, model.inputs), (edge.output, model.outputs)):
        for port in ports:
            name = next((one for one in port.names if one.startswith((PAST, PRESENT))), None)
            if name:
                side(name).tensor().set_element_type(ov.Type.bf16)
    return edge.build()


def _run(
    request: ov.InferRequest, tensors: Mapping[str, ov.Tensor], tokens: TokenIds, mask: TokenIds
) -> dict[str, Any]:
    for name, tensor in tensors.items():
        request.set_tensor(name, tensor)
    request.set_tensor("input_ids", ov.Tensor(tokens[:, None].astype(np.int64)))
    request.set_tensor("encoder_attention_mask", ov.Tensor(mask))
    request.infer()
    return {_name(output.names): request.get_tensor(output) for output in request.model_outputs}


def _name(names: set[str]) -> str:
    """The name that optimum gave an output; the graph's nodes add others."""
    return next(name for name in names if name == LOGITS or name.startswith(PRESENT))
