"""Traces: the spans of each finished request, sent to an OpenTelemetry collector by a thread of their own.

The one file that knows OpenTelemetry, and imported only where traces are asked for. What is sent, where and how often
is configured by OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_*`, `OTEL_TRACES_SAMPLER*`, `OTEL_BSP_*`). Spans are
written once a request has ended, of its record; only the number of the request's own span is drawn before, since
replicas hang theirs on it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from gateway.model.outcome import Outcome
from gateway.model.request import Terms
from gateway.records import RequestRecord
from gateway.trace_context import TraceContext, TraceEntry

Value: TypeAlias = str | bool | int | float
Now: TypeAlias = Callable[[], datetime]
"""The date and time, in UTC."""

_FAILED = frozenset((Outcome.FAILED, Outcome.UNAVAILABLE, Outcome.EXPIRED))
_SCOPE = InstrumentationScope("punctual")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEPT, _NOT_KEPT = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One span that has ended: from `start` to `end`, under `parent`, which may be another process's (`remote`).

    `error` is what went wrong, of a closed list, where something did. `attributes` of None are left out.
    """

    name: str
    place: TraceContext
    parent: int | None
    remote: bool = False
    serves: bool = False
    start: datetime
    end: datetime
    error: str | None = None
    attributes: Mapping[str, Value | None]


class Spans:
    """Takes spans and never keeps anyone waiting: where too many wait for the collector, the oldest are dropped."""

    def __init__(self, exporter: SpanExporter, sampler: Sampler, resource: Resource, chance: random.Random) -> None:
        """Starts the thread that sends."""
        self._exporter = exporter
        self._processor: SpanProcessor = BatchSpanProcessor(exporter)
        self._sampler = sampler
        self.resource = resource
        self._chance = chance

    def enter(self, parent: TraceContext | None) -> TraceContext:
        """A new span's place under its parent, or as the root of a new trace. Whether that is kept is the sampler's."""
        trace_id = parent.trace_id if parent else self._id(128)
        above = set_span_in_context(NonRecordingSpan(_context(parent, remote=True))) if parent else None
        decision = self._sampler.should_sample(above, trace_id, "request").decision
        return TraceContext(trace_id, self._id(64), decision is Decision.RECORD_AND_SAMPLE)

    def below(self, place: TraceContext) -> TraceContext:
        """The place of a new span under one of the same trace, kept as that is."""
        return TraceContext(place.trace_id, self._id(64), place.sampled)

    def write(self, span: Span) -> None:
        """Hands over one span, unless its trace is not kept."""
        if not span.place.sampled:
            return
        parent = None if span.parent is None else TraceContext(span.place.trace_id, span.parent, span.place.sampled)
        told = {name: value for name, value in span.attributes.items() if value is not None}
        if span.error is not None:
            told["error.type"] = span.error
        # Made here rather than by a tracer: that would draw the span's number itself, and start it before it has ended.
        self._processor.on_end(
            ReadableSpan(
                name=span.name,
                context=_context(span.place),
                parent=None if parent is None else _context(parent, remote=span.remote),
                resource=self.resource,
                attributes=told,
                kind=SpanKind.SERVER if span.serves else SpanKind.INTERNAL,
                status=Status(StatusCode.UNSET if span.error is None else StatusCode.ERROR, span.error),
                start_time=_ns(span.start),
                end_time=_ns(span.end),
                instrumentation_scope=_SCOPE,
            )
        )

    def close(self, within_s: float) -> None:
        """Sends what waits. After so many seconds what the collector has not taken is given up."""
        giving_up = threading.Timer(within_s, self._exporter.shutdown)
        giving_up.start()
        self._processor.shutdown()
        giving_up.cancel()

    def _id(self, bits: int) -> int:
        """A number for a trace or a span: any but zero."""
        while not (drawn := self._chance.getrandbits(bits)):
            continue
        return drawn


class Tracing:
    """Gives each request its place in a trace, and writes its spans once it has ended; an observer of records."""

    def __init__(self, spans: Spans, now: Now) -> None:
        self._spans = spans
        self._now = now

    def begin(self, terms: Terms) -> Terms:
        """The terms with the request's own span in place of its client's, which becomes the parent."""
        parent = TraceContext.read(terms.traceparent) if terms.traceparent else None
        own = self._spans.enter(parent)
        entry = TraceEntry(parent.span_id if parent else None, self._now())
        return replace(terms, traceparent=own.traceparent, entry=entry)

    def observe(self, record: RequestRecord) -> None:
        """Hands over the request's span and those of its parts, which are laid end to end from its arrival.

        It begins when it entered its trace rather than its latency ago: by now other processes' spans may lie further
        back than that.
        """
        place = TraceContext.read(record.traceparent) if record.traceparent else self._spans.enter(None)
        if not place.sampled:
            return
        latency = timedelta(seconds=record.latency_s)
        start = record.trace_entry.at if record.trace_entry else self._now() - latency
        end = start + latency
        self._spans.write(
            Span(
                name=f"POST /{record.task}",
                place=place,
                parent=record.trace_entry.parent if record.trace_entry else None,
                remote=True,
                serves=True,
                start=start,
                end=end,
                error=record.outcome.value if record.outcome in _FAILED else None,
                attributes=_attributes(record),
            )
        )
        parts: Sequence[tuple[str, float | None, dict[str, Value | None]]] = (
            ("route", record.route_s, {"punctual.price": record.price}),
            ("queue", record.queueing_delay_s, {}),
            ("infer", record.service_time_s, {"punctual.batch_size": record.batch_size}),
        )
        for name, seconds, attributes in parts:
            if seconds is not None:
                until = min(start + timedelta(seconds=seconds), end)
                below = self._spans.below(place)
                part = Span(name=name, place=below, parent=place.span_id, start=start, end=until, attributes=attributes)
                self._spans.write(part)
                start = until


def open_spans(process: str, instance: str, chance: random.Random) -> Spans:
    """Spans as OpenTelemetry's variables say, of one process: what it does and the name it goes by.

    The service is called `punctual` unless those say otherwise.
    """
    resource = Resource.create({"service.instance.id": instance, "punctual.process": process})
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "punctual"}))
    sampler = TracerProvider(resource=resource, shutdown_on_exit=False).sampler  # which alone reads those variables
    return Spans(OTLPSpanExporter(), sampler, resource, chance)


def _attributes(record: RequestRecord) -> dict[str, Value | None]:
    """HTTP's names where there are some, else the record's own."""
    return {
        "http.request.method": "POST",
        "http.route": f"/{record.task}",
        "http.response.status_code": 200 if record.answered else None,
        "punctual.request_id": record.request_id,
        "punctual.task": record.task,
        "punctual.outcome": record.outcome.value,
        "punctual.checkpoint": record.checkpoint,
        "punctual.tier": record.tier,
        "punctual.reason": record.reason,
        "punctual.strict": record.strict,
        "punctual.percentile": record.percentile,
        "punctual.budget_s": record.budget_s,
        "punctual.predicted_s": record.predicted_s,
        "punctual.quantile_s": record.quantile_s,
        "punctual.price": record.price,
        "punctual.degraded": record.degraded,
        "punctual.attempts": record.attempts,
        "punctual.inputs": record.inputs,
        "punctual.input_tokens": record.tokens,
        "punctual.output_tokens": record.output_tokens,
        "punctual.truncated": record.truncated,
        "punctual.finish_reason": record.finish_reason,
    }


def _context(place: TraceContext, *, remote: bool = False) -> SpanContext:
    return SpanContext(place.trace_id, place.span_id, remote, _KEPT if place.sampled else _NOT_KEPT)


def _ns(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1) * 1000
