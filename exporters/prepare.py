"""Ensures that every checkpoint of a catalog has a variant for this host before it is served.

A complete variant in the cache is hashed and used without torch. A missing one is made in a child process. On a first
start several are made in parallel; since they share the machine, they are profiled one by one afterwards.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
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
from exporters.choosing import in_words
from exporters.errors import BaseAbsent, ExportCrashed, ExportFailed, SourceAbsent, VariantRefused
from exporters.job import ExportJob, ProfileJob, run_job, run_shown, shown_together
from exporters.kinds import KINDS
from exporters.plan import PRECISIONS, Candidate, Progress, Settings, VariantPlan
from exporters.source import source_bytes
from exporters.store import State, Store
from gateway.catalogs.catalog import Catalog, CatalogEntry, EngineName
from gateway.model.manifest import ClassifierManifest, Precision
from gateway.tasks import read_manifest, tasks_of


def prepare(
    catalog: Catalog,
    cache_dir: Path,
    console: Console,
    host: Host | None = None,
    settings: Settings | None = None,
    can_make: bool | None = None,
    openvino: bool | None = None,
) -> Mapping[str, Path]:
    """The folder of a verified variant of every checkpoint of the catalog, by name; makes those that are missing.

    Takes the first of an entry's precisions that this host can run and that passes verification; prints every
    precision that it skips. Goes on without a checkpoint whose base cannot be fetched, unless its task would have none.
    Blocks, for minutes on the first start; concurrent starts wait for each other. Raises ExportError. Without the
    libraries that make variants (`can_make`; None: look for them), takes the variants that an installation with them
    has prepared. `openvino` says whether OpenVINO may be raced (None: if it is installed).
    """
    if not (_libraries_installed() if can_make is None else can_make):
        return _prepared_elsewhere(catalog, cache_dir)
    store, host, settings = Store(cache_dir), host or read_host(), settings or Settings()
    openvino = find_spec("openvino") is not None if openvino is None else openvino
    store.root.mkdir(parents=True, exist_ok=True)
    with FileLock(store.root / "prepare.lock"):
        make_together(_missing(catalog, store, host, settings, openvino), store, settings, console)
        folders = _all_prepared(catalog, store, host, settings, console, openvino)
        if settings.floor is None:  # variants with another floor are stored apart
            for entry in catalog.only(folders).checkpoints:
                note_prepared(store.root, entry, folders[entry.name])
        return folders


def _all_prepared(
    catalog: Catalog, store: Store, host: Host, settings: Settings, console: Console, openvino: bool
) -> Mapping[str, Path]:
    """The variants' folders by checkpoint; leaves out, and prints, a checkpoint whose base cannot be fetched.

    Raises BaseAbsent if a task would have no checkpoint.
    """
    folders: dict[str, Path] = {}
    absent: dict[str, BaseAbsent] = {}
    for entry in catalog.checkpoints:
        try:
            folders[entry.name] = _prepared(entry, store, host, settings, console, openvino)
        except BaseAbsent as error:
            absent[entry.name] = error
            console.print(f"[yellow]{escape(str(error))}. Going on without {entry.name}[/]", soft_wrap=True)
    for entry in catalog.checkpoints:
        for task in entry.tasks:
            if not any(other.name in folders for other in catalog.of_task(task)):
                raise absent[entry.name]
    return folders


def _libraries_installed() -> bool:
    return all(find_spec(name) for name in ("torch", "transformers", "optimum"))


def _prepared_elsewhere(catalog: Catalog, cache_dir: Path) -> Mapping[str, Path]:
    try:
        return prepared_variants(catalog, "CATALOG", cache_dir)
    except NotPrepared as missing:
        raise ExportFailed(f"{missing}, which needs the extra: pip install 'punctual[export]'") from None


def precisions_for(entry: CatalogEntry, host: Host) -> tuple[Precision, ...]:
    """The precisions to try with one engine, in order: what the engine and the host's processor have, else fp32.

    Of an entry whose engine is `auto`, those of ONNX Runtime.
    """
    engine = EngineName.ONNX if entry.engine is EngineName.AUTO else entry.engine
    if engine is EngineName.OPENVINO:
        return (Precision.BF16,)
    runs = {one for one in PRECISIONS[engine] if one is not Precision.INT8 or host.dot_product is not None}
    return tuple(one for one in entry.precision if one in runs) or (Precision.FP32,)


def plans_for(entry: CatalogEntry, host: Host, openvino: bool) -> tuple[VariantPlan, ...]:
    """The variants to try, in order. `openvino` says whether its library is installed.

    With the engine `auto`, first the fastest of ONNX Runtime and OpenVINO, then ONNX Runtime alone. Where OpenVINO is
    not installed, the processor has no bf16, or the entry does not list it, there is nothing to race.
    """
    engine = EngineName.ONNX if entry.engine is EngineName.AUTO else entry.engine
    precisions = precisions_for(entry, host)

    def plan(engine: str, precision: Precision, candidates: tuple[Candidate, ...] = ()) -> VariantPlan:
        return VariantPlan(entry.name, entry.task, entry.family, engine, precision, entry.threads, candidates)

    alone = tuple(plan(engine, precision) for precision in precisions)
    runs_it = any(entry.task in tasks_of(name) and EngineName.OPENVINO in kind.engines for name, kind in KINDS.items())
    able = openvino and runs_it and host.bf16 is not None and Precision.BF16 in entry.precision
    if entry.engine is not EngineName.AUTO or not able:
        return alone
    candidates = tuple(
        Candidate(EngineName.OPENVINO if one is Precision.BF16 else EngineName.ONNX, one)
        for one in entry.precision
        if one is Precision.BF16 or one in precisions
    )
    return (plan(EngineName.AUTO, precisions[0], candidates), *alone)


def _missing(catalog: Catalog, store: Store, host: Host, settings: Settings, openvino: bool) -> list[Missing]:
    """The variants of each entry's first plan that the cache lacks."""
    missing = []
    for entry in catalog.checkpoints:
        plan = plans_for(entry, host, openvino)[0]
        folder = store.folder(plan, store.source_sha256(entry.source, entry.revision), settings)
        if store.state(folder, host, plan.threads) is State.ABSENT:
            missing.append(Missing(plan, entry.source, entry.revision, folder))
    return missing


def _prepared(
    entry: CatalogEntry, store: Store, host: Host, settings: Settings, console: Console, openvino: bool
) -> Path:
    sha256 = store.source_sha256(entry.source, entry.revision)
    plans = plans_for(entry, host, openvino)
    if host.dot_product is None and entry.precision[0] is Precision.INT8 and plans[0].engine != EngineName.TORCH:
        console.print(f"[yellow]{entry.name}: this processor has no int8 dot products; serving {plans[0].variant}[/]")
    refused: VariantRefused | None = None
    for plan in plans:
        folder = store.folder(plan, sha256, settings)
        try:
            _make_ready(entry, plan, folder, store, host, settings, console)
            _say_choice(entry.name, folder, console)
            return folder
        except VariantRefused as error:
            refused = error
            console.print(f"[yellow]{escape(str(error))}; not served[/]")
    raise refused or ExportFailed(f"{entry.name}: no precision to make")


def _say_choice(name: str, folder: Path, console: Console) -> None:
    manifest = read_manifest(folder)
    if isinstance(manifest, ClassifierManifest) and manifest.choice is not None:
        console.print(escape(f"{name}: {in_words(manifest.choice, manifest.variant)}"), soft_wrap=True)


def _make_ready(
    entry: CatalogEntry,
    plan: VariantPlan,
    folder: Path,
    store: Store,
    host: Host,
    settings: Settings,
    console: Console,
) -> None:
    """Makes the variant in the folder READY. Raises VariantRefused, also if an earlier start noted it."""
    state = store.state(folder, host, plan.threads)
    if state is State.REFUSED:
        known = store.refusal(folder)
        raise VariantRefused(known.checkpoint, known.variant, known.reason, ())
    export = ExportJob(plan, entry.source, entry.revision, str(folder), str(store.root), settings)
    if state is State.PROFILED_ELSEWHERE and plan.candidates and not _chosen_here(folder, plan, host):
        try:
            _make(export, store, folder, console)
            return
        except SourceAbsent:
            console.print(f"[yellow]{entry.name}: its engine was chosen on another host, and its source is absent[/]")
    if state is State.PROFILED_ELSEWHERE:
        try:
            run_shown(ProfileJob(str(folder), plan.threads, settings), plan, console)
        except VariantRejected as rejected:
            console.print(f"[yellow]{escape(str(rejected))}; making it again for this host[/]")
            state = State.ABSENT
    if state is State.ABSENT:
        _make(export, store, folder, console)


def _make(export: ExportJob, store: Store, folder: Path, console: Console) -> None:
    """Makes the variant; notes it if it is refused. Raises ExportError."""
    with _refusals_noted(export.plan, folder, store):
        run_shown(export, export.plan, console)


@contextmanager
def _refusals_noted(plan: VariantPlan, folder: Path, store: Store) -> Iterator[None]:
    """Notes a refusal inside the block. An engine's crash counts as one if others are left to try."""
    try:
        yield
    except VariantRefused as refused:
        store.refuse(folder, refused)
        raise
    except ExportCrashed as crashed:
        if not plan.candidates:
            raise
        reason = f"{str(crashed).splitlines()[0].split(';')[0]}, perhaps by OpenVINO; ONNX Runtime is tried alone"
        refusal = VariantRefused(plan.checkpoint, plan.variant, reason, ())
        store.refuse(folder, refusal)
        raise refusal from crashed


def _chosen_here(folder: Path, plan: VariantPlan, host: Host) -> bool:
    """Whether the variant's engine was chosen on this kind of host, for as many threads."""
    manifest = read_manifest(folder)
    choice = manifest.choice if isinstance(manifest, ClassifierManifest) else None
    return choice is not None and (choice.measured_on, choice.threads) == (host.kind, plan.threads)


AT_ONCE = 2
"""Parallel exports. Each takes about one core, and 1.5 GB with torch loaded."""

MOST_BYTES = 200_000_000
"""The largest checkpoint to export in parallel; an export needs several times the checkpoint's memory."""

_HASTY_S = 0.1


@dataclass(frozen=True, slots=True)
class Missing:
    """A variant to make: its plan, its checkpoint's location, and its folder."""

    plan: VariantPlan
    location: str
    revision: str | None
    folder: Path

    @property
    def source_bytes(self) -> int:
        """The size of the checkpoint. Resolves the source, so it raises SourceRefused."""
        return source_bytes(self.location, self.revision)


def make_together(
    missing: Sequence[Missing], store: Store, settings: Settings, console: Console, most_bytes: int = MOST_BYTES
) -> None:
    """Makes the variants of small checkpoints in parallel, if there are several and enough cores.

    A checkpoint is small up to `most_bytes`; the others stay missing. A variant under its floor is noted as refused,
    one whose base cannot be fetched stays missing. Raises ExportError for any other failure, after it has ended the
    other processes.
    """
    small = [one for one in missing if one.source_bytes <= most_bytes]
    at_once = min(AT_ONCE, os.cpu_count() or 1)
    if at_once < 2 or len(small) < 2:
        return
    hasty = replace(settings, profile_budget_s=_HASTY_S, provisional=True)
    children: list[subprocess.Popen[str]] = []

    def make(one: Missing, progress: Progress) -> None:
        job = ExportJob(one.plan, one.location, one.revision, str(one.folder), str(store.root), hasty)
        with suppress(VariantRefused, BaseAbsent), _refusals_noted(one.plan, one.folder, store):
            run_job(job, progress, children.append)  # one whose base is absent stays missing

    with ThreadPoolExecutor(at_once) as pool, shown_together([one.plan for one in small], console) as lines:
        jobs = [pool.submit(make, one, line) for one, line in zip(small, lines, strict=True)]
        try:
            for job in as_completed(jobs):
                job.result()
        finally:
            for job in jobs:
                job.cancel()
            for child in children:
                child.terminate()  # no effect on finished ones
