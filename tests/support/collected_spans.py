"""Spans as tests look at them: collected in place of being sent, found by name, compared by where they stand."""

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
    """Spans that go nowhere but here."""

    def __init__(self, sampler: Sampler = ParentBased(ALWAYS_ON)) -> None:  # noqa: B008  it holds no state
        self._exporter = InMemorySpanExporter()
        self.spans = Spans(self._exporter, sampler=sampler)
        self.now = NOON
        self.tracing = Tracing(self.spans, lambda: self.now)

    def ended(self) -> Sequence[ReadableSpan]:
        """What was sent, once all was."""
        self.spans.close(60.0)
        return self._exporter.get_finished_spans()


def named(spans: Sequence[ReadableSpan]) -> dict[str, ReadableSpan]:
    """Spans by name, each name once."""
    assert len({span.name for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def times(span: ReadableSpan) -> tuple[int, int]:
    """Its beginning and end, in nanoseconds."""
    assert span.start_time is not None and span.end_time is not None
    return span.start_time, span.end_time


def read(traceparent: str | None) -> SpanContext:
    """Where a header stands."""
    there = PROPAGATOR.extract({"traceparent": traceparent or ""})
    return get_current_span(there).get_span_context()


def place(span: ReadableSpan) -> SpanContext:
    """Where a span stands."""
    there: SpanContext | None = span.context
    assert there is not None
    return there


def parent(span: ReadableSpan) -> int | None:
    """The span it hangs on."""
    return span.parent.span_id if span.parent else None
