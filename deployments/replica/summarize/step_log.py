"""The log of engine steps: of each text, when its steps began and ended by its own deadline. The proof of punctuality.

Off unless `PUNCTUAL_STEP_LOG` names a folder; every replica then writes a file of JSON lines into it. It holds request
ids and times, never any text.
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
    """One step of an engine, in seconds seen from its text's deadline: negative is before it."""

    began_s: float
    ended_s: float

    @property
    def late(self) -> bool:
        """Whether it began when the deadline had passed."""
        return self.began_s > 0


class Entry(Struct, frozen=True):
    """One text: the request's id, its steps in their order, and whether its client had left."""

    request_id: str
    steps: tuple[Step, ...]
    withdrawn: bool


class StepLog(Protocol):
    """Takes the steps of each text once, when it has ended."""

    def write(self, request_id: str, steps: Sequence[Step], withdrawn: bool) -> None:
        """Takes one text's steps."""


class FileLog:
    """A file of JSON lines, one for each text. It holds nothing open, so it need not be closed."""

    def __init__(self, file: Path) -> None:
        """Appends to the file; its folder is made if need be."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file

    def write(self, request_id: str, steps: Sequence[Step], withdrawn: bool) -> None:
        """Appends one line, which is in the file when this returns. Raises OSError where that cannot be."""
        with self._file.open("ab", buffering=0) as out:
            out.write(msgspec.json.encode(Entry(request_id, tuple(steps), withdrawn)) + b"\n")


class _NoLog:
    def write(self, request_id: str, steps: Sequence[Step], withdrawn: bool) -> None:
        """Keeps nothing."""


NO_LOG: StepLog = _NoLog()


def step_log_for(checkpoint: str) -> StepLog:
    """The log that the environment asks for, one file for this process."""
    folder = os.environ.get(VARIABLE)
    return FileLog(Path(folder) / f"{checkpoint}-{os.getpid()}.jsonl") if folder else NO_LOG


def read_log(folder: Path) -> list[Entry]:
    """Every entry of every file in the folder. Raises msgspec's DecodeError for a line that is none."""
    lines = (line for file in sorted(folder.glob("*.jsonl")) for line in file.read_bytes().splitlines())
    return [msgspec.json.decode(line, type=Entry) for line in lines]
