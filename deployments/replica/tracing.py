"""The replica's part of a trace: its spans, as children of the gateway's span that sent the work.

Knows what a span says about a piece of work. `gateway.observability.tracing` sends spans; it is imported only if
traces are asked for, since it loads OpenTelemetry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING

from deployments.transport import Handler
from gateway.model.deadline import Clock
from gateway.model.messages import Answer, Emit, Failure, FailureKind, ReplicaTimings, Work, to_nobody

if TYPE_CHECKING:
    from gateway.observability.tracing import Span, Spans

CLOSED_WITHIN_S = 1.0
"""Seconds that a process that ends has for what it observed last."""

TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_ENDPOINTS = (TRACES_ENDPOINT, "OTEL_EXPORTER_OTLP_ENDPOINT")


class TracingMissing(Exception):
    """Traces are asked for, but the library that sends them is not installed."""


def traces_asked_for(environ: Mapping[str, str]) -> bool:
    """True if OpenTelemetry's variables name a collector and do not turn it off."""
    off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporter = environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    return not off and exporter == "otlp" and any(environ.get(name) for name in _ENDPOINTS)


def require_tracing(environ: Mapping[str, str]) -> None:
    """Raises TracingMissing if traces are asked for but could not be sent."""
    if traces_asked_for(environ):
        try:
            import_module("gateway.observability.tracing")
        except ImportError:
            raise TracingMissing("traces need the extra: pip install 'punctual[tracing]'") from None


def utc_now() -> datetime:
    """The date and time now, in UTC."""
    return datetime.now(UTC)


def spans_of(process: str, instance: str, environ: Mapping[str, str]) -> Spans | None:
    """Opens the spans of this process; None if traces are not asked for. Raises ImportError without the extra."""
    if not traces_asked_for(environ):
        return None
    from gateway.observability.tracing import open_spans

    return open_spans(process, instance)


@dataclass(frozen=True, slots=True)
class TracedHandler:
    """Wraps a replica's handler: records a span for each request, with a part for queueing and one for the engine."""

    handle: Handler
    checkpoint: str
    spans: Spans
    clock: Clock
    now: Callable[[], datetime]

    async def __call__(self, batch: Sequence[Work], emit: Emit = to_nobody) -> Sequence[Answer | Failure]:
        """Answers a batch, with a span for each request that is traced."""
        start, began_s = self.now(), self.clock()
        opened = [self._open(work, start) for work in batch]
        results: Sequence[Answer | Failure] = [Failure(FailureKind.ENGINE)] * len(batch)  # if the handler raises
        try:
            results = await self.handle(batch, emit)
        except asyncio.CancelledError:
            results = [Failure(FailureKind.CANCELLED)] * len(batch)
            raise
        finally:
            for work, span, result in zip(batch, opened, results, strict=True):
                if span is not None:
                    self._end(span, work, result, start, self.clock() - began_s)
        return results

    def _open(self, work: Work, start: datetime) -> Span | None:
        """Opens the request's span; None if it is not traced."""
        if work.traceparent is None:
            return None
        span = self.spans.open(f"replica {self.checkpoint}", work.traceparent, start)
        return span if span.is_recording() else None

    def _end(self, span: Span, work: Work, result: Answer | Failure, start: datetime, total_s: float) -> None:
        """Ends the span. Its parts are counted back from now, when the engine has just ended."""
        from gateway.observability.tracing import end_span

        end = start + timedelta(seconds=total_s)
        if isinstance(result, Answer):
            began = end - timedelta(seconds=min(result.timings.service_time_s, total_s))
            queued = end - timedelta(seconds=min(_until_end_s(result.timings), total_s))
            run = {
                "punctual.batch_size": result.timings.batch_size,
                "punctual.input_tokens": result.input.kept,
                "punctual.steps": sum(one.steps for one in result.generation) if result.generation else None,
            }
            self.spans.part(span, "replica queue", queued, began, {})
            self.spans.part(span, "engine run", began, end, run)
        about = {"punctual.request_id": work.request_id, "punctual.checkpoint": self.checkpoint}
        end_span(span, end, about, result.kind.value if isinstance(result, Failure) else None)


def _until_end_s(timings: ReplicaTimings) -> float:
    return timings.queueing_delay_s + timings.service_time_s
