"""Keeps a gateway: starts it as a process of its own, stops it in time, and clears what it leaves.

The keeper imports neither Ray nor an engine, so nothing that happens to those can keep it from ending the gateway. The
operator's signals reach it alone: the gateway's processes are a session of their own, and block SIGTERM and SIGHUP,
which systemd sends to every process of a service. The keeper tells the gateway to stop by a SIGINT.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from queue import SimpleQueue
from typing import NoReturn

from deployments.serve import environment

START_ENDS_WITHIN_S = 10.0
"""Seconds that a gateway that is not ready yet has to end: for what is being made, to remove its temporary folders."""

ENDS_WITHIN_S = 80.0
"""Seconds that a ready gateway has to end. Of these, requests under way have 60 (`serving.DRAIN_S`)."""

ONE_STOP_S = 0.5
"""Signals that come within so many seconds are one wish to stop: `timeout` sends two, and systemd may too."""

LOOK_S = 1.0
"""Seconds between two looks at whether the time is up."""

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 128 + signal.SIGINT
"""The exit status of a gateway whose start was interrupted."""

_READY = "ready"
_PR_SET_PDEATHSIG = 1
"""Linux's request for a signal at the death of the parent (prctl(2)); Python has no name for it."""


class Verdict(StrEnum):
    """What the keeper does next."""

    WAIT = "wait"
    STOP = "stop"
    END = "end"


@dataclass(slots=True)
class Stopping:
    """Decides from signals and the time when a gateway is asked to stop, and when it is ended. Holds no clock."""

    first: int | None = None
    """The signal that asked for the stop."""

    _asked_s: float = 0.0
    _until_s: float = 0.0

    def signalled(self, number: int, ready: bool, now_s: float) -> Verdict:
        """Takes a signal: the first asks the gateway to stop, a later one ends it at once."""
        if self.first is None:
            self.first, self._asked_s = number, now_s
            self._until_s = now_s + (ENDS_WITHIN_S if ready else START_ENDS_WITHIN_S)
            return Verdict.STOP
        return Verdict.WAIT if now_s - self._asked_s <= ONE_STOP_S else Verdict.END

    def looked(self, now_s: float) -> Verdict:
        """Says whether the gateway's time is up."""
        return Verdict.END if self.first is not None and now_s >= self._until_s else Verdict.WAIT

    def status(self, ended: int) -> int:
        """The exit status of a gateway that ended with this one: that of the signal that interrupted its start."""
        return 128 + self.first if self.first is not None and ended == INTERRUPTED else ended


def keep(gateway: Callable[[Path], int], say: Callable[[str], None]) -> int:
    """Runs a gateway in a process of its own until it ends or a signal stops it; returns its exit status.

    `gateway` gets its run folder and returns its exit status. SIGINT, SIGTERM and SIGHUP stop it: within
    `START_ENDS_WITHIN_S` before it is ready, else within `ENDS_WITHIN_S`; a second signal ends it at once. However it
    ends, even if the system kills it, no process, port or folder of it is left. Raises NoRunFolder.
    """
    with _signals() as heard, environment.run_folder() as folder:
        _flush()
        keeper = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the child has its handler
        child = os.fork()  # this process has one thread, and nothing of Ray's or of an engine's
        if child == 0:
            _become(gateway, folder, keeper)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        try:
            return _watched(child, folder, heard, say)
        finally:
            environment.end_session(child)  # Ray's agents outlive their raylet by a minute, and hide their environment


def ready(folder: Path) -> None:
    """Tells the keeper that from now on a stop has requests to wait for."""
    (folder / _READY).touch()


def stops(*numbers: signal.Signals) -> SimpleQueue[int]:
    """Has each of these signals put into the queue from now on; its `get` waits for the first one.

    A handler runs in the middle of whatever the main thread does. If that is waiting for an event, or another handler
    that sets it, the event's own lock is held and the handler waits for ever. A SimpleQueue's `put` may interrupt both.
    """
    told = SimpleQueue[int]()
    for number in numbers:
        signal.signal(number, lambda heard, _: told.put(heard))
    return told


@contextmanager
def _signals() -> Iterator[int]:
    """Has the signals of the operator and of children's ends written to a pipe; yields its reading end."""
    heard, told = os.pipe()
    os.set_blocking(heard, False)
    os.set_blocking(told, False)
    wanted = [one for one in STOPS if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN]  # nohup
    before = {number: signal.getsignal(number) for number in (*wanted, signal.SIGCHLD)}
    was = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    for number in before:
        signal.signal(number, lambda *_: None)  # without a handler nothing is written to the pipe
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(was)
        os.close(heard)
        os.close(told)


def _become(gateway: Callable[[Path], int], folder: Path, keeper: int) -> NoReturn:
    """Turns this new process into the gateway, which ends with its keeper."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGTERM, signal.SIGHUP})
        os.setsid()
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == keeper:
            environment.mark(folder)
            status = gateway(folder)
    except KeyboardInterrupt:
        status = INTERRUPTED
    finally:
        if (error := sys.exception()) is not None:
            traceback.print_exception(error)
        _flush()
        os._exit(status)  # the keeper clears; what Ray would do at exit takes seconds, and may hang


def _flush() -> None:
    """Writes what is buffered, unless the output is closed or was never there."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()


def _watched(child: int, folder: Path, heard: int, say: Callable[[str], None]) -> int:
    """Waits for the gateway's end, and asks for it when a signal says so; returns the exit status."""
    stopping = Stopping()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            if code < 0:
                say(f"the gateway's process was ended by {signal.Signals(-code).name}")
                return 1
            return stopping.status(code)
        for number in _heard(heard):
            is_ready = (folder / _READY).exists()
            match stopping.signalled(number, is_ready, time.monotonic()):
                case Verdict.STOP:
                    os.kill(child, signal.SIGINT)
                case Verdict.END:
                    _kill(child)
                    say(f"ended at once by a second signal, {signal.Signals(number).name}")
                    return 128 + number
        if stopping.looked(time.monotonic()) is Verdict.END:
            _kill(child)
            say("the gateway did not stop in time, and was ended")
            return 1


def _heard(heard: int) -> Sequence[int]:
    """The operator's signals since the last call; waits `LOOK_S` for one, or for a child's end."""
    select.select([heard], [], [], LOOK_S)
    try:
        return [number for number in os.read(heard, 64) if number != signal.SIGCHLD]
    except BlockingIOError:
        return ()


def _kill(child: int) -> None:
    """Kills the gateway's process, which has not been waited for; the run folder's end takes the others."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
