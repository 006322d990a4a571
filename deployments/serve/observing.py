"""Opens the observers of an ingress that its environment asks for: the access log and the traces.

`punctual serve` sets the variables from its options, and the chart writes them into its pods; the ingress inherits
them. Ray writes the output of an ingress to a file of its own. A log to `-` therefore goes through a pipe to the
output of `punctual serve`.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.replica.tracing import CLOSED_WITHIN_S, spans_of, utc_now
from gateway.model.request import Terms
from gateway.observability.access_log import AccessLog, LogFile, LogFormat
from gateway.observability.faults import Faults
from gateway.observability.metrics import Collector, Metric
from gateway.observability.record import Observer

if TYPE_CHECKING:
    from gateway.observability.tracing import Spans

ACCESS_LOG = "PUNCTUAL_ACCESS_LOG"
"""Variable for the access log: the path of a file, a pipe or a terminal; `-` for this process's output; `off` or empty
for no log."""

LOG_FORMAT = "PUNCTUAL_LOG_FORMAT"
"""Variable for the log's format: `json`, the default, or `text`."""

OFF = "off"
LOGGERS = ("punctual", "deployments", "opentelemetry")
"""Loggers whose warnings and errors go into the access log beside the requests. Ray's own log has them too."""

_RELAY_ENDED_WITHIN_S = 2.0
_MOST_AT_ONCE = 1 << 16

messages = logging.getLogger("punctual.observing")


class LogUnwritable(Exception):
    """The access log's path cannot be written."""


@dataclass(frozen=True, slots=True)
class Observing(Collector):
    """The observers of an ingress. `trace` gives a request its place in a trace; it is None without traces."""

    observers: tuple[Observer, ...] = ()
    trace: Callable[[Terms], Terms] | None = None
    log: AccessLog | None = None
    spans: Spans | None = None
    faults: Faults = field(default_factory=Faults)

    def collect(self) -> Iterable[Metric]:
        """Counts the faults of this process, and the dropped lines of its log."""
        yield from self.faults.collect()
        if self.log is not None:
            yield from self.log.collect()

    def close(self) -> None:
        """Sends waiting spans and writes waiting lines, for some seconds at most. Blocking."""
        if self.spans is not None:
            self.spans.close(CLOSED_WITHIN_S)
        if self.log is not None:
            for name in LOGGERS:
                logging.getLogger(name).removeHandler(self.log.handler)
            self.log.close(CLOSED_WITHIN_S)


def observing(instance: str, environ: Mapping[str, str]) -> Observing:
    """Opens the observers of the process with this id. Raises ValueError for an unknown format."""
    observers: list[Observer] = []
    log = trace = None
    path = environ.get(ACCESS_LOG) or OFF
    if path != OFF:
        log = _opened_log(path, LogFormat(environ.get(LOG_FORMAT) or LogFormat.JSON))
        observers.append(log)
    spans = spans_of("gateway", instance, environ)
    if spans is not None:
        from gateway.observability.tracing import Tracing

        tracing = Tracing(spans, utc_now)
        trace = tracing.begin
        observers.append(tracing)
    return Observing(tuple(observers), trace, log, spans)


def _opened_log(path: str, form: LogFormat) -> AccessLog:
    """Starts a log. If its file cannot be written, logs an error, and drops lines until it can."""
    file = LogFile("/dev/stdout" if path == "-" else path)
    try:
        file.write("")
    except OSError as error:
        messages.error("the access log %s cannot be written: %s", path, error.strerror)
    log = AccessLog(file, form)
    log.start()
    for name in LOGGERS:
        logging.getLogger(name).addHandler(log.handler)
    return log


@contextmanager
def access_log_to(path: str, folder: Path) -> Iterator[None]:
    """Sets the access log of the ingresses that this process starts; `-` is this process's own output.

    Raises LogUnwritable before it starts anything.
    """
    if path == "-":
        pipe = folder / "access.log"
        os.environ[ACCESS_LOG] = str(pipe)
        with relayed(pipe, to_terminal if sys.stdout.isatty() else partial(write_all, sys.stdout.fileno())):
            yield
        return
    if path != OFF:
        path = str(Path(path).absolute())  # an ingress has a different working folder
        try:
            file = LogFile(path)
            file.write("")
            file.close()
        except OSError as error:
            raise LogUnwritable(f"the access log {path}: {error.strerror}") from None
    os.environ[ACCESS_LOG] = path
    yield


def to_terminal(lines: bytes) -> None:
    """Writes to this process's output through Python, so that a progress bar stays below the lines."""
    sys.stdout.write(lines.decode(errors="replace"))
    sys.stdout.flush()


def write_all(output: int, content: bytes) -> None:
    """Writes to a file descriptor, however often it takes only a part. Raises OSError."""
    left = memoryview(content)
    while left:
        left = left[os.write(output, left) :]


@contextmanager
def relayed(path: Path, write: Callable[[bytes], None]) -> Iterator[None]:
    """Makes a pipe at `path`, and gives what is written into it to `write` during the context.

    Everything written before the end still comes out, unless a writer keeps the pipe open for seconds more. Writers see
    a full pipe while the output blocks, and a broken pipe once it is closed.
    """
    os.mkfifo(path, 0o600)
    source = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a blocking open would wait for a writer
    held_open = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # keeps the pipe open while writers come and go
    os.set_blocking(source, True)
    copying = threading.Thread(target=_copy, args=(source, write), name="relay", daemon=True)
    copying.start()
    try:
        yield
    finally:
        os.close(held_open)
        copying.join(_RELAY_ENDED_WITHIN_S)


def _copy(source: int, write: Callable[[bytes], None]) -> None:
    """Copies until the last writer has closed the pipe, or the output is closed."""
    try:
        while some := os.read(source, _MOST_AT_ONCE):
            write(some)
    except OSError:  # a closed terminal: writers then see a broken pipe, and count lost lines
        return
    finally:
        os.close(source)
