"""Runs a command beside a run, such as a busy loop, from a given second to the end of the run."""

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
    """The command beside a run cannot be started; the message names it."""


class Neighbour:
    """The command beside a run, started or not; made by `beside`."""

    def __init__(self, command: tuple[str, ...], at_s: float) -> None:
        self._command = command
        self._at_s = at_s
        self._process: subprocess.Popen[bytes] | None = None

    def tick(self, age_s: float) -> None:
        """Starts the command when the run has reached its second."""
        if self._process is None and age_s >= self._at_s:
            silent = subprocess.DEVNULL
            self._process = subprocess.Popen(
                self._command, stdin=silent, stdout=silent, stderr=silent, start_new_session=True
            )

    @property
    def note(self) -> str:
        """A remark for the run's result, or an empty string."""
        if self._process is None:
            return "the command beside was never due"
        ended = self._process.poll()
        return "" if ended is None else f"the command beside ended early, with status {ended}"

    def end(self) -> None:
        """Ends the command and its child processes if it runs."""
        if self._process is None:
            return
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_WITHIN_S)
                return


def command_of(text: str) -> tuple[str, ...]:
    """Splits a command line into arguments as a shell does. Raises NoNeighbour."""
    try:
        command = tuple(shlex.split(text))
    except ValueError as error:
        raise NoNeighbour(f"{text!r}: {error}") from None
    if not command or shutil.which(command[0]) is None:
        raise NoNeighbour(f"{text!r}: there is no such command")
    return command


@contextmanager
def beside(command: tuple[str, ...] | None, at_s: float) -> Iterator[Neighbour | None]:
    """The command beside one run, ended on exit; None without a command."""
    if command is None:
        yield None
        return
    neighbour = Neighbour(command, at_s)
    try:
        yield neighbour
    finally:
        neighbour.end()
