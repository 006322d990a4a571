"""Lines on their way to a file: nobody waits for it, none is lost unheard, and a file may be moved away meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.lines import Lines, WatchedFile

ENDED_S = 5.0


@dataclass
class Gated:
    """A sink that writes nothing until it is let, and fails while it is told to."""

    open: threading.Event = field(default_factory=threading.Event)
    failing: bool = False
    written: list[bytes] = field(default_factory=list)

    def write(self, lines: Iterable[bytes]) -> None:
        self.open.wait(ENDED_S)
        if self.failing:
            raise OSError(28, "no space left on device")
        self.written.extend(lines)


def notice(dropped: int) -> bytes:
    """Says how many."""
    return b"dropped %d\n" % dropped


def numbered(count: int) -> list[bytes]:
    """Lines that differ."""
    return [b"line %d\n" % at for at in range(count)]


def test_what_was_taken_is_written_in_order() -> None:
    """Closing writes all that waits: every line once, as it came."""
    sink = Gated()
    sink.open.set()
    lines = Lines(sink, notice)
    lines.start()
    for line in numbered(500):
        lines.put(line)
    lines.close(ENDED_S)
    assert sink.written == numbered(500) and lines.dropped == 0


def test_a_stuck_file_costs_lines_and_keeps_nobody_waiting() -> None:
    """What is over the bound is dropped at once and counted, and the log says so when it gets through again."""
    sink = Gated()
    lines = Lines(sink, notice, most_waiting=10)
    lines.start()
    for line in numbered(1000):
        lines.put(line)
    lines.close(0.01)  # returns, though the file takes nothing
    taken = 1000 - lines.dropped
    assert 10 <= taken <= 30
    sink.open.set()
    lines.close(ENDED_S)
    assert sink.written[-1] == notice(lines.dropped)
    assert sink.written[:10] == numbered(10) and len(sink.written) - 1 == taken


def test_a_file_that_fails_costs_what_it_did_not_take() -> None:
    """A full disk: those lines are counted, the thread lives on, and what comes later is written."""
    sink = Gated(failing=True)
    sink.open.set()
    lines = Lines(sink, notice)
    lines.start()
    lines.put(b"lost\n")
    while not lines.dropped:
        threading.Event().wait(0.01)
    sink.failing = False
    lines.put(b"found\n")
    lines.close(ENDED_S)
    assert sink.written == [b"found\n", notice(1)] and lines.dropped == 1


def test_nothing_is_taken_after_the_end() -> None:
    """A line that comes after closing is counted as dropped: it must not wait for ever."""
    sink = Gated()
    sink.open.set()
    lines = Lines(sink, notice)
    lines.start()
    lines.close(ENDED_S)
    lines.put(b"late\n")
    assert lines.dropped == 1 and sink.written == []


def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    """As logrotate does it, without a signal: what was written stays in the old file, the next begins a new one."""
    path = tmp_path / "access.log"
    file = WatchedFile(str(path))
    file.write([b"one\n", b"two\n"])
    path.rename(tmp_path / "access.log.1")
    file.write([b"three\n"])
    path.unlink()
    file.write([b"four\n"])
    file.close()
    assert (tmp_path / "access.log.1").read_bytes() == b"one\ntwo\n" and path.read_bytes() == b"four\n"


def test_a_file_is_added_to(tmp_path: Path) -> None:
    """What stood there stays, and only its owner and group may read it."""
    path = tmp_path / "access.log"
    for line in (b"one\n", b"two\n"):
        file = WatchedFile(str(path))
        file.write([line])
        file.close()
    assert path.read_bytes() == b"one\ntwo\n" and path.stat().st_mode & 0o007 == 0


def test_lines_of_several_processes_do_not_mix_in_a_pipe(tmp_path: Path) -> None:
    """A pipe that fills takes part of a long write and then somebody else's: what it takes whole it never cuts."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    held_open = os.open(path, os.O_WRONLY)

    def write(letter: bytes) -> None:
        file = WatchedFile(str(path))
        file.write([letter * 1499 + b"\n"] * 200)
        file.close()

    writers = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for writer in writers:
        writer.start()
    read = b""
    while read.count(b"\n") < 600:
        read += os.read(reader, 4096)
    for writer in writers:
        writer.join(ENDED_S)
    os.close(held_open)
    os.close(reader)
    assert sorted(read.splitlines()) == [letter * 1499 for letter in (b"a", b"b", b"c") for _ in range(200)]


def test_a_pipe_that_nobody_reads_is_an_error_at_once(tmp_path: Path) -> None:
    """It must not hold up the thread, nor the closing."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="No such device"):
        WatchedFile(str(path)).write([b"one\n"])
