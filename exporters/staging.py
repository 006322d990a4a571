"""Folders that appear whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock


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
