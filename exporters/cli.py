"""The commands `punctual prepare`, `export` and `profile`: make or measure variants and print the results."""

from __future__ import annotations

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
from exporters.kinds import KINDS, kind_of
from exporters.kinds.kind import TitledProfile
from exporters.options import DEFAULT_CACHE, DEFAULT_CATALOG, CacheOption, CatalogOption, FloorOption
from exporters.plan import PRECISIONS, Settings, VariantPlan
from exporters.preparing.job import ExportJob, ProfileJob, run_shown
from exporters.preparing.prepare import lone_threads_of
from exporters.preparing.prepare import prepare as prepare_catalog
from exporters.preparing.store import Store
from exporters.sources.source import encoder_of, read_object, source_folder
from gateway.catalogs.catalog import Catalog, load_catalog
from gateway.model.manifest import Precision, VariantManifest
from gateway.model.profile import LatencyProfile
from gateway.tasks import read_manifest


def prepare(catalog: CatalogOption = DEFAULT_CATALOG, cache: CacheOption = DEFAULT_CACHE) -> None:
    """Make the variants of a catalog that the cache lacks, for a cluster; status 1 if a checkpoint has none."""
    console, loaded = Console(highlight=False), load_catalog(catalog)
    folders = prepare_catalog(loaded, cache, console)
    for name, folder in folders.items():
        console.print(f"{name}: {folder}", soft_wrap=True)
    if len(folders) < len(loaded.checkpoints):
        raise typer.Exit(1)


def export(
    checkpoint: Annotated[str, typer.Argument(help="starter:NAME, a folder, or a Hub id OWNER/NAME")],
    revision: Annotated[
        str | None, typer.Option(help="the full commit in the Hub repository; required for a Hub id")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="of the variant's weights")] = Precision.INT8,
    out: Annotated[Path | None, typer.Option(help="the variant's folder (default: below the cache)")] = None,
    floor: FloorOption = None,
    cache: CacheOption = DEFAULT_CACHE,
) -> None:
    """Make one verified, profiled variant of a checkpoint; refuse one that agrees too little with its source."""
    console = Console(highlight=False)
    settings = with_floor(Settings(), floor, console)
    if not export_variant(checkpoint, revision, precision, out, cache, settings, console):
        raise typer.Exit(1)


def profile(catalog: CatalogOption = DEFAULT_CATALOG, cache: CacheOption = DEFAULT_CACHE) -> None:
    """Measure the latency profiles of a catalog's variants again on this host."""
    profile_catalog(load_catalog(catalog), cache, Settings(), Console(highlight=False))


def with_floor(settings: Settings, floor: float | None, console: Console) -> Settings:
    """The settings with the requested floor, if any; prints it. Raises ExportFailed if it is outside 0 to 1."""
    if floor is None:
        return settings
    if not 0 <= floor <= 1:
        raise ExportFailed(f"a floor is a share from 0 to 1, not {floor:g}")
    console.print(
        f"[yellow]floor {floor:g} replaces the kind's own; only commands with this --floor find the variant[/]"
    )
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
    """Makes one variant in `out` or the cache, and prints its agreement with the source and its latency profile.

    Returns False for a refused variant and prints its worst texts. Raises ExportError for any other failure.
    """
    plan, store = plan_for(location, revision, precision), Store(cache)
    folder = out or store.folder(plan, store.source_sha256(location, revision), settings)
    try:
        run_shown(ExportJob(plan, location, revision, str(folder.absolute()), str(cache), settings), plan, console)
    except VariantRefused as refused:
        console.print(_differences_table(refused))
        return False
    manifest = read_manifest(folder)
    console.print(_variant_table(manifest, sum((folder / file).stat().st_size for file in manifest.files)))
    _print_profiles(manifest, console)
    console.print(folder, soft_wrap=True)
    return True


def profile_catalog(catalog: Catalog, cache: Path, settings: Settings, console: Console) -> None:
    """Measures every variant of the catalog again and prints the profiles. Raises ExportError or VariantRejected."""
    folders = prepare_catalog(catalog, cache, console, settings=settings)
    for entry in catalog.only(folders).checkpoints:
        lone = lone_threads_of(entry)
        manifest = measure_variant(folders[entry.name], console, entry.threads, settings, lone_threads=lone)
        console.print(f"[bold]{entry.name}[/] {manifest.variant}")
        _print_profiles(manifest, console)


def plan_for(location: str, revision: str | None, precision: Precision) -> VariantPlan:
    """A plan for a checkpoint without a catalog entry, named by the last part of its location.

    bf16 is OpenVINO's, other precisions are ONNX Runtime's. Its task is that of its kind. Raises SourceRefused at once,
    where the child process would first import torch.
    """
    folder = source_folder(location, revision)
    config = read_object(encoder_of(folder, location) / "config.json", location)
    name = location.rstrip("/").replace(":", "/").rsplit("/", 1)[-1]
    engine = next(engine for engine, known in PRECISIONS.items() if precision in known)
    return VariantPlan(name, kind_of(folder, location).task, str(config.get("model_type", name)), engine, precision)


def measure_variant(
    folder: Path,
    console: Console,
    threads: int | None = None,
    settings: Settings | None = None,
    *,
    lone_threads: int = 1,
) -> VariantManifest:
    """Measures a variant's latency profile again on this host, and returns the updated manifest.

    `threads` defaults to the profile's previous number. A lone run may have `lone_threads`. Raises ExportError, or
    VariantRejected if the folder holds no variant or the variant fails its self-test.
    """
    before = checked_manifest(folder)
    threads = threads or before.profile.threads
    plan = VariantPlan(before.checkpoint, before.task, before.family, before.engine, before.precision, threads)
    run_shown(ProfileJob(str(folder.absolute()), threads, lone_threads, settings or Settings()), plan, console)
    return read_manifest(folder)


def _variant_table(manifest: VariantManifest, size_bytes: int) -> Table:
    """One row: the variant's size and its agreement with its source."""
    agreement: Mapping[str, str] = KINDS[manifest.kind].agreement(manifest)
    cells = {"precision": str(manifest.precision), "size, MB": f"{size_bytes / 1e6:.1f}", **agreement}
    table = Table(*cells)
    table.add_row(*cells.values())
    return table


def _print_profiles(manifest: VariantManifest, console: Console) -> None:
    for one in KINDS[manifest.kind].profiles(manifest):
        console.print(_profile_table(one))


def _profile_table(one: TitledProfile) -> Table:
    """Median service times in ms, by batch size (rows) and token length (columns)."""
    document, profile = one.document, LatencyProfile.from_document(one.document)
    threads = f"{document.threads} thread{'' if document.threads == 1 else 's'}"
    table = Table(one.rows, *(f"{length} tokens" for length in profile.lengths))
    table.title = f"median {one.measures} in ms, {threads} on {document.measured_on}"
    if document.lone is not None:
        shares = ", ".join(f"{cell.share:.2f} at {cell.tokens}" for cell in document.lone.cells)
        table.caption = f"of that time, a run on {document.lone.threads} threads takes, by tokens: {shares}"
    for batch, row in zip(profile.batches, profile.medians_s, strict=True):
        table.add_row(str(batch), *(f"{seconds * 1000:.2f}" for seconds in row))
    return table


def _differences_table(refused: VariantRefused) -> Table:
    """The worst texts of a refused variant, by their index in the verification texts."""
    table = Table("text", "source says", "variant says", title=escape(str(refused)))
    for row in refused.differences:
        table.add_row(str(row.text), escape(row.source), escape(row.variant))
    return table
