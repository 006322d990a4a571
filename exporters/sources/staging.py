"""Folders that appear whole or not at all, and those that are made once and kept."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from deployments.replica.variant import file_sha256

DIGESTS = "merged.sha256.json"
"""The note in a folder that is made once: the digests of its other files."""


def made_once(target: Path, make: Callable[[Path], Iterable[Path]]) -> Path:
    """The folder `target`, which `make` fills if it is missing, incomplete or changed; it raises what `make` raises.

    `make` gives the files that are of no use afterwards: they are removed. One process at a time makes folders here.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent.with_suffix(".lock")):
        if not is_complete(target):
            with staged(target) as folder:
                used = make(folder)
                digests = {file.name: file_sha256(file) for file in sorted(folder.iterdir()) if file.is_file()}
                (folder / DIGESTS).write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")
            for file in used:
                file.unlink(missing_ok=True)
    return target


def is_complete(folder: Path) -> bool:
    """True if every file of a folder that was made once is there, unchanged."""
    note = folder / DIGESTS
    if not note.exists():
        return False
    known: dict[str, str] = json.loads(note.read_bytes())
    return all((folder / name).exists() and file_sha256(folder / name) == sha256 for name, sha256 in known.items())


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A fresh folder that replaces the target when the block ends without an exception.

    First removes folders left by a killed process. A lock beside the target excludes other exporters, so no folder is
    removed while another process fills it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f".{target.name}.lock"):
        _sweep(target)
        folder = Path(tempfile.mkdtemp(prefix=partial_prefix(target), dir=target.parent))
        folder.chmod(0o755)  # mkdtemp's mode is 0700, but the server may run as another user
        try:
            yield folder
            if target.exists():
                target.rename(folder.with_name(f"{folder.name}-replaced"))
            folder.rename(target)
        finally:
            _sweep(target)


def partial_prefix(target: Path) -> str:
    """How the names of the target's unfinished folders begin."""
    return f".{target.name}.partial-"


def _sweep(target: Path) -> None:
    for left in target.parent.glob(f"{partial_prefix(target)}*"):
        shutil.rmtree(left, ignore_errors=True)
