"""Runs an export in a process of its own, so that torch and its hundreds of MB never enter the one that serves.

The job goes in on the child's standard input, events come back as JSON lines on its standard output. A refusal
crosses as a value and is raised again on this side. All other output of the child goes into a log that is shown only
when the child breaks. Run as `python -m exporters.job`, this module is the child.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeAlias

import msgspec
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from deployments.replica.variant import VariantRejected
from exporters.errors import Difference, ExportFailed, SourceAbsent, SourceRefused, VariantRefused
from exporters.plan import Progress, Settings, Step, VariantPlan
from exporters.source import resolve_source

LOG_LINES = 15
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""Unless the environment says otherwise: torch takes every core of the machine, and on a busy one, or in a container
with a share of it, its threads wait for each other so long that an export of 20 s was seen to pass 400 s."""


class ExportJob(msgspec.Struct, frozen=True, tag="export"):
    """Make a variant in the folder `out`."""

    plan: VariantPlan
    location: str
    revision: str | None
    out: str
    settings: Settings


class ProfileJob(msgspec.Struct, frozen=True, tag="profile"):
    """Measure a finished variant's latency profile again."""

    folder: str
    threads: int
    settings: Settings


class Progressed(msgspec.Struct, frozen=True, tag="progressed"):
    """The step a job is in, and how much of it is done, from 0 to 1."""

    step: Step
    share: float


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The job is finished."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The job ended with one of `ERRORS`, by its name and its arguments."""

    error: str
    arguments: tuple[str | tuple[Difference, ...], ...]


Job: TypeAlias = ExportJob | ProfileJob
Event: TypeAlias = Progressed | Done | Failed
ERRORS: dict[str, Callable[..., Exception]] = {
    one.__name__: one for one in (SourceRefused, SourceAbsent, VariantRefused, VariantRejected, ExportFailed)
}
"""What a job may end with; all take positional arguments alone."""


@contextmanager
def shown_together(plans: Sequence[VariantPlan], console: Console) -> Iterator[list[Progress]]:
    """A line at the terminal for each of several variants that are made side by side."""
    columns = (TextColumn("{task.fields[variant]}"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bar(*columns, console=console) as bar:
        yield [_line(bar, plan) for plan in plans]
        for line in bar.task_ids:
            bar.update(line, description="ready", completed=len(Step))


def _line(bar: Bar, plan: VariantPlan) -> Progress:
    line = bar.add_task("waiting", total=len(Step), variant=f"{plan.checkpoint} {plan.variant}", start=False)

    def progress(step: Step, share: float) -> None:
        bar.start_task(line)
        bar.update(line, description=step, completed=list(Step).index(step) + share)

    return progress


def run_shown(job: Job, plan: VariantPlan, console: Console) -> None:
    """Runs a job with a line that says which variant is being made, at which step, how far. Raises as `run_job`."""
    with shown_together([plan], console) as (progress,):
        run_job(job, progress)


def run_job(job: Job, progress: Progress, begun: Callable[[subprocess.Popen[str]], None] = lambda child: None) -> None:
    """Runs a job to its end in a child process, and calls `begun` with that process.

    Raises SourceRefused, VariantRefused, VariantRejected (a profile's self-test) or ExportFailed, which carries the
    end of the child's log. An interrupt ends the child before the exception goes on.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log, _child(log) as child:
        assert child.stdin is not None and child.stdout is not None, "both are pipes"
        begun(child)
        try:
            child.stdin.write(msgspec.json.encode(job).decode())
            child.stdin.close()
            last = _follow(child.stdout, progress)
            code = child.wait()
        finally:
            child.terminate()
        if not isinstance(last, Done):
            raise _raised(last, code, log)


def _child(log: IO[str]) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[1])
    search = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-m", "exporters.job"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=ONE_THREAD | os.environ | {"PYTHONPATH": search},
        text=True,
    )


def _follow(lines: IO[str], progress: Progress) -> Event | None:
    """Passes progress on; returns the event that ended the job, or None when the child died without one."""
    for line in lines:
        event: Event = msgspec.json.decode(line, type=Event)
        if not isinstance(event, Progressed):
            return event
        progress(event.step, event.share)
    return None


def _raised(event: Event | None, code: int, log: IO[str]) -> Exception:
    if isinstance(event, Failed):
        return ERRORS[event.error](*event.arguments)
    log.seek(0)
    tail = "".join(log.readlines()[-LOG_LINES:])
    return ExportFailed(f"the export process ended with status {code}; its last words:\n{tail}")


def perform(job: Job, progress: Progress) -> None:
    """Does what the job says, in the child. Raises what `export` and `profile_again` raise."""
    from exporters.export import export, profile_again  # the side that waits for the child needs none of it

    if isinstance(job, ProfileJob):
        profile_again(Path(job.folder), job.threads, progress, job.settings.profile_budget_s)
        return
    source = resolve_source(job.location, job.revision)
    export(job.plan, source, Path(job.out), progress, job.settings)


def main() -> None:
    """Runs the child. Standard output carries events alone; what libraries print goes to standard error."""
    job: Job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    events = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def tell(event: Event) -> None:
        events.write(msgspec.json.encode(event) + b"\n")

    try:
        perform(job, lambda step, share: tell(Progressed(step, share)))
        tell(Done())
    except (SourceRefused, VariantRefused, VariantRejected, ExportFailed) as error:
        tell(Failed(type(error).__name__, error.args))
    except ModuleNotFoundError as missing:
        why = f"{missing.name} is not installed, which making variants needs: pip install 'punctual[export]'"
        tell(Failed(ExportFailed.__name__, (why,)))


if __name__ == "__main__":
    main()
