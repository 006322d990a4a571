"""Spans as tests look at them: collected in place of being sent, found by name, compared by where they stand."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler

from gateway.trace_context import TraceContext
from gateway.tracing import Spans, Tracing

NOON = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
CLIENTS = f"00-{'a' * 32}-{'b' * 16}-01"
UNKEPT = f"00-{'a' * 32}-{'b' * 16}-00"
RESOURCE = Resource({})


class Collected:
    """Spans that go nowhere but here."""

    def __init__(self, sampler: Sampler = ParentBased(ALWAYS_ON)) -> None:  # noqa: B008  it holds no state
        self._exporter = InMemorySpanExporter()
        self.spans = Spans(self._exporter, sampler, RESOURCE, random.Random(7))
        self.now = NOON
        self.tracing = Tracing(self.spans, lambda: self.now)

    def ended(self) -> Sequence[ReadableSpan]:
        """What was sent, once all was."""
        self.spans.close(5.0)
        return self._exporter.get_finished_spans()


def named(spans: Sequence[ReadableSpan]) -> dict[str, ReadableSpan]:
    """Spans by name, each name once."""
    assert len({span.name for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def times(span: ReadableSpan) -> tuple[int, int]:
    """Its beginning and end, in nanoseconds."""
    assert span.start_time is not None and span.end_time is not None
    return span.start_time, span.end_time


def place(span: ReadableSpan) -> TraceContext:
    """Where it stands."""
    assert span.context is not None
    return TraceContext(span.context.trace_id, span.context.span_id, bool(span.context.trace_flags.sampled))


def parent(span: ReadableSpan) -> int | None:
    """The span it hangs on."""
    return span.parent.span_id if span.parent else None
