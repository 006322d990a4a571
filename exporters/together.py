"""The first start: variants that are not there yet are made side by side, so that every core has one to make.

Each is left with a profile that says it was not measured, since its engine shared the machine: `prepare` finds that and
measures one after the other.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace
from rich.console import Console

from exporters.errors import VariantRefused
from exporters.job import ExportJob, run_job
from exporters.plan import Progress, Settings, VariantPlan
from exporters.showing import shown_together
from exporters.source import source_files, source_folder
from exporters.store import Store

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
