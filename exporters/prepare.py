"""Making sure that every checkpoint of a catalog has a variant fit for this host, before anything serves.

What is there and whole is used as it is, in the time it takes to hash it, and without torch; what is missing is made
in a process of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock
from rich.console import Console
from rich.markup import escape

from deployments.engines.host import Host, read_host
from deployments.replica.prepared import note_prepared
from deployments.replica.variant import VariantRejected
from exporters.errors import ExportFailed, VariantRefused
from exporters.job import ExportJob, ProfileJob, run_job
from exporters.plan import Settings, VariantPlan
from exporters.showing import shown
from exporters.store import State, Store
from exporters.together import Missing, make_together
from gateway.catalogs.catalog import Catalog, CatalogEntry, EngineName
from gateway.model.manifest import Precision


def prepare(
    catalog: Catalog,
    cache_dir: Path,
    console: Console,
    host: Host | None = None,
    settings: Settings | None = None,
) -> Mapping[str, Path]:
    """The folder of a verified variant for every checkpoint of the catalog, by its name.

    The first precision of an entry's preference that this host can run and that passes verification is taken; the
    console hears of every step down. Blocking, minutes on the first start. Raises ExportError. Two starts at once
    wait for each other.
    """
    store, host, settings = Store(cache_dir), host or read_host(), settings or Settings()
    store.root.mkdir(parents=True, exist_ok=True)
    with FileLock(store.root / "prepare.lock"):
        make_together(_missing(catalog, store, host, settings), store, settings, console)
        folders = {entry.name: _prepared(entry, store, host, settings, console) for entry in catalog.checkpoints}
        if settings.floor is None:  # what another floor let pass is not found by those who did not ask for that
            for entry in catalog.checkpoints:
                note_prepared(store.root, entry, folders[entry.name])
        return folders


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
            with shown(plan, console) as progress:
                run_job(ProfileJob(str(folder), plan.threads, settings), progress)
        except VariantRejected as rejected:
            console.print(f"[yellow]{escape(str(rejected))}; made anew for this host[/]")
            state = State.ABSENT
    if state is State.ABSENT:
        try:
            with shown(plan, console) as progress:
                run_job(ExportJob(plan, entry.source, entry.revision, str(folder), settings), progress)
        except VariantRefused as refused:
            store.refuse(folder, refused)
            raise
