"""Makes the model folders that engines load, and caches them for later runs.

Each is made in its own process, `python -m loadtests.bench.decoding.folders KIND SOURCE FOLDER`, so that the memory of
torch is free before a graph is quantised.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from rich.console import Console
from tokenizers import Tokenizer

from exporters.sources.source import resolve_source
from loadtests.bench.peers.servers import ROOT, child_environment
from loadtests.errors import EngineFailed, NoRace

RANDOM = ("distilbart-6-6", "bart-large", "pegasus-large")
"""The names of architectures that `exporters.random_seq2seq` can write."""
CARRIED = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
LOG_END = 1500


@dataclass(frozen=True)
class Folders:
    """The folders of one checkpoint by kind, always including `checkpoint`."""

    name: str
    by_kind: Mapping[str, Path]

    @property
    def checkpoint(self) -> Path:
        """The folder of the checkpoint itself."""
        return self.by_kind["checkpoint"]


@dataclass(frozen=True)
class Shapes:
    """A checkpoint's special tokens, number of usable token ids, and maximum length in tokens."""

    start_id: int
    end_id: int
    entries: int
    positions: int


def prepare(location: str, kinds: Sequence[str], work: Path, threads: int, console: Console) -> Folders:
    """Makes the missing folders below `work`; the first time takes minutes and gigabytes.

    `location` is one of RANDOM, `starter:NAME` or a folder. Raises NoRace, SourceRefused and EngineFailed.
    """
    if location in RANDOM:
        name, home = location, work / location
        found = {"checkpoint": _made("checkpoint", location, home, threads, console)}
    else:
        source = resolve_source(location)
        name, home = source.path.name, work / f"{source.path.name}-{source.sha256[:12]}"
        found = {"checkpoint": source.path}
    shapes(found["checkpoint"])  # refuse early: the exports below take minutes
    wanted = {*kinds, *(KINDS[kind].made_from for kind in kinds)}
    for kind, recipe in KINDS.items():
        if kind in wanted and kind not in found:
            found[kind] = _made(kind, str(found[recipe.made_from]), home, threads, console)
    return Folders(name, found)


def shapes(checkpoint: Path) -> Shapes:
    """Reads a checkpoint's folder. Raises NoRace if it is no encoder-decoder or lacks a needed entry."""
    config = json.loads((checkpoint / "config.json").read_bytes())
    if not config.get("is_encoder_decoder"):
        raise NoRace(f"{checkpoint.name} is no encoder-decoder, so it writes no tokens")
    names = ("decoder_start_token_id", "eos_token_id", "max_position_embeddings")
    start, end, positions = (config.get(name) for name in names)
    tokenizer = checkpoint / "tokenizer.json"
    if start is None or end is None or positions is None or not tokenizer.exists():
        raise NoRace(f"{checkpoint.name} lacks one of {', '.join(names)} and tokenizer.json")
    entries = Tokenizer.from_file(str(tokenizer)).get_vocab_size()
    return Shapes(start, end, min(entries, config["vocab_size"]), positions)


def _made(kind: str, source: str, home: Path, threads: int, console: Console) -> Path:
    """The folder of one kind, made atomically. A lock makes other processes wait for it."""
    folder, what = home / kind, KINDS[kind].what
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / f"{kind}.lock"):
        if folder.exists():
            return folder
        with tempfile.TemporaryDirectory(prefix=f".{kind}-", dir=home) as scratch:
            with console.status(f"{home.name}: making {what}; cached for later runs"):
                _make_apart(kind, source, Path(scratch, kind), threads)
            os.replace(Path(scratch, kind), folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    console.print(f"{home.name}: {what}, {size / 1e6:.0f} MB")
    return folder


def _make_apart(kind: str, source: str, folder: Path, threads: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.bench.decoding.folders", kind, source, str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        env=child_environment() | {"OMP_NUM_THREADS": str(threads)},
        check=False,
    )
    if done.returncode:
        log = done.stdout.decode(errors="replace").strip()[-LOG_END:]
        raise EngineFailed(f"{KINDS[kind].what} could not be made: status {done.returncode}: {log}")


def _make_checkpoint(name: str, folder: Path) -> None:
    """Writes a named architecture with random weights."""
    from exporters.random_seq2seq import architecture, write_random_checkpoint

    write_random_checkpoint(architecture(name), folder)


def _make_fp32(source: str, folder: Path) -> None:
    """Exports the encoder, the first decode step and the further steps, as the exporters do."""
    import torch
    from transformers import AutoModelForSeq2SeqLM

    from exporters.export import quiet_libraries
    from exporters.kinds.graphs import export_seq2seq_graphs

    with quiet_libraries():
        model = AutoModelForSeq2SeqLM.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
        export_seq2seq_graphs(model.eval(), folder)
    _carry(source, folder)


def _make_int8(source: str, folder: Path) -> None:
    """Quantises the fp32 graphs to int8, as the exporters do."""
    from exporters.export import quiet_libraries
    from exporters.kinds.graphs import quantise

    folder.mkdir(parents=True, exist_ok=True)
    with quiet_libraries():
        for graph in sorted(Path(source).glob("*.onnx")):
            quantise(graph, folder / graph.name)
    _carry(source, folder)


def _make_ctranslate2(source: str, folder: Path) -> None:
    """Converts to CTranslate2's int8 format."""
    from loadtests.bench.decoding.ctranslate2 import convert

    convert(Path(source), folder)


def _carry(source: str, folder: Path) -> None:
    for name in CARRIED:
        if Path(source, name).exists():
            shutil.copyfile(Path(source, name), folder / name)


@dataclass(frozen=True)
class _Recipe:
    """A folder's content, the kind it is made from, and its maker: `make(source, folder)`."""

    what: str
    made_from: str
    make: Callable[[str, Path], None]


KINDS = {
    "checkpoint": _Recipe("random weights", "checkpoint", _make_checkpoint),
    "fp32": _Recipe("ONNX graphs", "checkpoint", _make_fp32),
    "int8": _Recipe("int8 graphs", "fp32", _make_int8),
    "ctranslate2": _Recipe("CTranslate2's model", "checkpoint", _make_ctranslate2),
}
"""All kinds of folders; each follows the kind it is made from."""


if __name__ == "__main__":
    KINDS[sys.argv[1]].make(sys.argv[2], Path(sys.argv[3]))
