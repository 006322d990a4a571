"""Another process beside a run: a command that starts at its second and ends with it, such as a busy loop."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from loadtests.errors import LoadTestError

END_WITHIN_S = 5.0


class NoNeighbour(LoadTestError):
    """The command that was to run beside cannot be started; the message says which."""


class Neighbour:
    """A command that is not running yet, or is. `beside` makes one."""

    def __init__(self, command: tuple[str, ...], at_s: float) -> None:
        self._command = command
        self._at_s = at_s
        self._process: subprocess.Popen[bytes] | None = None

    def tick(self, age_s: float) -> None:
        """Starts the command once the run is old enough."""
        if self._process is None and age_s >= self._at_s:
            silent = subprocess.DEVNULL
            self._process = subprocess.Popen(
                self._command, stdin=silent, stdout=silent, stderr=silent, start_new_session=True
            )

    @property
    def note(self) -> str:
        """What to note of it at the end of a run, if anything."""
        if self._process is None:
            return "the command beside was never due"
        ended = self._process.poll()
        return "" if ended is None else f"the command beside had ended by itself, with {ended}"

    def end(self) -> None:
        """Ends it and all that it started, if it runs."""
        if self._process is None:
            return
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_WITHIN_S)
                return


def command_of(text: str) -> tuple[str, ...]:
    """The command and its arguments, taken apart as a shell would, without a shell. Raises NoNeighbour."""
    try:
        command = tuple(shlex.split(text))
    except ValueError as error:
        raise NoNeighbour(f"{text!r}: {error}") from None
    if not command or shutil.which(command[0]) is None:
        raise NoNeighbour(f"{text!r}: there is no such command")
    return command


@contextmanager
def beside(command: tuple[str, ...] | None, at_s: float) -> Iterator[Neighbour | None]:
    """A neighbour for one run, gone at its end; None where there is no command."""
    if command is None:
        yield None
        return
    neighbour = Neighbour(command, at_s)
    try:
        yield neighbour
    finally:
        neighbour.end()
