"""Who watches the requests of an ingress beside its metrics, as its environment says: the access log and the traces.

`punctual serve` sets these variables from its options, a chart writes them into its pods: an ingress inherits them
either way. The ingress is a process of Ray's, whose output goes to a file of Ray's; a log to `-` therefore goes through
a pipe, and comes out where `punctual serve` was started.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.replica.tracing import spans_of
from gateway.model.request import Terms
from gateway.observability.access_log import AccessLog, LogFile, LogFormat
from gateway.observability.faults import Faults
from gateway.observability.metrics import Collector, Metric
from gateway.observability.record import Observer

if TYPE_CHECKING:
    from gateway.observability.tracing import Spans

ACCESS_LOG = "PUNCTUAL_ACCESS_LOG"
"""A file, a pipe or a terminal by its path; `-` for this process's own output, `off` or nothing for no log."""

LOG_FORMAT = "PUNCTUAL_LOG_FORMAT"
"""`json`, which is the default, or `text`."""

OFF = "off"
LOGGERS = ("punctual", "deployments", "opentelemetry")
"""Loggers whose warnings and errors the log has beside the requests; Ray's own log has them too."""

CLOSED_WITHIN_S = 1.0
_RELAY_ENDED_WITHIN_S = 2.0
_MOST_AT_ONCE = 1 << 16

messages = logging.getLogger("punctual.observing")


class LogUnwritable(Exception):
    """The access log is to go where nothing can be written."""


@dataclass(frozen=True, slots=True)
class Observing(Collector):
    """The observers that were asked for. `trace` gives a request its place in a trace; it is None without traces."""

    observers: tuple[Observer, ...] = ()
    trace: Callable[[Terms], Terms] | None = None
    log: AccessLog | None = None
    spans: Spans | None = None
    faults: Faults = field(default_factory=Faults)

    def collect(self) -> Iterable[Metric]:
        """The faults of this process, and the lines of its log that were dropped."""
        yield from self.faults.collect()
        if self.log is not None:
            yield from self.log.collect()

    def close(self) -> None:
        """Sends and writes what waits, for some seconds at most. Blocking."""
        if self.spans is not None:
            self.spans.close(CLOSED_WITHIN_S)
        if self.log is not None:
            for name in LOGGERS:
                logging.getLogger(name).removeHandler(self.log.handler)
            self.log.close(CLOSED_WITHIN_S)


def observing(instance: str, environ: Mapping[str, str]) -> Observing:
    """Begins to observe, in the process of that name. Raises ValueError for an unknown format."""
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
    """Starts a log. If its file cannot be written, that is reported here, and lines are dropped until it can."""
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
    """Sets where the ingresses that this process starts write their log; `-` is this process's own output.

    Raises LogUnwritable before anything is started.
    """
    if path == "-":
        pipe = folder / "access.log"
        os.environ[ACCESS_LOG] = str(pipe)
        with relayed(pipe, sys.stdout.fileno()):
            yield
        return
    if path != OFF:
        path = str(Path(path).absolute())  # an ingress works in a folder of Ray's
        try:
            file = LogFile(path)
            file.write("")
            file.close()
        except OSError as error:
            raise LogUnwritable(f"the access log {path}: {error.strerror}") from None
    os.environ[ACCESS_LOG] = path
    yield


@contextmanager
def relayed(path: Path, output: int) -> Iterator[None]:
    """Copies what is written into a new pipe at `path` to the file descriptor `output`, while the context lasts.

    What was written before it ends still comes out, unless a writer holds on to the pipe for seconds more. Writers see
    a full pipe while the output takes nothing, and a broken one once it is gone.
    """
    os.mkfifo(path, 0o600)
    source = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a blocking open would wait for a writer
    held_open = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # so that writers may come and go
    os.set_blocking(source, True)
    copying = threading.Thread(target=_copy, args=(source, output), name="relay", daemon=True)
    copying.start()
    try:
        yield
    finally:
        os.close(held_open)
        copying.join(_RELAY_ENDED_WITHIN_S)


def _copy(source: int, output: int) -> None:
    """Copies until the last writer has gone, or the output has."""
    try:
        while some := os.read(source, _MOST_AT_ONCE):
            left = memoryview(some)
            while left:
                left = left[os.write(output, left) :]
    except OSError:  # a closed terminal: writers then find the pipe broken, and count what is lost
        return
    finally:
        os.close(source)


def utc_now() -> datetime:
    """The date and time."""
    return datetime.now(UTC)
