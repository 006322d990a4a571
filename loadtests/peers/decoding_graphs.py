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


def make_checkpoint(name: str, folder: Path) -> None:
    """Random weights in the shapes of a named architecture."""
    from exporters.random_seq2seq import architecture, write_random_checkpoint

    write_random_checkpoint(architecture(name), folder)


def make_fp32(source: Path, folder: Path) -> None:
    """An encoder, a decoder for the first step and one for every further step, as the exporters make them."""
    import torch
    from transformers import AutoModelForSeq2SeqLM

    from exporters.graph import export_seq2seq_graphs
    from exporters.quiet import quiet_libraries

    with quiet_libraries():
        model = AutoModelForSeq2SeqLM.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
        export_seq2seq_graphs(model.eval(), folder)
    _carry(source, folder)


def make_int8(source: Path, folder: Path) -> None:
    """The fp32 graphs of `source` by the exporters' recipe of int8."""
    from exporters.quantise import quantise
    from exporters.quiet import quiet_libraries

    folder.mkdir(parents=True, exist_ok=True)
    with quiet_libraries():
        for graph in sorted(source.glob("*.onnx")):
            quantise(graph, folder / graph.name)
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
