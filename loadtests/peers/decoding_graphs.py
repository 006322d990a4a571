"""What the engines of a decoding race load, made from one checkpoint: graphs in fp32 and int8, CTranslate2's model.

Run as `python -m loadtests.peers.decoding_graphs KIND SOURCE FOLDER`, one process for each: the torch model and its
gigabytes are gone before a graph is quantised. It writes FOLDER whole, or ends with a status that is not 0.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

CHECKPOINT, FP32, INT8, CTRANSLATE2 = "checkpoint", "fp32", "int8", "ctranslate2"
CARRIED = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
EXTERNAL_FROM = 1_800_000_000
"""Bytes of a graph from which weights stand in a file beside it: a protobuf ends at 2 GiB."""


def make_checkpoint(name: str, folder: Path) -> None:
    """Random weights in the shapes of a named architecture."""
    from exporters.random_seq2seq import architecture, write_random_checkpoint

    write_random_checkpoint(architecture(name), folder)


def make_fp32(source: Path, folder: Path) -> None:
    """An encoder, a decoder for the first step and one for every further step, by optimum."""
    import torch
    from optimum.exporters.onnx import onnx_export_from_model
    from transformers import AutoModelForSeq2SeqLM

    from exporters.quiet import quiet_libraries

    with quiet_libraries():
        model = AutoModelForSeq2SeqLM.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
        onnx_export_from_model(
            model.eval(),
            output=folder,
            task="text2text-generation-with-past",
            do_validation=False,
            no_post_process=True,  # which would write both decoders a third time, as branches of one graph
        )
    _carry(source, folder)


def make_int8(source: Path, folder: Path) -> None:
    """The fp32 graphs of `source`, weights and embeddings quantised per channel: the recipe of `exporters.quantise`."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from exporters.quiet import quiet_libraries

    folder.mkdir(parents=True, exist_ok=True)
    with quiet_libraries():
        for graph in sorted(source.glob("*.onnx")):
            size = sum(file.stat().st_size for file in source.glob(f"{graph.name}*"))
            quantize_dynamic(
                graph,
                folder / graph.name,
                per_channel=True,
                reduce_range=False,
                weight_type=QuantType.QInt8,
                use_external_data_format=size > EXTERNAL_FROM,
            )
    _carry(source, folder)


def make_ctranslate2(source: Path, folder: Path) -> None:
    """CTranslate2's own format, int8."""
    from loadtests.peers.decoding_ctranslate2 import convert

    convert(source, folder)


def _carry(source: Path, folder: Path) -> None:
    for name in CARRIED:
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)


def main(kind: str, source: str, folder: Path) -> None:
    """The program; `source` is an architecture's name for a checkpoint, else a folder."""
    match kind:
        case "checkpoint":
            make_checkpoint(source, folder)
        case "fp32":
            make_fp32(Path(source), folder)
        case "int8":
            make_int8(Path(source), folder)
        case "ctranslate2":
            make_ctranslate2(Path(source), folder)
        case _:
            raise SystemExit(f"nothing of the kind {kind!r} is made here")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
