"""Ensures that every checkpoint of a catalog has a variant for this host before it is served.

A complete variant in the cache is hashed and used without torch. A missing one is made in a child process. On a first
start several are made in parallel; since they share the machine, they are profiled one by one afterwards.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock, Timeout
from msgspec.structs import replace
from rich.console import Console
from rich.markup import escape

from deployments.engines.host import Host, read_host, usable_cores
from deployments.replica.prepared import known_variants, not_prepared, note_prepared
from deployments.replica.variant import VariantRejected, checked_manifest
from exporters.choosing import in_words
from exporters.errors import BaseAbsent, ExportCrashed, ExportError, ExportFailed, SourceAbsent, VariantRefused
from exporters.kinds import KINDS, lone_threads_here
from exporters.plan import PRECISIONS, Candidate, Progress, Settings, VariantPlan
from exporters.preparing.job import ExportJob, ProfileJob, run_job, run_shown, shown_together
from exporters.preparing.store import State, Store
from exporters.sources.source import source_bytes
from gateway.catalogs.catalog import Catalog, CatalogEntry, EngineName, SourceKind
from gateway.model.manifest import ClassifierManifest, Precision, VariantManifest
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
    precision that it skips. Goes on without a checkpoint whose base cannot be fetched, or of which no precision passes,
    unless its task would have none. Blocks, for minutes on the first start; concurrent starts wait for each other.
    Raises ExportError. Without the libraries that make variants (`can_make`; None: look for them), takes the variants
    that an installation with them has prepared. `openvino` says whether OpenVINO may be raced (None: if it is
    installed).
    """
    if not (libraries_installed() if can_make is None else can_make):
        return _prepared_elsewhere(catalog, cache_dir, console)
    folders, _ = preparer_here(cache_dir, console, host, settings, openvino).prepare_all(catalog)
    return folders


def preparer_here(
    cache_dir: Path,
    console: Console,
    host: Host | None = None,
    settings: Settings | None = None,
    openvino: bool | None = None,
) -> Preparer:
    """A preparer for this host, unless another is given, and this cache; `openvino` as for `prepare`."""
    store = Store(cache_dir)
    try:
        store.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportFailed(f"the cache {cache_dir} cannot be made: {error.strerror}. {_ELSEWHERE}") from None
    openvino = find_spec("openvino") is not None if openvino is None else openvino
    return Preparer(store, host or read_host(), settings or Settings(), console, openvino)


FIRST, LATE = "prepare.lock", "late.lock"
"""Locks of the cache: one process at a time makes what a start waits for, and one what comes later."""

_ELSEWHERE = "Name another folder by --cache"

WAIT_S = 0.5
"""Seconds between two looks at whether to go on waiting for a lock."""


@dataclass(frozen=True)
class Preparer:
    """Makes the variants of checkpoints in one cache, for one host. `begun` is called with each child process."""

    store: Store
    host: Host
    settings: Settings
    console: Console
    openvino: bool
    begun: Callable[[subprocess.Popen[str]], None] = lambda child: None
    _states: dict[Path, State] = field(default_factory=dict, repr=False)
    """What was found in the cache: hashing a variant takes up to a second, so no folder is looked at twice."""

    def prepare_all(
        self, catalog: Catalog, *, every_task: bool = True
    ) -> tuple[Mapping[str, Path], Mapping[str, ExportError]]:
        """The variants' folders by checkpoint, and why others have none. Makes small ones first, in parallel.

        Prints why a checkpoint is left out. Raises that error if its task would have no checkpoint, or without
        `every_task` if no task would have one.
        """
        late = [entry for entry in catalog.checkpoints if self.takes_long(entry)]
        first = [entry for entry in catalog.checkpoints if entry not in late]
        folders: dict[str, Path] = {}
        absent: dict[str, ExportError] = {}
        for lock, entries in ((FIRST, first), (LATE, late)):
            if entries:
                with self.alone(lock) if self.store.writable else nullcontext():
                    self._prepare_each(entries, folders, absent)
        served = {task for task in catalog.tasks if any(entry.name in folders for entry in catalog.general(task))}
        for task in catalog.tasks:
            if task not in served and (every_task or not served):
                raise absent[catalog.general(task)[0].name]
        for name, why in absent.items():
            self.console.print(f"[yellow]{escape(str(why))}. Going on without {name}[/]", soft_wrap=True)
        return {entry.name: folders[entry.name] for entry in catalog.checkpoints if entry.name in folders}, absent

    @contextmanager
    def alone(self, lock: str, going_on: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """Holds a lock of the cache; says so if another process has it. Waits as long as `going_on` is true.

        What was found in the cache before it waited is forgotten. Raises ExportFailed when the wait is given up.
        """
        held = FileLock(self.store.root / lock)
        if lock == LATE:
            self._states.clear()  # another process may have made some of them since
        if not _taken(held, 0.0):
            self.console.print("[yellow]waiting for another process, which makes variants in this cache[/]")
            self._states.clear()
            while not _taken(held, WAIT_S):
                if not going_on():
                    raise ExportFailed("the wait for another process was given up")
        try:
            yield
        finally:
            held.release()

    def _prepare_each(
        self, entries: Sequence[CatalogEntry], folders: dict[str, Path], absent: dict[str, ExportError]
    ) -> None:
        missing = self._missing(entries) if self.store.writable else ()
        made = make_together(missing, self.store, self.settings, self.console)
        for folder in made:
            self._states.pop(folder, None)
        for entry in entries:
            try:
                folders[entry.name] = self.prepare(entry)
            except (BaseAbsent, VariantRefused) as error:
                absent[entry.name] = error

    def prepare(self, entry: CatalogEntry) -> Path:
        """The folder of the entry's variant; makes it if it is missing. Raises ExportError."""
        host, console = self.host, self.console
        plans = plans_for(entry, host, self.openvino)
        if host.dot_product is None and entry.precision[0] is Precision.INT8 and plans[0].engine != EngineName.TORCH:
            console.print(
                f"[yellow]{entry.name}: this processor has no int8 dot products; serving {plans[0].variant}[/]"
            )
        refused: VariantRefused | None = None
        for plan in plans:
            folder = self._folder(entry, plan)
            try:
                self._make_ready(entry, plan, folder)
            except VariantRefused as error:
                refused = error
                console.print(f"[yellow]{escape(str(error))}; not served[/]")
                continue
            _say_choice(entry.name, folder, console)
            if self.settings.floor is None and self.store.writable:  # variants with another floor are stored apart
                note_prepared(self.store.root, entry, folder)
            return folder
        raise refused or ExportFailed(f"{entry.name}: no precision to make")

    def takes_long(self, entry: CatalogEntry) -> bool:
        """True if the entry's variant is missing and its checkpoint is large or was never fetched.

        Raises SourceRefused.
        """
        if not self.is_missing(entry):
            return False
        return self._is_unseen(entry) or source_bytes(entry.source, entry.revision) > MOST_BYTES

    def is_missing(self, entry: CatalogEntry) -> bool:
        """True if the entry's variant must be made. Raises SourceRefused."""
        if self._is_unseen(entry):
            return True
        for plan in plans_for(entry, self.host, self.openvino):
            match self._state(self._folder(entry, plan), plan):
                case State.REFUSED:
                    continue
                case state:
                    return state is State.ABSENT
        return False

    def _is_unseen(self, entry: CatalogEntry) -> bool:
        """True for a checkpoint on the Hub that was never fetched: only fetching it tells how large it is."""
        return entry.kind is SourceKind.HUB and not self.store.knows(entry.source, entry.revision)

    def _missing(self, entries: Sequence[CatalogEntry]) -> list[Missing]:
        """The variants of each entry's first plan that the cache lacks."""
        missing = []
        for entry in entries:
            plan = plans_for(entry, self.host, self.openvino)[0]
            folder = self._folder(entry, plan)
            if self._state(folder, plan) is State.ABSENT:
                missing.append(Missing(plan, entry.source, entry.revision, folder))
        return missing

    def _folder(self, entry: CatalogEntry, plan: VariantPlan) -> Path:
        return self.store.folder(plan, self.store.source_sha256(entry.source, entry.revision), self.settings)

    def _state(self, folder: Path, plan: VariantPlan) -> State:
        if folder not in self._states:
            state = self.store.state(folder, self.host, plan.threads)
            if state is State.READY and _lacks_lone_runs(checked_manifest(folder), plan):
                state = State.PROFILED_ELSEWHERE  # with other threads than the entry has now
            self._states[folder] = state
        return self._states[folder]

    def _make_ready(self, entry: CatalogEntry, plan: VariantPlan, folder: Path) -> None:
        """Makes the variant in the folder READY. Raises VariantRefused, also if an earlier start noted it."""
        state = self._state(folder, plan)
        if (known := self.store.refusal(folder)) is not None:
            raise VariantRefused(known.checkpoint, known.variant, known.reason, ())
        if state is State.READY:
            return
        if not self.store.writable:
            self._do_without_writing(entry, state)
            return
        del self._states[folder]
        export = ExportJob(plan, entry.source, entry.revision, str(folder), str(self.store.root), self.settings)
        if state is State.PROFILED_ELSEWHERE and plan.candidates and not _chosen_here(folder, plan, self.host):
            try:
                self._make(export, folder)
                return
            except SourceAbsent:
                told = f"{entry.name}: its engine was chosen on another host, and its source is absent"
                self.console.print(f"[yellow]{told}[/]")
        if state is State.PROFILED_ELSEWHERE:
            try:
                run_shown(
                    ProfileJob(str(folder), plan.threads, plan.lone_threads, self.settings),
                    plan,
                    self.console,
                    self.begun,
                )
            except VariantRejected as rejected:
                self.console.print(f"[yellow]{escape(str(rejected))}; making it again for this host[/]")
                state = State.ABSENT
        if state is State.ABSENT:
            self._make(export, folder)

    def _do_without_writing(self, entry: CatalogEntry, state: State) -> None:
        """Goes on with a variant that was profiled elsewhere, where nothing can be written. Raises ExportFailed."""
        if state is State.ABSENT:
            what = f"it holds no variant of {entry.name} for this host"
            raise ExportFailed(f"the cache {self.store.root} cannot be written, and {what}. {_ELSEWHERE}")
        told = (
            f"{entry.name} was profiled on another host, and {self.store.root} cannot be written: forecasts will learn"
        )
        self.console.print(f"[yellow]{escape(told)}[/]", soft_wrap=True)

    def _make(self, export: ExportJob, folder: Path) -> None:
        """Makes the variant; notes it if it is refused. Raises ExportError."""
        with _refusals_noted(export.plan, folder, self.store):
            run_shown(export, export.plan, self.console, self.begun)


def _taken(lock: FileLock, within_s: float) -> bool:
    try:
        lock.acquire(timeout=within_s)
    except Timeout:
        return False
    return True


def libraries_installed() -> bool:
    """Whether the libraries that make variants are installed."""
    return all(find_spec(name) for name in ("torch", "transformers", "optimum"))


def _prepared_elsewhere(catalog: Catalog, cache_dir: Path, console: Console) -> Mapping[str, Path]:
    """The variants in the cache. Goes on without one that was not prepared, unless its task would have none."""
    folders, missing = known_variants(catalog, cache_dir)
    served = catalog.only(folders).tasks
    if set(served) != set(catalog.tasks):
        why = not_prepared(missing, "CATALOG", cache_dir)
        raise ExportFailed(f"{why}, which needs the extra: pip install 'punctual[export]'")
    for name in missing:
        console.print(f"[yellow]{escape(str(cache_dir))} holds no variant of {name}. Going on without it[/]")
    return folders


def precisions_for(entry: CatalogEntry, host: Host) -> tuple[Precision, ...]:
    """The precisions to try with one engine, in order: what the engine and the host's processor have, else fp32.

    Of an entry whose engine is `auto`, those of ONNX Runtime.
    """
    engine = EngineName.ONNX if entry.engine is EngineName.AUTO else entry.engine
    if engine is EngineName.OPENVINO:
        return (Precision.BF16,)
    runs = {one for one in PRECISIONS[engine] if one is not Precision.INT8 or host.dot_product is not None}
    return tuple(one for one in entry.precision if one in runs) or (Precision.FP32,)


MOST_LONE_THREADS = 4
"""Most threads of a lone run: a small model gains little from more. Set by hand, on two cores."""


def _lacks_lone_runs(manifest: VariantManifest, plan: VariantPlan) -> bool:
    """True if lone runs of the plan's threads are to be measured, and were not."""
    wanted, lone = lone_threads_here(manifest, plan.threads, plan.lone_threads), manifest.profile.lone
    return wanted is not None and (lone is None or lone.threads != wanted)


def lone_threads_of(entry: CatalogEntry) -> int:
    """The threads of a lone run: all processors that the entry reserves, up to a limit."""
    return max(entry.threads, min(entry.threads * entry.slots, MOST_LONE_THREADS))


def plans_for(entry: CatalogEntry, host: Host, openvino: bool) -> tuple[VariantPlan, ...]:
    """The variants to try, in order. `openvino` says whether its library is installed.

    With the engine `auto`, first the fastest of ONNX Runtime and OpenVINO, then ONNX Runtime alone. Where OpenVINO is
    not installed, the processor has no bf16, or the entry does not list it, there is nothing to race.
    """
    engine = EngineName.ONNX if entry.engine is EngineName.AUTO else entry.engine
    precisions = precisions_for(entry, host)

    def plan(engine: str, precision: Precision, candidates: tuple[Candidate, ...] = ()) -> VariantPlan:
        return VariantPlan(
            entry.name, entry.task, entry.family, engine, precision, entry.threads, candidates, lone_threads_of(entry)
        )

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


def _say_choice(name: str, folder: Path, console: Console) -> None:
    manifest = read_manifest(folder)
    if isinstance(manifest, ClassifierManifest) and manifest.choice is not None:
        console.print(escape(f"{name}: {in_words(manifest.choice, manifest.variant)}"), soft_wrap=True)


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
) -> list[Path]:
    """Makes the variants of small checkpoints in parallel, if there are several and enough cores; returns their places.

    A checkpoint is small up to `most_bytes`; the others stay missing. A variant under its floor is noted as refused,
    one whose base cannot be fetched stays missing. Raises ExportError for any other failure, after it has ended the
    other processes.
    """
    small = [one for one in missing if one.source_bytes <= most_bytes]
    at_once = min(AT_ONCE, int(usable_cores()))
    if at_once < 2 or len(small) < 2:
        return []
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
    return [one.folder for one in small]
