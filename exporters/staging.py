"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from gateway.model.manifest import MANIFEST_NAME, VariantManifest, write_manifest


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A fresh folder beside the target, which takes the target's place when the block ends without an exception.

    What a killed process left behind is swept away first. A lock beside the target keeps two makers apart, so the
    sweep never takes a folder that somebody is still filling.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f".{target.name}.lock"):
        _sweep(target)
        folder = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
        folder.chmod(0o755)  # mkdtemp keeps others out, and a server may run as another user than the exporter
        try:
            yield folder
            if target.exists():
                target.rename(folder.with_name(f"{folder.name}-replaced"))
            folder.rename(target)
        finally:
            _sweep(target)


def replace_manifest(folder: Path, manifest: VariantManifest) -> None:
    """Writes a variant's manifest anew; a reader finds the old one or the new one, never half of one."""
    with tempfile.TemporaryDirectory(prefix=_prefix(folder), dir=folder.parent) as beside:
        write_manifest(Path(beside), manifest)
        os.replace(Path(beside) / MANIFEST_NAME, folder / MANIFEST_NAME)


def _prefix(target: Path) -> str:
    return f".{target.name}.partial-"


def _sweep(target: Path) -> None:
    for left in target.parent.glob(f"{_prefix(target)}*"):
        shutil.rmtree(left, ignore_errors=True)
