"""An export in a process of its own, so that torch and its hundreds of MB never enter the one that serves.

The job goes in on the child's standard input, events come back as JSON lines on its standard output. A refusal
crosses as a value and is raised again on this side; whatever else the child says goes into a log that is shown only
when it breaks.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeAlias

import msgspec

from deployments.replica.variant import VariantRejected
from exporters.errors import Difference, ExportFailed, SourceRefused, VariantRefused
from exporters.plan import Progress, Settings, Step, VariantPlan

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


class SourceTurnedDown(msgspec.Struct, frozen=True, tag="source"):
    """SourceRefused, as a value."""

    message: str


class VariantTurnedDown(msgspec.Struct, frozen=True, tag="variant"):
    """VariantRefused, as a value."""

    checkpoint: str
    variant: str
    reason: str
    differences: tuple[Difference, ...]


class SelfTestFailed(msgspec.Struct, frozen=True, tag="rejected"):
    """VariantRejected, as a value."""

    checkpoint: str
    what: str
    expected: str
    got: str


class Broke(msgspec.Struct, frozen=True, tag="broke"):
    """ExportFailed, as a value."""

    message: str


Job: TypeAlias = ExportJob | ProfileJob
Event: TypeAlias = Progressed | Done | SourceTurnedDown | VariantTurnedDown | SelfTestFailed | Broke


def run_job(job: Job, progress: Progress, begun: Callable[[subprocess.Popen[str]], None] = lambda child: None) -> None:
    """Runs a job to its end in a child process, which `begun` is told of.

    Raises SourceRefused, VariantRefused, VariantRejected (a profile's self-test) or ExportFailed, which carries the
    end of the child's log. When this side is interrupted the child is ended before the exception goes on.
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
        [sys.executable, "-m", "exporters"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=ONE_THREAD | os.environ | {"PYTHONPATH": search},
        text=True,
    )


def _follow(lines: IO[str], progress: Progress) -> Event | None:
    """Passes progress on; gives back the event that ended the job, or None when the child died without one."""
    for line in lines:
        event: Event = msgspec.json.decode(line, type=Event)
        if not isinstance(event, Progressed):
            return event
        progress(event.step, event.share)
    return None


def _raised(event: Event | None, code: int, log: IO[str]) -> Exception:
    match event:
        case SourceTurnedDown(message):
            return SourceRefused(message)
        case VariantTurnedDown(checkpoint, variant, reason, differences):
            return VariantRefused(checkpoint, variant, reason, differences)
        case SelfTestFailed(checkpoint, what, expected, got):
            return VariantRejected(checkpoint, what, expected, got)
        case Broke(message):
            return ExportFailed(message)
    log.seek(0)
    tail = "".join(log.readlines()[-LOG_LINES:])
    return ExportFailed(f"the export process ended with status {code}; its last words:\n{tail}")
