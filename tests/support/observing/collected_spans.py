"""Spans for tests: collected instead of sent, found by name, compared by their contexts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import SpanContext, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.observability.tracing import Spans, Tracing

NOON = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
CLIENTS = f"00-{'a' * 32}-{'b' * 16}-01"
PROPAGATOR = TraceContextTextMapPropagator()
UNKEPT = f"00-{'a' * 32}-{'b' * 16}-00"


class Collected:
    """Collects spans instead of sending them."""

    def __init__(self, sampler: Sampler = ParentBased(ALWAYS_ON)) -> None:  # noqa: B008  it holds no state
        self._exporter = InMemorySpanExporter()
        self.spans = Spans(self._exporter, sampler=sampler)
        self.now = NOON
        self.tracing = Tracing(self.spans, lambda: self.now)

    def ended(self) -> Sequence[ReadableSpan]:
        """Return the finished spans, after all have been exported."""
        self.spans.close(60.0)
        return self._exporter.get_finished_spans()


def named(spans: Sequence[ReadableSpan]) -> dict[str, ReadableSpan]:
    """Return spans by name, after checking that each name is there once."""
    assert len({span.name for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def times(span: ReadableSpan) -> tuple[int, int]:
    """Return the beginning and the end of a span, in nanoseconds."""
    assert span.start_time is not None and span.end_time is not None
    return span.start_time, span.end_time


def read(traceparent: str | None) -> SpanContext:
    """Return the span context of a traceparent header."""
    there = PROPAGATOR.extract({"traceparent": traceparent or ""})
    return get_current_span(there).get_span_context()


def place(span: ReadableSpan) -> SpanContext:
    """Return the context of a span."""
    there: SpanContext | None = span.context
    assert there is not None
    return there


def parent(span: ReadableSpan) -> int | None:
    """Return the id of a span's parent."""
    return span.parent.span_id if span.parent else None
