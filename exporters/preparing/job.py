"""Runs an export in a child process, so that the serving process never loads torch (hundreds of MB).

The child reads the job from standard input and writes events to standard output as JSON lines. Errors cross as values
and are raised again by the parent. All other output goes to a log, shown only if the child fails. As
`python -m exporters.preparing.job` this module is the child.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, TypeAlias

import msgspec
import psutil
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from deployments.replica.variant import VariantRejected
from exporters.errors import (
    BaseAbsent,
    Difference,
    ExportCrashed,
    ExportFailed,
    SourceAbsent,
    SourceRefused,
    VariantRefused,
)
from exporters.plan import Progress, Settings, Step, VariantPlan
from exporters.sources.source import resolve_source

LOG_LINES = 15
LEAST_PRIORITY = 19
"""The niceness of a job that runs beside a gateway: it takes what others leave."""

DEFAULTS = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "ORT_DISABLE_TELEMETRY": "1"}
"""The child's environment, where nothing else is set. Torch takes every core; on a busy machine or in a limited
container its threads then wait for each other, and an export of 20 s took over 400 s. ONNX Runtime would look up a
telemetry host."""

FAULTS = frozenset({signal.SIGSEGV, signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE})
"""The signals by which native code ends its process. Not SIGKILL, which a lack of memory may have sent."""


class ExportJob(msgspec.Struct, frozen=True, tag="export"):
    """Make a variant in the folder `out`; the base of an adapter is kept below `cache`."""

    plan: VariantPlan
    location: str
    revision: str | None
    out: str
    cache: str
    settings: Settings


class ProfileJob(msgspec.Struct, frozen=True, tag="profile"):
    """Measure a finished variant's latency profile again."""

    folder: str
    threads: int
    lone_threads: int
    settings: Settings


class Progressed(msgspec.Struct, frozen=True, tag="progressed"):
    """A job's current step, and its progress from 0 to 1."""

    step: Step
    share: float


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The job is finished."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The job raised one of `ERRORS`, given by name and arguments."""

    error: str
    arguments: tuple[str | tuple[Difference, ...], ...]


Job: TypeAlias = ExportJob | ProfileJob
Event: TypeAlias = Progressed | Done | Failed
RAISED = (SourceRefused, SourceAbsent, BaseAbsent, VariantRefused, VariantRejected, ExportFailed)
ERRORS: dict[str, Callable[..., Exception]] = {one.__name__: one for one in RAISED}
"""The errors that a job may raise; all take positional arguments only."""


@contextmanager
def shown_together(plans: Sequence[VariantPlan], console: Console) -> Iterator[list[Progress]]:
    """Shows a progress line for each of several variants made in parallel."""
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


Begun: TypeAlias = Callable[[subprocess.Popen[str]], None]
"""Takes a job's child process when it begins."""


def run_shown(job: Job, plan: VariantPlan, console: Console, begun: Begun = lambda child: None) -> None:
    """Runs a job with a progress line. Raises as `run_job`."""
    with shown_together([plan], console) as (progress,):
        run_job(job, progress, begun)


def run_job(job: Job, progress: Progress, begun: Begun = lambda child: None) -> None:
    """Runs a job in a child process until it ends; calls `begun` with that process at the start.

    Raises SourceRefused, VariantRefused, VariantRejected (a failed self-test) or ExportFailed, which holds the end of
    the child's log (ExportCrashed if native code ended the child). An interrupt ends the child before it propagates.
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
            raise failure_of(last, code, log)


def _child(log: IO[str]) -> subprocess.Popen[str]:
    """Starts the child. It does not search the current folder for modules (`-P`)."""
    root = str(Path(__file__).parents[2])
    search = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "exporters.preparing.job"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=DEFAULTS | os.environ | {"PYTHONPATH": search},
        encoding="utf-8",
    )


def _follow(lines: IO[str], progress: Progress) -> Event | None:
    """Reports progress; returns the job's last event, or None if the child died without one."""
    for line in lines:
        event: Event = msgspec.json.decode(line, type=Event)
        if not isinstance(event, Progressed):
            return event
        progress(event.step, event.share)
    return None


def failure_of(event: Event | None, code: int, log: IO[str]) -> Exception:
    """The error of a job that ended with this event and status, and wrote this log."""
    if isinstance(event, Failed):
        return ERRORS[event.error](*event.arguments)
    log.seek(0)
    tail = "".join(log.readlines()[-LOG_LINES:])
    if os.strerror(errno.ENOSPC) in tail:  # the libraries that write say it by errors of their own
        where = f"of the cache or of {tempfile.gettempdir()}"
        return ExportFailed(f"the disk is full, {where}. Free some of it, or name another folder by --cache")
    raised = ExportCrashed if -code in FAULTS else ExportFailed
    return raised(f"the export process ended with status {code}; the end of its log:\n{tail}")


def perform(job: Job, progress: Progress) -> None:
    """Performs a job in the child. Raises what `export` and `profile_again` raise."""
    from exporters.export import export, profile_again  # not needed by the parent

    if job.settings.yielding:
        yield_to_all()
    if isinstance(job, ProfileJob):
        budget_s, lone_threads = job.settings.profile_budget_s, job.lone_threads
        profile_again(Path(job.folder), job.threads, progress, budget_s, lone_threads=lone_threads)
        return
    fetching = partial(progress, Step.FETCHING)
    source = resolve_source(job.location, job.revision, Path(job.cache), fetching)
    export(job.plan, source, Path(job.out), progress, job.settings)


def yield_to_all() -> None:
    """Gives this process the lowest priority for processors and disks, for itself and what it starts."""
    process = psutil.Process()
    process.nice(LEAST_PRIORITY)
    with suppress(AttributeError, psutil.AccessDenied):  # Linux only
        process.ionice(psutil.IOPRIO_CLASS_IDLE)


def main() -> None:
    """Runs the child. Standard output carries only events; library output goes to standard error."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that temporary folders are removed
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # `punctual serve` blocks it
    job: Job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    events = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def tell(event: Event) -> None:
        events.write(msgspec.json.encode(event) + b"\n")

    with _Ending(tell) as ending:
        perform(job, ending.progress)


class _Ending:
    """Tells the parent how far a job is, and at its end how it ended: a fault that nobody expected in a sentence, too.

    Whole tracebacks go to the log.
    """

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell = tell
        self._step = Step.LOADING

    def progress(self, step: Step, share: float) -> None:
        """Tells the current step."""
        self._step = step
        self._tell(Progressed(step, share))

    def __enter__(self) -> _Ending:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Tells the end. Signals and interrupts go on."""
        match error:
            case None:
                self._tell(Done())
            case _ if isinstance(error, RAISED):
                self._tell(Failed(type(error).__name__, error.args))
            case ModuleNotFoundError():
                why = f"{error.name} is not installed, which making variants needs: pip install 'punctual[export]'"
                self._tell(Failed(ExportFailed.__name__, (why,)))
            case Exception():
                traceback.print_exception(error)
                self._tell(Failed(ExportFailed.__name__, (unexpected(error, self._step),)))
            case _:
                return False
        return True


def unexpected(error: Exception, step: Step) -> str:
    """A sentence about an exception that no part of an export foresees: when it came, what it says, and from where."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    frames = traceback.extract_tb(error.__traceback__)
    place = f", from {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"an unexpected fault while {step}: {type(error).__name__}{f': {said}' if said else ''}{place}"


if __name__ == "__main__":
    main()
