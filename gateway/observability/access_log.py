"""The access log: one line for each finished request, and the gateway's own errors in the same format.

A line is JSON, or plain text for people. It has the fields of a `RequestRecord` that are listed here, and no record
holds text of a request. The standard library's queue handler takes lines without waiting, and its listener's thread
writes them. A file that was moved away is opened again.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from logging import LogRecord
from logging.handlers import QueueHandler, QueueListener, WatchedFileHandler
from queue import SimpleQueue
from typing import Any

import msgspec
from msgspec import Struct

from gateway.model.deadline import budget_ms, ms
from gateway.model.outcome import Outcome
from gateway.observability.faults import raised_at
from gateway.observability.metrics import Collector, Metric, total
from gateway.observability.record import RequestRecord

MOST_WAITING = 10_000
"""Most lines that may wait for the file: at some 700 bytes each, 7 MB."""

GATHERED_S = 0.1
"""Time that lines are gathered before they are written, in seconds.

The thread then wakes ten times a second, not once per line.
"""

messages = logging.getLogger(__name__)
"""Says that lines are lost; it must not be one whose messages the log itself takes."""

_WARNINGS = frozenset((Outcome.LEAD, Outcome.LATE, Outcome.SHED, Outcome.EXPIRED))
_ERRORS = frozenset((Outcome.FAILED, Outcome.UNAVAILABLE))


class LogFormat(StrEnum):
    """The format of a line."""

    JSON = "json"
    TEXT = "text"


class RequestLine(Struct, kw_only=True, omit_defaults=True):
    """The line of a finished request, which ended at `timestamp`. Fields that it did not reach are left out."""

    timestamp: datetime
    level: str
    event: str
    request_id: str
    trace_id: str | None = None
    task: str
    outcome: Outcome
    checkpoint: str | None = None
    tier: str | None = None
    reason: str | None = None
    strict: bool
    percentile: float | None = None
    budget_ms: float | None = None
    latency_ms: float
    predicted_ms: float | None = None
    quantile_ms: float | None = None
    route_ms: float | None = None
    queue_ms: float | None = None
    infer_ms: float | None = None
    first_delta_ms: float | None = None
    first_token_budget_ms: float | None = None
    first_token_quantile_ms: float | None = None
    first_token_met: bool | None = None
    batch_size: int | None = None
    inputs: int
    tokens: int
    kept: int
    truncated: bool
    degraded: bool
    attempts: int
    output_tokens: int
    finish_reason: str | None = None
    price: float | None = None


class EventLine(Struct, kw_only=True, omit_defaults=True):
    """The line of anything else: a message of the gateway's own, or that lines were dropped.

    An exception appears as its type and where it was raised, never as its message, which may quote a request.
    """

    timestamp: datetime
    level: str
    event: str
    logger: str | None = None
    message: str | None = None
    request_id: str | None = None
    error: str | None = None
    raised_at: list[str] | None = None
    dropped: int | None = None


class LogFile(WatchedFileHandler):
    """A file, a pipe or a terminal by its path, to which several processes may write whole lines.

    It is opened at the first write, and again once it was moved away. Each write goes to a file's end; a pipe does not
    mix lines of up to 4096 bytes.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path, encoding="utf-8", delay=True)

    def write(self, text: str) -> None:
        """Writes whole lines, in as many calls as needed. Raises OSError."""
        self.reopenIfNeeded()
        if self.stream is None:
            self.stream = self._open()
            self._statstream()
        left = memoryview(text.encode("utf-8", "backslashreplace"))
        while left:  # unbuffered: what the file does not take now must not be written later
            left = left[os.write(self.stream.fileno(), left) :]

    def _open(self) -> io.TextIOWrapper:
        unbuffered = io.FileIO(self.baseFilename, self.mode, opener=_opened_at_once)
        return io.TextIOWrapper(unbuffered, encoding=self.encoding)


class AccessLog(Collector):
    """Writes a line for each finished request, and for the gateway's own log messages; an observer of records.

    Taking a line never waits. A line is dropped and counted if too many wait or if the file does not take it; the log
    says how many once lines get through again. `handler` takes warnings and errors of the loggers it is added to.
    """

    def __init__(self, file: LogFile, form: LogFormat, most_waiting: int = MOST_WAITING) -> None:
        self._taken = SimpleQueue[Any]()
        self.handler = _BoundedHandler(self._taken, most_waiting)
        self._writer = _LineWriter(self._taken, self.handler, file, form)
        self._closing: threading.Thread | None = None

    @property
    def dropped(self) -> int:
        """The number of lines that were not written."""
        return self.handler.refused + self._writer.lost

    def collect(self) -> Iterable[Metric]:
        """The number of dropped lines, for `exposition`."""
        yield total("access_log_dropped", "Lines of the access log that could not be written.", self.dropped)

    def start(self) -> None:
        """Starts the thread that writes. Call it once."""
        self._writer.start()

    def observe(self, record: RequestRecord) -> None:
        """Takes the line of one request."""
        self.handler.enqueue(log_record_of(record))

    def close(self, within_s: float) -> None:
        """Writes the waiting lines; returns after `within_s` seconds even if the file takes nothing."""
        self.handler.close()
        if self._closing is None:
            self._closing = threading.Thread(target=self._writer.stop, name="access log closing", daemon=True)
            self._closing.start()
        self._closing.join(within_s)


class _BoundedHandler(QueueHandler):
    """Puts records into a queue of bounded length; takes none after closing."""

    def __init__(self, taken: SimpleQueue[Any], most_waiting: int) -> None:
        super().__init__(taken)
        self.setLevel(logging.WARNING)
        self._taken = taken
        self._most_waiting = most_waiting
        self._closing = False
        self.refused = 0

    def prepare(self, record: LogRecord) -> LogRecord:
        """Formats the message now, since its arguments may change before it is written. The exception stays with it."""
        worded = copy.copy(record)  # other handlers use the record too
        worded.msg, worded.args = record.getMessage(), None
        return worded

    def enqueue(self, record: LogRecord) -> None:
        """Takes one record, or drops and counts it."""
        if self._closing or self._taken.qsize() >= self._most_waiting:
            self.refused += 1
        else:
            self._taken.put_nowait(record)

    def close(self) -> None:
        """Takes no further records."""
        self._closing = True
        super().close()


class _LineWriter(QueueListener):
    """Writes records as lines, and after a line that got through the number of lines dropped before it.

    That lines are lost is said once, elsewhere, until one gets through again.
    """

    def __init__(self, taken: SimpleQueue[Any], handler: _BoundedHandler, file: LogFile, form: LogFormat) -> None:
        super().__init__(taken)
        self._taken = taken
        self._handler = handler
        self._file = file
        self._line = LineFormatter(form)
        self._stopping = threading.Event()
        self._reported = 0
        self._failing = False
        self.lost = 0

    def dequeue(self, block: bool) -> LogRecord:
        """Returns the next record; if none waits, lets some gather first."""
        if self._taken.empty():
            self._stopping.wait(GATHERED_S)
        record: LogRecord = self._taken.get(block)
        return record

    def handle(self, record: LogRecord) -> None:
        """Writes one line."""
        try:
            self._write(self._line.format(record))
        except (OSError, ValueError) as error:  # a full disk, a pipe without a reader, half a character: it is lost
            self.lost += 1
            if not self._failing:
                messages.error("the access log loses lines: %s", getattr(error, "strerror", None) or "not text")
            self._failing = True

    def stop(self) -> None:
        """Writes the waiting lines and closes the file. Blocks while the file takes nothing."""
        self._stopping.set()
        super().stop()
        with contextlib.suppress(OSError):
            self._write()
        self._file.close()

    def _write(self, *lines: str) -> None:
        dropped = self._handler.refused + self.lost
        notice = [self._line.dropped(dropped - self._reported, datetime.now(UTC))] if dropped > self._reported else []
        self._file.write("".join(f"{line}\n" for line in (*lines, *notice)))
        self._reported, self._failing = dropped, False


class LineFormatter(logging.Formatter):
    """Formats a log record as a line: of the request that it carries, or of the message."""

    def __init__(self, form: LogFormat) -> None:
        super().__init__()
        self._form = form

    def format(self, record: LogRecord) -> str:
        """Returns the line without its newline."""
        now = datetime.fromtimestamp(record.created, UTC)
        request: RequestRecord | None = getattr(record, "request", None)
        if request is not None:
            line = line_of(request, now)
            return _json(line) if self._form is LogFormat.JSON else _request_text(line)
        error = record.exc_info[1] if record.exc_info else None
        return self._event(
            EventLine(
                timestamp=now,
                level=record.levelname.lower(),
                event="log",
                logger=record.name,
                message=record.getMessage(),
                request_id=getattr(record, "request_id", None),
                error=type(error).__name__ if error else None,
                raised_at=raised_at(error) if error else None,
            )
        )

    def dropped(self, count: int, now: datetime) -> str:
        """The line that says how many lines were dropped."""
        return self._event(EventLine(timestamp=now, level="warning", event="lines_dropped", dropped=count))

    def _event(self, line: EventLine) -> str:
        return _json(line) if self._form is LogFormat.JSON else _event_text(line)


def log_record_of(request: RequestRecord) -> LogRecord:
    """Makes the log record that carries a request's record; it is formatted when it is written."""
    record = LogRecord("punctual.requests", logging.INFO, "", 0, "request", None, None)
    record.request = request
    return record


def line_of(record: RequestRecord, now: datetime) -> RequestLine:
    """The line of a request that ended now."""
    return RequestLine(
        timestamp=now,
        level=_level(record.outcome),
        event="request",
        request_id=record.request_id,
        trace_id=record.traceparent.split("-", 2)[1] if record.traceparent else None,
        task=record.task,
        outcome=record.outcome,
        checkpoint=record.checkpoint,
        tier=record.tier,
        reason=record.reason,
        strict=record.strict,
        percentile=record.percentile,
        budget_ms=None if record.budget_s is None else budget_ms(record.budget_s),
        latency_ms=ms(record.latency_s),
        predicted_ms=_ms(record.predicted_s),
        quantile_ms=_ms(record.quantile_s),
        route_ms=_ms(record.route_s),
        queue_ms=_ms(record.queueing_delay_s),
        infer_ms=_ms(record.service_time_s),
        first_delta_ms=_ms(record.first_delta_s),
        first_token_budget_ms=None if record.first_budget_s is None else budget_ms(record.first_budget_s),
        first_token_quantile_ms=_ms(record.first_quantile_s),
        first_token_met=record.first_met,
        batch_size=record.batch_size,
        inputs=record.inputs,
        tokens=record.tokens,
        kept=record.kept,
        truncated=record.truncated,
        degraded=record.degraded,
        attempts=record.attempts,
        output_tokens=record.output_tokens,
        finish_reason=record.finish_reason,
        price=None if record.price is None else round(record.price, 3),
    )


def _event_text(line: EventLine) -> str:
    parts = [line.message, line.error, *(line.raised_at or ()), line.request_id and f"id {line.request_id}"]
    if line.dropped is not None:
        parts.append(f"{line.dropped} lines of this log were dropped")
    words = [f"{line.timestamp:%H:%M:%S.%f}"[:-3], line.level.upper(), ", ".join(filter(None, parts))]
    return _plain(" ".join(words))


def _json(line: RequestLine | EventLine) -> str:
    return _encode(line).decode()


def _request_text(line: RequestLine) -> str:
    """A line for a terminal: how the request ended, then which checkpoint answered and where the time went."""
    parts = [f"{line.outcome:<8} {line.task:<9} {line.latency_ms:g}"]
    if line.budget_ms is not None:
        parts[0] += f" of {line.budget_ms:g}"
    parts[0] += " ms"
    if line.checkpoint is not None:
        parts.append(f"{line.checkpoint} ({line.tier}, {line.reason})")
    spans = (("route", line.route_ms), ("queue", line.queue_ms), ("infer", line.infer_ms))
    if times := " ".join(f"{name} {spent:g}" for name, spent in spans if spent is not None):
        parts.append(times)
    if line.batch_size is not None:
        parts.append(f"batch {line.batch_size}, {line.tokens} tokens")
    parts.append(f"id {line.request_id}")
    return _plain(f"{line.timestamp:%H:%M:%S.%f}"[:-3] + " " + ", ".join(parts))


def _plain(line: str) -> str:
    """One line, whatever id a client gave its request: unprintable characters are escaped."""
    return line if line.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def _level(outcome: Outcome) -> str:
    """The level of an outcome: an error is the gateway's fault, a warning a broken promise."""
    if outcome in _ERRORS:
        return "error"
    return "warning" if outcome in _WARNINGS else "info"


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else ms(seconds)


def _opened_at_once(path: str, flags: int) -> int:
    """Opens without waiting: a pipe without a reader is an error (ENXIO). Later writes block as usual."""
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK, 0o640)
    os.set_blocking(descriptor, True)
    return descriptor


_encode = msgspec.json.Encoder().encode
