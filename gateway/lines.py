"""Lines on their way to a file: handed over in no time, written by a thread of their own.

Knows neither what a line says nor how a file is rotated: whoever moves the file away finds the next line in a new one.
"""

from __future__ import annotations

import os
import select
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

MOST_WAITING = 10_000
"""How many lines may wait for the file; of some 700 bytes each they are 7 MB."""

GATHERED_S = 0.1
"""How long lines are gathered before they are written: the thread then wakes ten times a second, not once a line."""

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_MOST_AT_ONCE = 1 << 16


class Sink(Protocol):
    """Where lines end up."""

    def write(self, lines: Iterable[bytes]) -> None:
        """Writes whole lines. Raises OSError."""


class WatchedFile:
    """A file, a pipe or a terminal by its path: opened when something is written, and anew once it was moved away.

    Several processes may write to one: a file takes each write at its end, and a pipe no more than it takes whole.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._most = 0

    def write(self, lines: Iterable[bytes]) -> None:
        """Writes whole lines, however many calls that takes. Raises OSError."""
        if self._moved():
            self.close()
            self._open()
        for part in _parts(lines, self._most):
            left = memoryview(part)
            while left:
                left = left[os.write(self._descriptor, left) :]

    def close(self) -> None:
        """Closes it; the next line opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _moved(self) -> bool:
        if self._descriptor < 0:
            return True
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return True

    def _open(self) -> None:
        """A pipe that nobody reads is an error at once (ENXIO), not a wait."""
        self._descriptor = os.open(self._path, _FLAGS, 0o640)
        os.set_blocking(self._descriptor, True)
        is_pipe = stat.S_ISFIFO(os.fstat(self._descriptor).st_mode)
        self._most = select.PIPE_BUF if is_pipe else _MOST_AT_ONCE


class Lines:
    """Takes lines and never keeps anyone waiting: where too many wait, a line is dropped and counted."""

    def __init__(self, sink: Sink, notice: Callable[[int], bytes], most_waiting: int = MOST_WAITING) -> None:
        """`notice` is the line that says how many were dropped; it is written once lines get through again."""
        self._sink = sink
        self._notice = notice
        self._most_waiting = most_waiting
        self._waiting: deque[bytes] = deque()
        self._refused = self._lost = self._told = 0
        self._some = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_on, name="lines", daemon=True)

    @property
    def dropped(self) -> int:
        """How many lines were not written: too many waited, or the file took none."""
        return self._refused + self._lost

    def start(self) -> None:
        """Starts the thread that writes. Call it once."""
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Takes one line, its end included."""
        if len(self._waiting) >= self._most_waiting or self._closing.is_set():
            self._refused += 1
            return
        self._waiting.append(line)
        if not self._some.is_set():
            self._some.set()

    def close(self, within_s: float) -> None:
        """Writes what waits, and returns within so many seconds though the file take nothing."""
        self._closing.set()
        self._some.set()
        self._thread.join(within_s)

    def _write_on(self) -> None:
        while not self._closing.is_set():
            self._some.wait()
            self._closing.wait(GATHERED_S)
            self._some.clear()  # before they are taken: what comes after that sets it again
            self._write([self._waiting.popleft() for _ in range(len(self._waiting))])
        self._write(list(self._waiting))  # what came between the last taking and the closing

    def _write(self, lines: list[bytes]) -> None:
        dropped = self.dropped
        untold = dropped - self._told
        try:
            self._sink.write([*lines, self._notice(untold)] if untold else lines)
            self._told = dropped
        except OSError:  # a full disk, a pipe that nobody reads: it costs lines, and no request
            self._lost += len(lines)


def _parts(lines: Iterable[bytes], most: int) -> Iterator[bytes]:
    """The lines joined into as few pieces as may be of so many bytes; a line that is longer stands alone."""
    part: list[bytes] = []
    size = 0
    for line in lines:
        if part and size + len(line) > most:
            yield b"".join(part)
            part, size = [], 0
        part.append(line)
        size += len(line)
    if part:
        yield b"".join(part)
