"""The access log: one line for each finished request, and the gateway's own errors in the same form.

A line is JSON, or for people plain text. It tells what a `RequestRecord` knows, under names of its own: what is not
listed here is not written, and no record holds text of a request. Where lines go is `lines`' business.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeAlias

import msgspec
from msgspec import Struct

from gateway.api.responses import budget_ms, ms
from gateway.model.outcome import Outcome
from gateway.records import RequestRecord
from gateway.trace_context import trace_id_of

Now: TypeAlias = Callable[[], datetime]
"""The date and time, in UTC."""

_WARNINGS = frozenset((Outcome.LATE, Outcome.SHED, Outcome.EXPIRED))
_ERRORS = frozenset((Outcome.FAILED, Outcome.UNAVAILABLE))


class LogFormat(StrEnum):
    """How a line is written."""

    JSON = "json"
    TEXT = "text"


class Taker(Protocol):
    """Takes lines and keeps nobody waiting: `Lines`."""

    def put(self, line: bytes) -> None:
        """Takes one line, its end included."""


class RequestLine(Struct, kw_only=True, omit_defaults=True):
    """What is told of a finished request; what it did not reach is left out. It ended at `timestamp`."""

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
    """What is told of anything else: a message of the gateway's own, or that lines were dropped.

    Of an exception it tells the kind and where it was raised, never its message, which may quote a request.
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


class AccessLog:
    """Writes a line for each finished request; an observer of their records."""

    def __init__(self, lines: Taker, form: LogFormat, now: Now) -> None:
        self._lines = lines
        self._write = _as_json if form is LogFormat.JSON else _as_text
        self._now = now

    def observe(self, record: RequestRecord) -> None:
        """Hands over one line."""
        self._lines.put(self._write(line_of(record, self._now())))


class EventLog(logging.Handler):
    """Writes what the gateway logs of itself, beside the requests. `extra={"request_id": ...}` says of which."""

    def __init__(self, lines: Taker, form: LogFormat, now: Now) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines
        self._form = form
        self._now = now

    def emit(self, record: logging.LogRecord) -> None:
        """Hands over one line."""
        error = record.exc_info[1] if record.exc_info else None
        line = EventLine(
            timestamp=self._now(),
            level=record.levelname.lower(),
            event="log",
            logger=record.name,
            message=record.getMessage(),
            request_id=getattr(record, "request_id", None),
            error=type(error).__name__ if error else None,
            raised_at=_raised_at(error) if error else None,
        )
        self._lines.put(event_bytes(line, self._form))


def dropped_notice(form: LogFormat, now: Now) -> Callable[[int], bytes]:
    """The line that says how many were dropped, for `Lines`."""
    return lambda dropped: event_bytes(
        EventLine(timestamp=now(), level="warning", event="lines_dropped", dropped=dropped), form
    )


def line_of(record: RequestRecord, now: datetime) -> RequestLine:
    """What is told of a request that has just ended."""
    return RequestLine(
        timestamp=now,
        level=_level(record.outcome),
        event="request",
        request_id=record.request_id,
        trace_id=trace_id_of(record.traceparent) if record.traceparent else None,
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


def event_bytes(line: EventLine, form: LogFormat) -> bytes:
    """The line as it is written, its end included."""
    if form is LogFormat.JSON:
        return _as_json(line)
    told = [line.message, line.error, *(line.raised_at or ()), line.request_id and f"id {line.request_id}"]
    if line.dropped is not None:
        told.append(f"{line.dropped} lines of this log were dropped")
    words = [f"{line.timestamp:%H:%M:%S.%f}"[:-3], line.level.upper(), ", ".join(filter(None, told))]
    return _plain(" ".join(words))


def _as_json(line: RequestLine | EventLine) -> bytes:
    return _encode(line) + b"\n"


def _as_text(line: RequestLine) -> bytes:
    """As a terminal shows it: how it ended first, then who answered and where the time went."""
    told = [f"{line.outcome:<8} {line.task:<9} {line.latency_ms:g}"]
    if line.budget_ms is not None:
        told[0] += f" of {line.budget_ms:g}"
    told[0] += " ms"
    if line.checkpoint is not None:
        told.append(f"{line.checkpoint} ({line.tier}, {line.reason})")
    spans = (("route", line.route_ms), ("queue", line.queue_ms), ("infer", line.infer_ms))
    if times := " ".join(f"{name} {spent:g}" for name, spent in spans if spent is not None):
        told.append(times)
    if line.batch_size is not None:
        told.append(f"batch {line.batch_size}, {line.tokens} tokens")
    told.append(f"id {line.request_id}")
    return _plain(f"{line.timestamp:%H:%M:%S.%f}"[:-3] + " " + ", ".join(told))


def _plain(line: str) -> bytes:
    """One line, whatever a client called its request: what does not print is escaped."""
    safe = line if line.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    return safe.encode("utf-8", "backslashreplace") + b"\n"


def _level(outcome: Outcome) -> str:
    """An error is the gateway's to answer for; a warning is a promise not kept."""
    if outcome in _ERRORS:
        return "error"
    return "warning" if outcome in _WARNINGS else "info"


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else ms(seconds)


def _raised_at(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]


_encode = msgspec.json.Encoder().encode
