"""Export jobs as processes that are forked from one in which torch and transformers are imported already.

A job's own process imports both for 5 s, and then makes a variant of a tiny checkpoint in 2 s. Everything behind the
imports is the job's own: its module's `main`, its environment, its streams and its exit status.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, reduction
from typing import IO, Any

import pytest

from exporters.preparing import job

CONTEXT = multiprocessing.get_context("forkserver")


class WarmJob:
    """A job's process, as `subprocess.Popen` would give it."""

    def __init__(self, log: IO[str]) -> None:
        read_job, write_job = os.pipe()
        read_events, write_events = os.pipe()
        streams = [reduction.DupFd(number) for number in (read_job, write_events, log.fileno())]
        self._process = CONTEXT.Process(target=_become, args=(streams, job.DEFAULTS | os.environ))
        self._process.start()
        os.close(read_job)
        os.close(write_events)
        assert self._process.pid is not None
        self.pid: int = self._process.pid
        self.stdin, self.stdout = os.fdopen(write_job, "w"), os.fdopen(read_events)

    def wait(self) -> int:
        """Wait for the end; return the exit status, or the negative number of the signal that ended it."""
        self._process.join()
        status = self._process.exitcode
        assert status is not None
        return status

    def terminate(self) -> None:
        """Ask it to end, if it has not."""
        self._process.terminate()

    def __enter__(self) -> WarmJob:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.stdin.close()
        self.wait()


def _become(streams: list[Any], environment: dict[str, str]) -> None:
    """Be the job: its standard streams are these, and its environment is the parent's."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream.detach(), number)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    job.main()


@contextmanager
def warm_jobs() -> Iterator[None]:
    """Run all export jobs of the block in such processes."""
    CONTEXT.set_forkserver_preload(["warmed"])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in job.DEFAULTS.items():
            patch.setenv(name, os.environ.get(name, value))  # read by the libraries as they are imported
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # Python 3.11 to 3.13 give the process no other
        forkserver.ensure_running()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "_child", WarmJob)
        yield
