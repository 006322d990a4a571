"""Divides a first start in two: what the gateway waits for, and what is prepared behind it while it serves.

A start waits for one checkpoint of each task. The others that must be made come later: small ones first, then large
ones and those that must be fetched.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import psutil
from rich.console import Console

from deployments.replica.prepared import NeverReady, known_variants
from deployments.replica.variant import VariantRejected
from exporters.errors import BaseAbsent, ExportError, SourceRefused, VariantRefused
from exporters.plan import Settings
from exporters.preparing.prepare import LATE, Preparer, libraries_installed, prepare, preparer_here
from gateway.catalogs.catalog import Catalog, CatalogEntry

ENDS_WITHIN_S = 3.0
"""Seconds that a job has to remove what it has begun; then it is killed."""


@dataclass(frozen=True)
class FirstStart:
    """The folders of the variants that the gateway starts with, by checkpoint, and what makes the others."""

    variants: Mapping[str, Path]
    behind: Behind


class Behind:
    """Makes the variants of late checkpoints, one at a time, at the lowest priority."""

    def __init__(self, preparer: Preparer | None, late: Sequence[CatalogEntry], failed: Mapping[str, str]) -> None:
        """`failed` are the checkpoints that will not come, with the reason."""
        self._preparer: Preparer | None = None
        if preparer is not None:
            yielding = msgspec.structs.replace(preparer.settings, yielding=True)
            self._preparer = replace(preparer, settings=yielding, begun=self._begun)
        self._entries = {entry.name: entry for entry in late}
        self._stopping = threading.Event()
        self._child: subprocess.Popen[str] | None = None
        self.names: Sequence[str] = tuple(self._entries)
        self.failed = failed

    def prepare(self, checkpoint: str) -> Path:
        """The folder of the checkpoint's variant. Blocks, for minutes. Raises NeverReady."""
        assert self._preparer is not None, "without a preparer nothing comes"
        try:
            with self._preparer.alone(LATE, lambda: not self._stopping.is_set()):
                return self._preparer.prepare(self._entries[checkpoint])
        except (ExportError, VariantRejected, OSError) as error:
            raise NeverReady(str(error), reason_of(error)) from error

    def stop(self) -> None:
        """Ends what is being made, and everything that it has started; `prepare` then raises NeverReady."""
        self._stopping.set()
        if self._child is not None:
            _end(self._child)

    def _begun(self, child: subprocess.Popen[str]) -> None:
        self._child = child
        if self._stopping.is_set():
            _end(child)


def prepare_first(catalog: Catalog, cache_dir: Path, console: Console, settings: Settings | None = None) -> FirstStart:
    """Prepares what the gateway starts with, and says what comes later. Blocks. Raises ExportError.

    A task whose checkpoints cannot be had is left without, as where weights cannot be fetched, unless none would have
    one. Without the libraries that make variants, nothing comes later.
    """
    if not libraries_installed():
        folders = prepare(catalog, cache_dir, console, settings=settings, can_make=False)
        _, missing = known_variants(catalog, cache_dir)
        return FirstStart(folders, Behind(None, (), dict.fromkeys(missing, "it was not prepared")))
    preparer = preparer_here(cache_dir, console, settings=settings)
    late = late_ones(catalog, [entry for entry in catalog.checkpoints if preparer.is_missing(entry)])
    late = tuple(sorted(late, key=preparer.takes_long))
    first = catalog.only({entry.name for entry in catalog.checkpoints if entry not in late})
    try:
        folders, absent = preparer.prepare_all(first)
    except (BaseAbsent, VariantRefused):  # the one that was to answer for its task cannot: another may
        late = ()
        folders, absent = preparer.prepare_all(catalog, every_task=False)
    failed = {name: reason_of(error) for name, error in absent.items()}
    return FirstStart(folders, Behind(preparer, late, failed))


def late_ones(catalog: Catalog, missing: Sequence[CatalogEntry]) -> tuple[CatalogEntry, ...]:
    """Of the checkpoints that must be made, those that the gateway need not wait for.

    It waits for one of each task, of any domain if there is one: where all are missing, for that of the lowest tier.
    """
    late = list(missing)
    for task in catalog.tasks:
        general = catalog.general(task)
        if all(entry in late for entry in general):
            late.remove(min(general, key=lambda entry: (entry.tier.rank, entry.quality.standing)))
    return tuple(late)


def reason_of(error: Exception) -> str:
    """Why a checkpoint has no variant, in a sentence for clients, without paths of this host."""
    match error:
        case BaseAbsent():
            return "its weights, or those that it adapts, cannot be fetched"
        case VariantRefused():
            return f"no variant of it may be served: {error.reason}"
        case SourceRefused():
            return "its source cannot be used"
    return "its variant could not be made"


def _end(child: subprocess.Popen[str]) -> None:
    """Ends a job and all that it has started. It may remove its temporary folders first."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(child.pid)
        family = [process, *process.children(recursive=True)]
        process.terminate()
        _, left = psutil.wait_procs(family, ENDS_WITHIN_S)
        for one in left:
            with suppress(psutil.NoSuchProcess):
                one.kill()
