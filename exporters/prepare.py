"""Makes sure that every checkpoint of a catalog has a variant fit for this host, before anything serves.

A variant that is there and whole is used, in the time it takes to hash it and without torch; a missing one is made in
a process of its own. On a first start several are made side by side, so that every core has one to make. Their
engines share the machine, so each is left with a profile that says it was not measured; they are measured one by one.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock
from msgspec.structs import replace
from rich.console import Console
from rich.markup import escape

from deployments.engines.host import Host, read_host
from deployments.replica.prepared import NotPrepared, note_prepared, prepared_variants
from deployments.replica.variant import VariantRejected
from exporters.errors import ExportFailed, VariantRefused
from exporters.job import ExportJob, ProfileJob, run_job, run_shown, shown_together
from exporters.plan import Progress, Settings, VariantPlan
from exporters.source import source_files, source_folder
from exporters.store import State, Store
from gateway.catalogs.catalog import Catalog, CatalogEntry, EngineName
from gateway.model.manifest import Precision


def prepare(
    catalog: Catalog,
    cache_dir: Path,
    console: Console,
    host: Host | None = None,
    settings: Settings | None = None,
    can_make: bool | None = None,
) -> Mapping[str, Path]:
    """The folder of a verified variant for every checkpoint of the catalog, by its name.

    The first precision of an entry's preference that this host can run and that passes verification is taken; the
    console hears of every step down. Blocking, minutes on the first start. Raises ExportError. Two starts at once
    wait for each other. Without the libraries that make variants (`can_make`; None: look for them), those that an
    installation with them has prepared are taken.
    """
    if not (_libraries_installed() if can_make is None else can_make):
        return _prepared_elsewhere(catalog, cache_dir)
    store, host, settings = Store(cache_dir), host or read_host(), settings or Settings()
    store.root.mkdir(parents=True, exist_ok=True)
    with FileLock(store.root / "prepare.lock"):
        make_together(_missing(catalog, store, host, settings), store, settings, console)
        folders = {entry.name: _prepared(entry, store, host, settings, console) for entry in catalog.checkpoints}
        if settings.floor is None:  # what another floor let pass is not found by those who did not ask for that
            for entry in catalog.checkpoints:
                note_prepared(store.root, entry, folders[entry.name])
        return folders


def _libraries_installed() -> bool:
    return all(find_spec(name) for name in ("torch", "transformers", "optimum"))


def _prepared_elsewhere(catalog: Catalog, cache_dir: Path) -> Mapping[str, Path]:
    try:
        return prepared_variants(catalog, "CATALOG", cache_dir)
    except NotPrepared as missing:
        raise ExportFailed(f"{missing}, which needs the extra: pip install 'punctual[export]'") from None


def precisions_for(entry: CatalogEntry, host: Host) -> tuple[Precision, ...]:
    """The precisions to try, in order: int8 for ONNX on a host with int8 dot products only, fp32 if nothing else."""
    int8 = entry.engine is EngineName.ONNX and host.dot_product is not None
    return tuple(p for p in entry.precision if p is not Precision.INT8 or int8) or (Precision.FP32,)


def _missing(catalog: Catalog, store: Store, host: Host, settings: Settings) -> list[Missing]:
    """The variant of each entry's first choice, where it is not there."""
    missing = []
    for entry in catalog.checkpoints:
        plan = _plan(entry, precisions_for(entry, host)[0])
        folder = store.folder(plan, store.source_sha256(entry.source, entry.revision), settings)
        if store.state(folder, host, plan.threads) is State.ABSENT:
            missing.append(Missing(plan, entry.source, entry.revision, folder))
    return missing


def _plan(entry: CatalogEntry, precision: Precision) -> VariantPlan:
    return VariantPlan(entry.name, entry.task, entry.family, entry.engine, precision, entry.threads)


def _prepared(entry: CatalogEntry, store: Store, host: Host, settings: Settings, console: Console) -> Path:
    sha256 = store.source_sha256(entry.source, entry.revision)
    precisions = precisions_for(entry, host)
    if precisions[0] is not entry.precision[0] and entry.engine is EngineName.ONNX:
        console.print(f"[yellow]{entry.name}: this processor has no int8 dot products; serving {precisions[0]}[/]")
    refused: VariantRefused | None = None
    for precision in precisions:
        plan = _plan(entry, precision)
        folder = store.folder(plan, sha256, settings)
        try:
            _make_ready(entry, plan, folder, store, host, settings, console)
            return folder
        except VariantRefused as error:
            refused = error
            console.print(f"[yellow]{escape(str(error))}; not served[/]")
    raise refused or ExportFailed(f"{entry.name}: no precision to make")


def _make_ready(
    entry: CatalogEntry,
    plan: VariantPlan,
    folder: Path,
    store: Store,
    host: Host,
    settings: Settings,
    console: Console,
) -> None:
    """Leaves a READY variant in the folder. Raises VariantRefused, remembered from an earlier start or fresh."""
    state = store.state(folder, host, plan.threads)
    if state is State.REFUSED:
        known = store.refusal(folder)
        raise VariantRefused(known.checkpoint, known.variant, known.reason, ())
    if state is State.PROFILED_ELSEWHERE:
        try:
            run_shown(ProfileJob(str(folder), plan.threads, settings), plan, console)
        except VariantRejected as rejected:
            console.print(f"[yellow]{escape(str(rejected))}; made anew for this host[/]")
            state = State.ABSENT
    if state is State.ABSENT:
        try:
            run_shown(ExportJob(plan, entry.source, entry.revision, str(folder), settings), plan, console)
        except VariantRefused as refused:
            store.refuse(folder, refused)
            raise


AT_ONCE = 2
"""Each takes about one core, and some 1.5 GB with torch loaded."""

MOST_BYTES = 200_000_000
"""Of a checkpoint that is made beside another; an export takes several times the checkpoint's memory."""

_HASTY_S = 0.1


@dataclass(frozen=True, slots=True)
class Missing:
    """A variant to be made: its plan, where its checkpoint comes from, and the folder that it goes into."""

    plan: VariantPlan
    location: str
    revision: str | None
    folder: Path

    @property
    def source_bytes(self) -> int:
        """The size of the checkpoint. Raises SourceRefused, for it resolves the source."""
        return sum(file.stat().st_size for file in source_files(source_folder(self.location, self.revision)))


def make_together(
    missing: Sequence[Missing], store: Store, settings: Settings, console: Console, most_bytes: int = MOST_BYTES
) -> None:
    """Makes the small ones of what is missing, where there are several and cores for them; the others stay missing.

    Small is a checkpoint of at most `most_bytes`. A variant under its floor is noted as refused. Raises ExportError for
    whatever else goes wrong, and ends the processes of the others before it does.
    """
    small = [one for one in missing if one.source_bytes <= most_bytes]
    at_once = min(AT_ONCE, os.cpu_count() or 1)
    if at_once < 2 or len(small) < 2:
        return
    hasty = replace(settings, profile_budget_s=_HASTY_S, provisional=True)
    children: list[subprocess.Popen[str]] = []

    def make(one: Missing, progress: Progress) -> None:
        job = ExportJob(one.plan, one.location, one.revision, str(one.folder), hasty)
        try:
            run_job(job, progress, children.append)
        except VariantRefused as refused:
            store.refuse(one.folder, refused)

    with ThreadPoolExecutor(at_once) as pool, shown_together([one.plan for one in small], console) as lines:
        jobs = [pool.submit(make, one, line) for one, line in zip(small, lines, strict=True)]
        try:
            for job in as_completed(jobs):
                job.result()
        finally:
            for job in jobs:
                job.cancel()
            for child in children:
                child.terminate()  # those that have ended take no notice
