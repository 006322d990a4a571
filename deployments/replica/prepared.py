"""Finds the variants that were prepared for a catalog, by notes in the cache: one for each checkpoint's entry.

The exporters write a note when a variant is ready; servers without the exporters read it. A note's name is a digest of
the entry's fields that decide its variant, so that a changed source or precision does not count as prepared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from gateway.catalogs.catalog import Catalog, CatalogEntry
from gateway.model.manifest import MANIFEST_NAME

_DECIDE = frozenset({"name", "task", "family", "source", "revision", "engine", "precision", "threads"})


class NotPrepared(Exception):
    """Checkpoints of a catalog have no variant in the cache. The message names them, and the command to run."""


class NeverReady(Exception):
    """A checkpoint will not be served before a new start. The message is for the operator, `reason` for clients."""

    def __init__(self, message: str, reason: str) -> None:
        """`reason` is a sentence without paths of this host."""
        super().__init__(message)
        self.reason = reason


def note_prepared(cache: Path, entry: CatalogEntry, folder: Path) -> None:
    """Records that a folder below the cache holds the entry's variant."""
    note = _note(cache, entry)
    note.parent.mkdir(parents=True, exist_ok=True)
    beside = note.with_suffix(".new")
    beside.write_text(f"{folder.relative_to(cache)}\n")
    beside.replace(note)


def prepared_variants(catalog: Catalog, catalog_path: Path | str, cache: Path) -> dict[str, Path]:
    """Finds the folder of each checkpoint's variant, by the checkpoint's name. Raises NotPrepared."""
    folders, missing = known_variants(catalog, cache)
    if missing:
        raise NotPrepared(not_prepared(missing, catalog_path, cache))
    return folders


def known_variants(catalog: Catalog, cache: Path) -> tuple[dict[str, Path], list[str]]:
    """The folders of the variants that are prepared by checkpoint, and the names of the others."""
    found = {entry.name: _prepared(cache, entry) for entry in catalog.checkpoints}
    folders = {name: folder for name, folder in found.items() if folder is not None}
    return folders, [name for name in found if name not in folders]


def not_prepared(missing: Sequence[str], catalog_path: Path | str, cache: Path) -> str:
    """Says which checkpoints have no variant, and the command to run."""
    return (
        f"{cache} holds no variant of {', '.join(missing)}; run: "
        f"punctual prepare --catalog {catalog_path} --cache {cache}"
    )


def _prepared(cache: Path, entry: CatalogEntry) -> Path | None:
    note = _note(cache, entry)
    try:
        folder = cache / note.read_text("utf-8").strip()
        return folder if (folder / MANIFEST_NAME).exists() else None
    except (FileNotFoundError, ValueError):  # without a note, or with a damaged one
        return None


def _note(cache: Path, entry: CatalogEntry) -> Path:
    decisive = entry.model_dump(mode="json", include=set(_DECIDE))
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
    return cache / "prepared" / f"{entry.name}-{digest}"
