"""Who watches the requests of an ingress beside its metrics, as its environment says: the access log and the traces.

`punctual serve` sets these variables from its options, a chart writes them into its pods: an ingress inherits them
either way.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.relay import relayed
from deployments.tracing import spans_of
from gateway.lines import Lines, WatchedFile
from gateway.logs import AccessLog, EventLog, LogFormat, dropped_notice
from gateway.metrics.series import Family
from gateway.model.request import Terms
from gateway.records import Observer

if TYPE_CHECKING:
    from gateway.tracing import Spans

ACCESS_LOG = "PUNCTUAL_ACCESS_LOG"
"""A file, a pipe or a terminal by its path; `-` for this process's own output, `off` or nothing for no log."""

LOG_FORMAT = "PUNCTUAL_LOG_FORMAT"
"""`json`, which is the default, or `text`."""

OFF = "off"
LOGGERS = ("punctual", "deployments", "opentelemetry")
"""Whose warnings and errors the log has beside the requests; Ray's own log has them too."""

CLOSED_WITHIN_S = 1.0

messages = logging.getLogger("punctual.observing")


class LogUnwritable(Exception):
    """The access log is to go where nothing can be written."""


@dataclass(frozen=True, slots=True)
class Observing:
    """The observers that were asked for; `trace` gives a request its place in a trace, where traces were."""

    observers: tuple[Observer, ...] = ()
    trace: Callable[[Terms], Terms] | None = None
    lines: Lines | None = None
    spans: Spans | None = None
    log: EventLog | None = None

    def metrics(self) -> str:
        """How many lines could not be written, in the text format."""
        if self.lines is None:
            return ""
        family = Family("punctual_access_log_dropped", "Lines of the access log that could not be written.", ())
        family.count().value = self.lines.dropped
        return family.text()

    def close(self) -> None:
        """Sends and writes what waits, for some seconds at most. Blocking."""
        if self.spans is not None:
            self.spans.close(CLOSED_WITHIN_S)
        if self.log is not None:
            for name in LOGGERS:
                logging.getLogger(name).removeHandler(self.log)
        if self.lines is not None:
            self.lines.close(CLOSED_WITHIN_S)


def observing(instance: str, environ: Mapping[str, str]) -> Observing:
    """Begins to observe, in the process that goes by that name. Raises ValueError for a format that there is not."""
    observers: list[Observer] = []
    lines = log = trace = None
    path = environ.get(ACCESS_LOG) or OFF
    if path != OFF:
        form = LogFormat(environ.get(LOG_FORMAT) or LogFormat.JSON)
        file = WatchedFile("/dev/stdout" if path == "-" else path)
        _try(file, path)
        lines = Lines(file, dropped_notice(form, utc_now))
        lines.start()
        observers.append(AccessLog(lines, form, utc_now))
        log = EventLog(lines, form, utc_now)
        for name in LOGGERS:
            logging.getLogger(name).addHandler(log)
    spans = spans_of("gateway", instance, environ)
    if spans is not None:
        from gateway.tracing import Tracing

        tracing = Tracing(spans, utc_now)
        trace = tracing.begin
        observers.append(tracing)
    return Observing(tuple(observers), trace, lines, spans, log)


@contextmanager
def access_log_to(path: str, folder: Path) -> Iterator[None]:
    """Tells the ingresses that this process starts where their log goes: to `-`, its own output, by way of a pipe.

    Raises LogUnwritable, before anything is started.
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
            file = WatchedFile(path)
            file.write(())
            file.close()
        except OSError as error:
            raise LogUnwritable(f"the access log {path}: {error.strerror}") from None
    os.environ[ACCESS_LOG] = path
    yield


def _try(file: WatchedFile, path: str) -> None:
    """A log that cannot be written harms no request, so it is told here: lines are dropped, and written once it can."""
    try:
        file.write(())
    except OSError as error:
        messages.error("the access log %s cannot be written: %s", path, error.strerror)


def utc_now() -> datetime:
    """The date and time."""
    return datetime.now(UTC)
