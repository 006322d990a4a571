"""What the command line's `export` and `profile` do: make or measure variants, and print what came of it."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from deployments.variant import checked_manifest
from exporters.errors import VariantRefused
from exporters.export import VariantPlan
from exporters.job import ExportJob, ProfileJob, Settings, run_job
from exporters.prepare import prepare
from exporters.showing import differences_table, profile_table, shown, variants_table
from exporters.source import source_folder
from exporters.store import Store
from gateway.catalog import Catalog
from gateway.manifest import Precision, VariantManifest, read_manifest


@dataclass(frozen=True)
class Exported:
    """A variant that was made: where it lies, what it is, and the bytes of its files."""

    folder: Path
    manifest: VariantManifest
    size_bytes: int


def export_command(options: argparse.Namespace, console: Console, settings: Settings | None = None) -> int:
    """Makes one variant of `options.checkpoint` and prints how well it agrees and how fast it is; 1 when refused.

    Reads the options checkpoint, revision, precision, out and cache. Raises ExportError, but for a refused variant,
    whose worst texts are printed.
    """
    plan = plan_for(options.checkpoint, options.revision, options.precision)
    store = Store(options.cache)
    folder = options.out or store.folder(plan, store.source_sha256(options.checkpoint, options.revision))
    try:
        made = make_variant(plan, options.checkpoint, options.revision, folder, console, settings)
    except VariantRefused as refused:
        console.print(differences_table(refused))
        return 1
    console.print(variants_table([made.manifest], [made.size_bytes]))
    console.print(profile_table(made.manifest.profile))
    console.print(made.folder, soft_wrap=True)
    return 0


def profile_command(
    catalog: Catalog, options: argparse.Namespace, console: Console, settings: Settings | None = None
) -> int:
    """Measures every variant of the catalog anew and prints the profiles. Raises ExportError or VariantRejected."""
    folders = prepare(catalog, options.cache, console, settings=settings)
    for entry in catalog.checkpoints:
        manifest = measure_variant(folders[entry.name], console, entry.threads, settings)
        console.print(f"[bold]{entry.name}[/] {manifest.variant}")
        console.print(profile_table(manifest.profile))
    return 0


def plan_for(location: str, revision: str | None, precision: Precision) -> VariantPlan:
    """A plan for a checkpoint that no catalog describes: called by its location's last part, a classifier, on ONNX.

    Raises SourceRefused in a moment, where the child process would import torch first.
    """
    config = json.loads((source_folder(location, revision) / "config.json").read_bytes())
    name = location.rstrip("/").replace(":", "/").rsplit("/", 1)[-1]
    return VariantPlan(name, "classify", str(config.get("model_type", name)), "onnx", precision)


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
