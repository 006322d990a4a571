"""What `punctual prepare`, `export` and `profile` do: make or measure variants, and print what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import replace
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deployments.replica.variant import checked_manifest
from exporters.errors import ExportFailed, VariantRefused
from exporters.job import ExportJob, ProfileJob, run_shown
from exporters.kinds import KINDS, kind_of
from exporters.kinds.kind import TitledProfile
from exporters.options import DEFAULT_CACHE, DEFAULT_CATALOG, CacheOption, CatalogOption, FloorOption
from exporters.plan import Settings, VariantPlan
from exporters.prepare import prepare as prepare_catalog
from exporters.source import encoder_of, source_folder
from exporters.store import Store
from gateway.catalogs.catalog import Catalog, load_catalog
from gateway.model.manifest import Precision, VariantManifest
from gateway.model.profile import LatencyProfile
from gateway.tasks import read_manifest


def prepare(catalog: CatalogOption = DEFAULT_CATALOG, cache: CacheOption = DEFAULT_CACHE) -> None:
    """Prepare what a catalog's checkpoints lack in the cache, for a cluster that serves from there."""
    console = Console(highlight=False)
    for name, folder in prepare_catalog(load_catalog(catalog), cache, console).items():
        console.print(f"{name}: {folder}", soft_wrap=True)


def export(
    checkpoint: Annotated[str, typer.Argument(help="starter:NAME, a folder, or a Hub id OWNER/NAME")],
    revision: Annotated[
        str | None, typer.Option(help="the Hub repository's full commit, required for a Hub id")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="of the variant's weights")] = Precision.INT8,
    out: Annotated[Path | None, typer.Option(help="the variant's folder (default: below the cache)")] = None,
    floor: FloorOption = None,
    cache: CacheOption = DEFAULT_CACHE,
) -> None:
    """Make one verified, profiled variant of a checkpoint; one under its floor is refused with what differed."""
    console = Console(highlight=False)
    settings = with_floor(Settings(), floor, console)
    if not export_variant(checkpoint, revision, precision, out, cache, settings, console):
        raise typer.Exit(1)


def profile(catalog: CatalogOption = DEFAULT_CATALOG, cache: CacheOption = DEFAULT_CACHE) -> None:
    """Measure the latency profile of every variant of a catalog on this host anew."""
    profile_catalog(load_catalog(catalog), cache, Settings(), Console(highlight=False))


def with_floor(settings: Settings, floor: float | None, console: Console) -> Settings:
    """The settings with a floor that was asked for, which is printed. Raises ExportFailed for one outside 0 to 1."""
    if floor is None:
        return settings
    if not 0 <= floor <= 1:
        raise ExportFailed(f"a floor is a share from 0 to 1, not {floor:g}")
    console.print(f"[yellow]judged by a floor of {floor:g} in place of its kind's own; no catalog serves it unasked[/]")
    return replace(settings, floor=floor)


def export_variant(
    location: str,
    revision: str | None,
    precision: Precision,
    out: Path | None,
    cache: Path,
    settings: Settings,
    console: Console,
) -> bool:
    """Makes one variant, in `out` or below the cache, and prints how well it agrees and how fast it is.

    False for a refused variant, whose worst texts are printed. Raises ExportError for whatever else goes wrong.
    """
    plan, store = plan_for(location, revision, precision), Store(cache)
    folder = out or store.folder(plan, store.source_sha256(location, revision), settings)
    try:
        run_shown(ExportJob(plan, location, revision, str(folder.absolute()), settings), plan, console)
    except VariantRefused as refused:
        console.print(_differences_table(refused))
        return False
    manifest = read_manifest(folder)
    console.print(_variant_table(manifest, sum((folder / file).stat().st_size for file in manifest.files)))
    _print_profiles(manifest, console)
    console.print(folder, soft_wrap=True)
    return True


def profile_catalog(catalog: Catalog, cache: Path, settings: Settings, console: Console) -> None:
    """Measures every variant of the catalog anew and prints the profiles. Raises ExportError or VariantRejected."""
    folders = prepare_catalog(catalog, cache, console, settings=settings)
    for entry in catalog.checkpoints:
        manifest = measure_variant(folders[entry.name], console, entry.threads, settings)
        console.print(f"[bold]{entry.name}[/] {manifest.variant}")
        _print_profiles(manifest, console)


def plan_for(location: str, revision: str | None, precision: Precision) -> VariantPlan:
    """A plan for a checkpoint that no catalog describes: called by its location's last part, on ONNX.

    Its task is the one that a checkpoint of its kind serves. Raises SourceRefused in a moment, where the child process
    would import torch first.
    """
    folder = source_folder(location, revision)
    config = json.loads((encoder_of(folder, location) / "config.json").read_bytes())
    name = location.rstrip("/").replace(":", "/").rsplit("/", 1)[-1]
    return VariantPlan(name, kind_of(folder, location).task, str(config.get("model_type", name)), "onnx", precision)


def measure_variant(
    folder: Path, console: Console, threads: int | None = None, settings: Settings | None = None
) -> VariantManifest:
    """Measures a variant's latency profile on this host anew, writes it into its manifest and returns that.

    `threads` defaults to the number that it was profiled on before. Raises ExportError, or VariantRejected when the
    folder holds no variant, or one that does not pass its self-test here.
    """
    before = checked_manifest(folder)
    threads = threads or before.profile.threads
    plan = VariantPlan(before.checkpoint, before.task, before.family, before.engine, before.precision, threads)
    run_shown(ProfileJob(str(folder.absolute()), threads, settings or Settings()), plan, console)
    return read_manifest(folder)


def _variant_table(manifest: VariantManifest, size_bytes: int) -> Table:
    """One row: the variant's size and how well it agrees with its source, by the measures of its kind."""
    agreement: Mapping[str, str] = KINDS[manifest.kind].agreement(manifest)
    cells = {"precision": str(manifest.precision), "size, MB": f"{size_bytes / 1e6:.1f}", **agreement}
    table = Table(*cells)
    table.add_row(*cells.values())
    return table


def _print_profiles(manifest: VariantManifest, console: Console) -> None:
    for one in KINDS[manifest.kind].profiles(manifest):
        console.print(_profile_table(one))


def _profile_table(one: TitledProfile) -> Table:
    """Median service times in ms: a row for each batch size, a column for each token length."""
    document, profile = one.document, LatencyProfile.from_document(one.document)
    threads = f"{document.threads} thread{'' if document.threads == 1 else 's'}"
    table = Table(one.rows, *(f"{length} tokens" for length in profile.lengths))
    table.title = f"median {one.measures} in ms, {threads} on {document.measured_on}"
    for batch, row in zip(profile.batches, profile.medians_s, strict=True):
        table.add_row(str(batch), *(f"{seconds * 1000:.2f}" for seconds in row))
    return table


def _differences_table(refused: VariantRefused) -> Table:
    """The worst texts of a refused variant, by their place among those that it was verified on."""
    table = Table("text", "source says", "variant says", title=escape(str(refused)))
    for row in refused.differences:
        table.add_row(str(row.text), escape(row.source), escape(row.variant))
    return table
