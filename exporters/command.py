"""What `punctual prepare`, `export` and `profile` do: make or measure variants, and print what came of it."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace
from rich.console import Console

from deployments.replica.variant import checked_manifest
from exporters.errors import ExportFailed, VariantRefused
from exporters.job import ExportJob, ProfileJob, run_job
from exporters.plan import Settings, VariantPlan
from exporters.prepare import prepare
from exporters.showing import differences_table, profile_tables, shown, variant_table
from exporters.source import encoder_of, kind_of, source_folder
from exporters.store import Store
from gateway.catalogs.catalog import Catalog
from gateway.model.manifest import Precision, VariantManifest
from gateway.tasks import read_manifest, tasks_of


@dataclass(frozen=True)
class Exported:
    """A variant that was made: where it lies, what it is, and the bytes of its files."""

    folder: Path
    manifest: VariantManifest
    size_bytes: int


def export_command(options: argparse.Namespace, console: Console, settings: Settings | None = None) -> int:
    """Makes one variant of `options.checkpoint` and prints how well it agrees and how fast it is; 1 when refused.

    Reads the options checkpoint, revision, precision, out, cache and, where there is one, floor: the least agreement
    in place of the kind's own, from 0 to 1. Raises ExportError, but for a refused variant, whose worst texts are
    printed.
    """
    plan = plan_for(options.checkpoint, options.revision, options.precision)
    settings, store = with_floor(settings or Settings(), options, console), Store(options.cache)
    folder = options.out or store.folder(plan, store.source_sha256(options.checkpoint, options.revision), settings)
    try:
        made = make_variant(plan, options.checkpoint, options.revision, folder, console, settings)
    except VariantRefused as refused:
        console.print(differences_table(refused))
        return 1
    console.print(variant_table(made.manifest, made.size_bytes))
    for table in profile_tables(made.manifest):
        console.print(table)
    console.print(made.folder, soft_wrap=True)
    return 0


def prepare_command(catalog: Catalog, options: argparse.Namespace, console: Console) -> int:
    """Makes what the catalog's checkpoints lack in the cache, and prints where each variant lies. Raises ExportError.

    Serves nothing: afterwards who has the cache, and no exporter, can.
    """
    for name, folder in prepare(catalog, options.cache, console).items():
        console.print(f"{name}: {folder}", soft_wrap=True)
    return 0


def profile_command(
    catalog: Catalog, options: argparse.Namespace, console: Console, settings: Settings | None = None
) -> int:
    """Measures every variant of the catalog anew and prints the profiles. Raises ExportError or VariantRejected."""
    folders = prepare(catalog, options.cache, console, settings=settings)
    for entry in catalog.checkpoints:
        manifest = measure_variant(folders[entry.name], console, entry.threads, settings)
        console.print(f"[bold]{entry.name}[/] {manifest.variant}")
        for table in profile_tables(manifest):
            console.print(table)
    return 0


def plan_for(location: str, revision: str | None, precision: Precision) -> VariantPlan:
    """A plan for a checkpoint that no catalog describes: called by its location's last part, on ONNX.

    Its task is the one that a checkpoint of its kind serves. Raises SourceRefused in a moment, where the child process
    would import torch first.
    """
    folder = source_folder(location, revision)
    task = tasks_of(kind_of(folder, location))[0]
    config = json.loads((encoder_of(folder, location) / "config.json").read_bytes())
    name = location.rstrip("/").replace(":", "/").rsplit("/", 1)[-1]
    return VariantPlan(name, task, str(config.get("model_type", name)), "onnx", precision)


def make_variant(
    plan: VariantPlan,
    location: str,
    revision: str | None,
    folder: Path,
    console: Console,
    settings: Settings | None = None,
) -> Exported:
    """Makes the variant in the folder, in a process of its own. Raises ExportError."""
    with shown(plan, console) as progress:
        run_job(ExportJob(plan, location, revision, str(folder.absolute()), settings or Settings()), progress)
    manifest = read_manifest(folder)
    return Exported(folder, manifest, sum((folder / file).stat().st_size for file in manifest.files))


def measure_variant(
    folder: Path, console: Console, threads: int | None = None, settings: Settings | None = None
) -> VariantManifest:
    """Measures a variant's latency profile on this host anew, writes it into its manifest and gives that back.

    On the threads that it was profiled on before, unless told. Raises ExportError, or VariantRejected when the
    folder holds no variant, or one that does not pass its self-test here.
    """
    before = checked_manifest(folder)
    threads = threads or before.profile.threads
    plan = VariantPlan(before.checkpoint, before.task, before.family, before.engine, before.precision, threads)
    with shown(plan, console) as progress:
        run_job(ProfileJob(str(folder.absolute()), threads, settings or Settings()), progress)
    return read_manifest(folder)


def with_floor(settings: Settings, options: argparse.Namespace, console: Console) -> Settings:
    """The settings with the floor that the options give, which the console hears of. Raises ExportFailed."""
    floor: float | None = vars(options).get("floor")
    if floor is None:
        return settings
    if not 0 <= floor <= 1:
        raise ExportFailed(f"a floor is a share from 0 to 1, not {floor:g}")
    console.print(f"[yellow]judged by a floor of {floor:g} in place of its kind's own; no catalog serves it unasked[/]")
    return replace(settings, floor=floor)
