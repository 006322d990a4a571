"""What is said of a job that failed."""

from __future__ import annotations

import signal
from io import StringIO

import pytest

from exporters.errors import ExportCrashed, ExportFailed
from exporters.preparing.job import failure_of


@pytest.mark.parametrize(
    "last", ["OSError: [Errno 28] No space left on device", "SafetensorError: I/O error: No space left on device"]
)
def test_a_full_disk_is_said_in_a_sentence(last: str) -> None:
    """A job that found no room left says so and what to do, without a traceback of whichever library wrote."""
    error = failure_of(None, 1, StringIO(f"Traceback (most recent call last):\n{last}\n"))
    assert isinstance(error, ExportFailed)
    assert "the disk is full" in str(error)
    assert "--cache" in str(error)
    assert "Traceback" not in str(error)


@pytest.mark.parametrize(("code", "kind"), [(1, ExportFailed), (-signal.SIGSEGV, ExportCrashed)])
def test_another_failure_shows_the_end_of_the_log(code: int, kind: type[Exception]) -> None:
    """Any other failure has the job's last lines; native code's faults are told apart."""
    error = failure_of(None, code, StringIO("first\nlast\n"))
    assert type(error) is kind
    assert str(error).endswith("first\nlast\n")
