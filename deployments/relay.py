"""A pipe with a name, through which what other processes write comes out at this one's output, wherever that leads.

An ingress is a process of Ray's, whose output goes to a file of Ray's: through this its log is seen where
`punctual serve` was started, be that a terminal, a file or a service's journal.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ENDED_WITHIN_S = 2.0
_MOST_AT_ONCE = 1 << 16


@contextmanager
def relayed(path: Path, output: int) -> Iterator[None]:
    """While the context lasts, what is written into a new pipe at `path` comes out at the file descriptor `output`.

    What was written before it ends still comes out, unless a writer holds on to the pipe for seconds more. Writers see
    a full pipe while the output takes nothing, and a broken one once it is gone.
    """
    os.mkfifo(path, 0o600)
    source = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # which would else wait for a writer
    held_open = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # so that writers may come and go
    os.set_blocking(source, True)
    copying = threading.Thread(target=_copy, args=(source, output), name="relay", daemon=True)
    copying.start()
    try:
        yield
    finally:
        os.close(held_open)
        copying.join(_ENDED_WITHIN_S)


def _copy(source: int, output: int) -> None:
    """Until the last writer has gone, or the output has."""
    try:
        while some := os.read(source, _MOST_AT_ONCE):
            left = memoryview(some)
            while left:
                left = left[os.write(output, left) :]
    except OSError:  # a closed terminal: who wrote it to a pipe that broke counts what is lost
        return
    finally:
        os.close(source)
