"""The child of `exporters.job`: one job from standard input, its events to standard output, as JSON lines."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from deployments.replica.variant import VariantRejected
from exporters.errors import ExportFailed, SourceRefused, VariantRefused
from exporters.export import export, profile_again
from exporters.job import (
    Broke,
    Done,
    Event,
    Job,
    ProfileJob,
    Progressed,
    SelfTestFailed,
    SourceTurnedDown,
    VariantTurnedDown,
)
from exporters.plan import Progress
from exporters.source import resolve_source


def perform(job: Job, progress: Progress) -> None:
    """Does what the job says. Raises what `export` and `profile_again` raise."""
    if isinstance(job, ProfileJob):
        profile_again(Path(job.folder), job.threads, progress, job.settings.profile_budget_s)
        return
    source = resolve_source(job.location, job.revision)
    export(job.plan, source, Path(job.out), progress, job.settings)


def main() -> None:
    """Runs the job. What libraries print goes to standard error: standard output carries events and nothing else."""
    job: Job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    events = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def tell(event: Event) -> None:
        events.write(msgspec.json.encode(event) + b"\n")

    try:
        perform(job, lambda step, share: tell(Progressed(step, share)))
        tell(Done())
    except SourceRefused as refused:
        tell(SourceTurnedDown(str(refused)))
    except VariantRefused as refused:
        tell(VariantTurnedDown(refused.checkpoint, refused.variant, refused.reason, refused.differences))
    except VariantRejected as rejected:
        tell(SelfTestFailed(rejected.checkpoint, rejected.what, rejected.expected, rejected.got))
    except ExportFailed as failed:
        tell(Broke(str(failed)))


if __name__ == "__main__":
    main()
