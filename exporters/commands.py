"""What the command line's `export` and `profile` do; they give back data, and `showing` makes tables of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from deployments.variant import checked_manifest
from exporters.export import VariantPlan
from exporters.job import ExportJob, ProfileJob, Settings, run_job
from exporters.showing import shown
from exporters.source import source_folder
from gateway.manifest import Precision, VariantManifest, read_manifest


@dataclass(frozen=True)
class Exported:
    """A variant that was made: where it lies, what it is, and the bytes of its files."""

    folder: Path
    manifest: VariantManifest
    size_bytes: int


def export_command(
    location: str,
    out: Path,
    console: Console,
    revision: str | None = None,
    checkpoint: str | None = None,
    task: str = "classify",
    family: str = "",
    engine: str = "onnx",
    precisions: Sequence[Precision] = (Precision.FP32, Precision.INT8),
    threads: int = 1,
    settings: Settings | None = None,
) -> list[Exported]:
    """Makes a variant of each precision in `out/ENGINE-PRECISION`. Raises ExportError.

    The checkpoint is called by the last part of its location unless it is named.
    """
    source_folder(location, revision)  # refused here, in a moment, rather than in a child that imports torch first
    settings = settings or Settings()
    name = checkpoint or location.rstrip("/").replace(":", "/").rsplit("/", 1)[-1]
    made = []
    for precision in precisions:
        plan = VariantPlan(name, task, family or name, engine, precision, threads)
        folder = out / plan.variant
        with shown(plan, console) as progress:
            run_job(ExportJob(plan, location, revision, str(folder), settings), progress)
        manifest = read_manifest(folder)
        made.append(Exported(folder, manifest, sum((folder / file).stat().st_size for file in manifest.files)))
    return made


def profile_command(
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
        run_job(ProfileJob(str(folder), threads, settings or Settings()), progress)
    return read_manifest(folder)
