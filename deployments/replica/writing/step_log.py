"""Logs when each text's engine steps began and ended, measured from its deadline. Proves that steps stop in time.

Off unless `PUNCTUAL_STEP_LOG` names a folder. Every replica then writes one file of JSON lines there, with request ids
and times and never any text.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct

VARIABLE = "PUNCTUAL_STEP_LOG"


class Step(Struct, frozen=True, array_like=True):
    """One engine step, in seconds after its text's deadline; negative is before it."""

    began_s: float
    ended_s: float

    @property
    def late(self) -> bool:
        """True if the step began after the deadline."""
        return self.began_s > 0


class Entry(Struct, frozen=True):
    """One text: its request's id, its steps in order, and whether its client left."""

    request_id: str
    steps: tuple[Step, ...]
    withdrawn: bool


class StepLog(Protocol):
    """Takes the steps of each text once, when the text has ended."""

    def write(self, request_id: str, steps: Sequence[Step], withdrawn: bool) -> None:
        """Takes one text's steps."""


class FileLog:
    """A file of JSON lines, one for each text. It keeps no file open, so it need not be closed."""

    def __init__(self, file: Path) -> None:
        """Appends to the file, and makes its folder if it is missing."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file

    def write(self, request_id: str, steps: Sequence[Step], withdrawn: bool) -> None:
        """Appends one line, which is in the file when this returns. Raises OSError if it cannot be written."""
        with self._file.open("ab", buffering=0) as out:
            out.write(msgspec.json.encode(Entry(request_id, tuple(steps), withdrawn)) + b"\n")


class _NoLog:
    def write(self, request_id: str, steps: Sequence[Step], withdrawn: bool) -> None:
        """Drops the steps."""


NO_LOG: StepLog = _NoLog()


def step_log_for(checkpoint: str) -> StepLog:
    """Opens the log that the environment asks for, with one file for this process."""
    folder = os.environ.get(VARIABLE)
    return FileLog(Path(folder) / f"{checkpoint}-{os.getpid()}.jsonl") if folder else NO_LOG


def read_log(folder: Path) -> list[Entry]:
    """Reads every entry of every file in the folder. Raises msgspec's DecodeError for a line that is not an entry."""
    lines = (line for file in sorted(folder.glob("*.jsonl")) for line in file.read_bytes().splitlines())
    return [msgspec.json.decode(line, type=Entry) for line in lines]
