"""Where the variants lie that were prepared for a catalog: notes in the cache, one for each checkpoint's entry.

The exporters write a note when a variant is ready; who serves without them reads it. A note's name changes with
whatever of an entry decides on its variant, so that an entry of another source or precision is not taken for prepared.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from gateway.catalogs.catalog import Catalog, CatalogEntry
from gateway.model.manifest import MANIFEST_NAME

_DECIDE = frozenset({"name", "task", "family", "source", "revision", "engine", "precision", "threads"})


class NotPrepared(Exception):
    """Checkpoints of a catalog have no variant in the cache; says which, and the command that makes them."""


def note_prepared(cache: Path, entry: CatalogEntry, folder: Path) -> None:
    """Notes that the variant in a folder below the cache is the entry's."""
    note = _note(cache, entry)
    note.parent.mkdir(parents=True, exist_ok=True)
    beside = note.with_suffix(".new")
    beside.write_text(f"{folder.relative_to(cache)}\n")
    beside.replace(note)


def prepared_variants(catalog: Catalog, catalog_path: Path | str, cache: Path) -> dict[str, Path]:
    """The folder of each checkpoint's variant, by its name. Raises NotPrepared."""
    folders = {entry.name: _prepared(cache, entry) for entry in catalog.checkpoints}
    if missing := [name for name, folder in folders.items() if folder is None]:
        raise NotPrepared(
            f"{cache} holds no variant of {', '.join(missing)}; run: "
            f"punctual prepare --catalog {catalog_path} --cache {cache}"
        )
    return {name: folder for name, folder in folders.items() if folder is not None}


def _prepared(cache: Path, entry: CatalogEntry) -> Path | None:
    note = _note(cache, entry)
    if not note.exists():
        return None
    folder = cache / note.read_text().strip()
    return folder if (folder / MANIFEST_NAME).exists() else None


def _note(cache: Path, entry: CatalogEntry) -> Path:
    decisive = entry.model_dump(mode="json", include=set(_DECIDE))
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
    return cache / "prepared" / f"{entry.name}-{digest}"
