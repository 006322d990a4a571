"""What the load tests' commands share: the console, common options, and the preparation of a catalog."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gateway.catalogs.catalog import Catalog, load_catalog

console = Console(highlight=False)


def positive(text: str) -> float:
    """Reads a positive, finite number. Raises BadParameter."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise typer.BadParameter("must be a positive number")
    return value


Json = Annotated[Path | None, typer.Option(help="write all results to this file, as JSON")]
Checkpoint = Annotated[str | None, typer.Option(help="the checkpoint to request (default: the first realtime one)")]
Rounds = Annotated[int, typer.Option(min=1)]
Seconds = Annotated[int, typer.Option(min=1, help="duration of each turn")]


def prepared(catalog: str, cache: Path) -> tuple[Catalog, Mapping[str, Path]]:
    """Loads a catalog and returns it with the folder of each checkpoint's variant; makes missing variants.

    Leaves out a checkpoint whose base cannot be fetched. Raises CatalogError and ExportError.
    """
    from exporters.preparing.prepare import prepare

    loaded = load_catalog(catalog)
    variants = prepare(loaded, cache, console)
    return loaded.only(variants), variants
