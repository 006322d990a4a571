"""Files of the public package registry, downloaded through pip and checked against pinned digests.

Never installs, imports or unpickles a download.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from deployments.replica.variant import file_sha256

PATIENCE = ("--timeout", "15", "--retries", "2")
"""pip's own defaults make a machine without a network wait for over a minute."""


class NotFetched(Exception):
    """A package's file cannot be fetched; the message names the package and says why."""


@dataclass(frozen=True)
class Package:
    """One distribution on the registry, with the digest of the accepted file."""

    name: str
    version: str
    filename: str
    sha256: str
    licence: str
    binary: bool

    @classmethod
    def wheel(cls, name: str, version: str, sha256: str, licence: str) -> Package:
        """The wheel of pure Python of a package, under its usual file name."""
        filename = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        return cls(name, version, filename, sha256, licence, binary=True)


def fetch(package: Package, cache: Path) -> Path:
    """The package's file, from the cache or through pip, with its digest checked.

    pip also checks the digest (`--require-hashes`), so that it runs no build script of another sdist. A file in the
    cache with another digest is fetched again. Raises NotFetched.
    """
    path = cache / package.filename
    if path.exists() and file_sha256(path) == package.sha256:
        return path
    path.unlink(missing_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    _download(package, cache)
    if not path.exists() or file_sha256(path) != package.sha256:
        raise NotFetched(f"{package.name}=={package.version}: no {path.name} with the sha256 {package.sha256}")
    return path


def _download(package: Package, cache: Path) -> None:
    kind = "--only-binary" if package.binary else "--no-binary"
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "pins.txt"
        pins.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *PATIENCE, kind, ":all:"]
        command += ["--require-hashes", "--requirement", str(pins), "--dest", str(cache)]
        here = os.environ | {"TMPDIR": folder}  # so that an interrupted download leaves nothing
        ran = subprocess.run(command, check=False, capture_output=True, text=True, env=here)
    if ran.returncode:
        said = [line for line in ran.stderr.splitlines() if line.strip()] or [f"status {ran.returncode}"]
        raise NotFetched(f"{package.name}=={package.version}: pip says: {said[-1].strip()}")
