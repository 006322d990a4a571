"""From an fp32 graph to an int8 one: the one recipe that kept its answers when it was measured."""

from __future__ import annotations

from pathlib import Path


def quantise(fp32: Path, int8: Path) -> None:
    """Writes the dynamically quantised graph, embeddings included.

    Per channel and without reduce_range: 98.7 % of a DistilBERT's labels agreed with fp32, per tensor 95 to 97 %, with
    reduce_range down to 92 %. It therefore needs a processor with int8 dot products.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic  # imports onnx: export time only

    quantize_dynamic(fp32, int8, per_channel=True, reduce_range=False, weight_type=QuantType.QInt8)
