"""The keeper of a gateway: what it does at each signal, and that it leaves nothing, however the gateway ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import kept
import psutil
import pytest
from waiting import wait_until

from deployments.serve import environment
from deployments.serve.keeping import (
    ENDS_WITHIN_S,
    INTERRUPTED,
    ONE_STOP_S,
    START_ENDS_WITHIN_S,
    STOPS,
    Stopping,
    Verdict,
    keep,
)
from deployments.serve.serving import DRAIN_S, lost_part

WITHIN_S = 60
"""Seconds that a test waits for an end; it takes one or two."""


@pytest.mark.parametrize("number", STOPS)
def test_the_first_signal_asks_and_a_later_one_ends(number: int) -> None:
    """The first signal asks the gateway to stop; one that comes after a moment waits for nobody."""
    stopping = Stopping()
    assert stopping.looked(1e9) is Verdict.WAIT
    assert stopping.signalled(number, ready=True, now_s=5.0) is Verdict.STOP
    assert stopping.signalled(number, ready=True, now_s=5.0 + 2 * ONE_STOP_S) is Verdict.END


def test_signals_of_one_moment_are_one_wish() -> None:
    """`timeout` signals its child and then the child's group: that is one wish to stop."""
    stopping = Stopping()
    stopping.signalled(signal.SIGTERM, ready=True, now_s=5.0)
    assert stopping.signalled(signal.SIGTERM, ready=True, now_s=5.0 + ONE_STOP_S / 2) is Verdict.WAIT


@pytest.mark.parametrize(("ready", "within_s"), [(False, START_ENDS_WITHIN_S), (True, ENDS_WITHIN_S)])
def test_a_stop_has_a_limit(ready: bool, within_s: float) -> None:
    """A gateway that does not end by itself is ended: a ready one only after its requests had their time."""
    stopping = Stopping()
    stopping.signalled(signal.SIGTERM, ready=ready, now_s=5.0)
    assert stopping.looked(5.0 + within_s - 0.1) is Verdict.WAIT
    assert stopping.looked(5.0 + within_s) is Verdict.END
    assert ENDS_WITHIN_S > DRAIN_S


def test_an_interrupted_start_has_the_status_of_its_signal() -> None:
    """A start that a signal interrupts ends with 128 and the signal's number, any other end with its own status."""
    stopping = Stopping()
    assert stopping.status(1) == 1
    stopping.signalled(signal.SIGTERM, ready=False, now_s=0.0)
    assert [stopping.status(INTERRUPTED), stopping.status(0), stopping.status(1)] == [143, 0, 1]


@dataclass(frozen=True)
class Kept:
    """A made-up gateway that runs: its keeper, its processes without the keeper, and its run folder."""

    keeper: subprocess.Popen[str]
    family: list[psutil.Process]
    folder: Path

    def left(self) -> list[psutil.Process]:
        """Return what still runs of it; the dead may not have been waited for yet."""
        return [one for one in self.family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@contextmanager
def begun(does: str) -> Iterator[Kept]:
    """Start a made-up gateway, and wait until it is up."""
    keeper = subprocess.Popen(
        [sys.executable, kept.__file__, does],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert keeper.stdout is not None
    try:
        folder, other = keeper.stdout.readline().split()
        family = [psutil.Process(int(other))] if psutil.pid_exists(int(other)) else []
        yield Kept(keeper, family + psutil.Process(keeper.pid).children(), Path(folder))
    finally:
        keeper.kill()
        keeper.wait()
        keeper.stdout.close()


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_to_every_process_leaves_nothing(number: signal.Signals) -> None:
    """A ready gateway whose every process gets the signal ends with status 0, and leaves no process and no folder."""
    with begun("waits") as one:
        for process in one.family:
            if number is not signal.SIGINT or process.ppid() == one.keeper.pid:  # Ray's processes block SIGINT
                process.send_signal(number)
        one.keeper.send_signal(number)
        assert one.keeper.wait(WITHIN_S) == 0
        assert not one.left()
        assert not one.folder.exists()


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_during_the_start_ends_it(number: signal.Signals) -> None:
    """A start ends with the status of the signal, and leaves no process and no folder."""
    with begun("interrupted") as one:
        os.killpg(one.keeper.pid, number)
        assert one.keeper.wait(WITHIN_S) == 128 + number
        assert not one.left()
        assert not one.folder.exists()


def test_a_gateway_that_ends_by_itself_leaves_nothing() -> None:
    """The command ends with the gateway's own status, without the processes that it had started."""
    with begun("fails") as one:
        assert one.keeper.wait(WITHIN_S) == 7
        assert not one.left()
        assert not one.folder.exists()


def test_a_gateway_that_is_killed_is_missed() -> None:
    """If the system kills the gateway's process, the command says so, and leaves nothing."""
    with begun("waits") as one:
        next(process for process in one.family if process.ppid() == one.keeper.pid).kill()
        assert one.keeper.wait(WITHIN_S) == 1
        assert one.keeper.stdout is not None
        assert "SIGKILL" in one.keeper.stdout.read()
        assert not one.left()
        assert not one.folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has died")
def test_the_next_start_clears_what_a_killed_keeper_left() -> None:
    """The gateway ends with its keeper; the next start ends its other processes, and removes its folder."""
    with begun("waits") as one:
        with environment.run_folder() as other:
            assert other != one.folder
            assert one.folder.exists(), "it is in use"
        one.keeper.kill()
        one.keeper.wait()
        with environment.run_folder():
            assert not one.folder.exists()
        wait_until(lambda: not one.left())


def test_every_signal_of_a_burst_is_taken() -> None:
    """Signals that interrupt each other, and the wait for the first one, hold nobody up."""
    with begun("waits") as one:
        gateway = next(process for process in one.family if process.ppid() == one.keeper.pid)
        with suppress(psutil.NoSuchProcess):
            for _ in range(1000):
                gateway.send_signal(signal.SIGINT)
        assert one.keeper.wait(WITHIN_S) == 0
        assert not one.left()


def test_a_part_that_died_is_named() -> None:
    """A process that has ended is missed, whether somebody waited for it or not."""
    part = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    parts = {"the keeper": psutil.Process(), "the part": psutil.Process(part.pid)}
    assert lost_part(parts) is None
    part.kill()
    wait_until(lambda: lost_part(parts) == "the part")
    part.wait()
    assert lost_part(parts) == "the part"


def test_a_gateway_that_ends_gives_its_status_and_leaves_no_folder() -> None:
    """The keeper has the gateway's exit status, removes its run folder, and gives the signals back."""
    before = [signal.getsignal(number) for number in STOPS]
    folders = os.pipe()

    def gateway(folder: Path) -> int:
        os.write(folders[1], str(folder).encode())
        return 7

    assert keep(gateway, print) == 7
    assert not Path(os.read(folders[0], 4096).decode()).exists()
    assert [signal.getsignal(number) for number in STOPS] == before
    for end in folders:
        os.close(end)


def test_a_gateway_that_is_killed_is_said() -> None:
    """A gateway that a signal has ended is said to be, and the status is 1."""
    said: list[str] = []

    def gateway(folder: Path) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    assert keep(gateway, said.append) == 1
    assert said == ["the gateway's process was ended by SIGKILL"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_start_that_is_stopped_ends_by_the_signals_status(number: signal.Signals) -> None:
    """A signal to the keeper reaches a gateway that is not ready as an interrupt, and gives the exit status."""
    keeper = os.getpid()

    def gateway(folder: Path) -> int:
        os.kill(keeper, number)
        while True:
            signal.pause()

    assert keep(gateway, print) == 128 + number
