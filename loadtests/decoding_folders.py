"""The folders that engines load, made from a checkpoint once and kept: a second race exports nothing again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from rich.console import Console
from tokenizers import Tokenizer

from exporters.source import resolve_source
from loadtests.bench.peers.servers import ROOT, child_environment
from loadtests.errors import EngineFailed, NoRace

RANDOM = ("distilbart-6-6", "pegasus-large")
"""The architectures that `exporters.random_seq2seq` writes, by their names there."""
MADE_FROM = {"fp32": "checkpoint", "int8": "fp32", "ctranslate2": "checkpoint"}
"""What each kind of folder is made from; in the order in which they can be made."""
WHAT = {
    "checkpoint": "random weights",
    "fp32": "ONNX graphs",
    "int8": "int8 graphs",
    "ctranslate2": "CTranslate2's model",
}
LOG_END = 1500


@dataclass(frozen=True)
class Folders:
    """Every folder that was asked for of one checkpoint, by its kind; `checkpoint` is always there."""

    name: str
    by_kind: Mapping[str, Path]

    @property
    def checkpoint(self) -> Path:
        """The checkpoint itself."""
        return self.by_kind["checkpoint"]


@dataclass(frozen=True)
class Shapes:
    """What a race must know of a checkpoint: its special tokens, its tokenizer's entries and its longest text."""

    start_id: int
    end_id: int
    entries: int
    positions: int


def prepare(location: str, kinds: Sequence[str], work: Path, threads: int, console: Console) -> Folders:
    """Makes what is missing below `work`, each kind in a process of its own; minutes and gigabytes the first time.

    `location` is one of RANDOM, `starter:NAME` or a folder. Raises NoRace, SourceRefused and EngineFailed.
    """
    if location in RANDOM:
        name, home = location, work / location
        found = {"checkpoint": _made("checkpoint", location, home, threads, console)}
    else:
        source = resolve_source(location)
        name, home = source.path.name, work / f"{source.path.name}-{source.sha256[:12]}"
        found = {"checkpoint": source.path}
    shapes(found["checkpoint"])  # before minutes are spent on it
    wanted = {*kinds, *(MADE_FROM.get(kind, kind) for kind in kinds)}
    for kind in (one for one in MADE_FROM if one in wanted):
        found[kind] = _made(kind, str(found[MADE_FROM[kind]]), home, threads, console)
    return Folders(name, found)


def shapes(checkpoint: Path) -> Shapes:
    """Of a checkpoint's folder. Raises NoRace for one that does not write or whose limits are not told."""
    config = json.loads((checkpoint / "config.json").read_bytes())
    if not config.get("is_encoder_decoder"):
        raise NoRace(f"{checkpoint.name} is no encoder-decoder: it writes nothing that could be timed")
    start, end, positions = (
        config.get(name) for name in ("decoder_start_token_id", "eos_token_id", "max_position_embeddings")
    )
    tokenizer = checkpoint / "tokenizer.json"
    if start is None or end is None or positions is None or not tokenizer.exists():
        raise NoRace(
            f"{checkpoint.name} lacks one of decoder_start_token_id, eos_token_id, max_position_embeddings and "
            "tokenizer.json"
        )
    entries = Tokenizer.from_file(str(tokenizer)).get_vocab_size()
    return Shapes(start, end, min(entries, config["vocab_size"]), positions)


def _made(kind: str, source: str, home: Path, threads: int, console: Console) -> Path:
    """The folder of one kind, whole or not at all; whoever else wants it made meanwhile waits."""
    folder = home / kind
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / f"{kind}.lock"):
        if folder.exists():
            return folder
        scratch = Path(tempfile.mkdtemp(prefix=f".{kind}-", dir=home))
        try:
            with console.status(f"{home.name}: making {WHAT[kind]}; kept for the next time"):
                _run(kind, source, scratch / kind, threads)
            os.replace(scratch / kind, folder)
        finally:
            shutil.rmtree(scratch)
    size = sum(file.stat().st_size for file in folder.iterdir())
    console.print(f"{home.name}: {WHAT[kind]}, {size / 1e6:.0f} MB")
    return folder


def _run(kind: str, source: str, folder: Path, threads: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.peers.decoding_graphs", kind, source, str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        env=child_environment() | {"OMP_NUM_THREADS": str(threads)},
        check=False,
    )
    if done.returncode:
        said = done.stdout.decode(errors="replace").strip()[-LOG_END:]
        raise EngineFailed(f"{WHAT[kind]} could not be made: status {done.returncode}: {said}")
