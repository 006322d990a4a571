"""Traces: the spans of each finished request, sent to an OpenTelemetry collector in batches.

The only module that knows OpenTelemetry; imported only if tracing is on. OpenTelemetry's own variables
(`OTEL_EXPORTER_OTLP_*`, `OTEL_TRACES_SAMPLER*`, `OTEL_BSP_*`) say what is sent, where and how often. A request's own
span is opened once its headers are read, since replicas attach theirs to it; the spans of its parts are made from the
finished record.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import Span as RecordedSpan
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import Span as Span  # other modules name the type by way of this one
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.model.outcome import Outcome
from gateway.model.request import TRACEPARENT, TRACESTATE, Terms
from gateway.observability.record import RequestRecord

Value: TypeAlias = str | bool | int | float
Now: TypeAlias = Callable[[], datetime]
"""The date and time, in UTC."""

_FAILED = frozenset((Outcome.FAILED, Outcome.UNAVAILABLE, Outcome.EXPIRED))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PROPAGATOR = TraceContextTextMapPropagator()


class Spans:
    """Opens, ends and sends the spans of one process. If too many wait, the oldest are dropped."""

    def __init__(
        self, exporter: SpanExporter, resource: Resource | None = None, sampler: Sampler | None = None
    ) -> None:
        """Without a sampler OpenTelemetry's variables choose it. The batch processor starts a thread of its own."""
        self._exporter = exporter
        self._provider = TracerProvider(sampler, resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("punctual")

    @property
    def resource(self) -> Resource:
        """The process that these spans belong to."""
        return self._provider.resource

    def open(self, name: str, traceparent: str | None, start: datetime, tracestate: str | None = None) -> Span:
        """Opens a span under that of another process, or as the root of a new trace."""
        sent = {TRACEPARENT: traceparent, TRACESTATE: tracestate} if tracestate else {TRACEPARENT: traceparent}
        above = _PROPAGATOR.extract(sent) if traceparent else Context()
        return self._tracer.start_span(name, above, SpanKind.SERVER, start_time=_ns(start))

    def part(
        self, whole: Span, name: str, start: datetime, end: datetime, attributes: Mapping[str, Value | None]
    ) -> None:
        """Adds a finished span below one of this process."""
        below = self._tracer.start_span(name, set_span_in_context(whole), start_time=_ns(start))
        end_span(below, end, attributes)

    def close(self, within_s: float) -> None:
        """Sends the waiting spans. After `within_s` seconds it gives up what the collector has not taken."""
        giving_up = threading.Timer(within_s, self._exporter.shutdown)
        giving_up.start()
        self._provider.shutdown()
        giving_up.cancel()


class Tracing:
    """Gives each request its place in a trace, and makes its spans once it has ended; an observer of records."""

    def __init__(self, spans: Spans, now: Now) -> None:
        self._spans = spans
        self._now = now

    def begin(self, terms: Terms) -> Terms:
        """Opens the request's span under its client's, and returns the terms with the new span as `traceparent`."""
        span = self._spans.open("request", terms.traceparent, self._now(), terms.tracestate)
        return replace(terms, traceparent=traceparent_of(span), span=span)

    def observe(self, record: RequestRecord) -> None:
        """Ends the request's span, and lays the spans of its parts end to end from its arrival.

        The start is when the headers were read, not now minus the latency: spans of other processes may lie between.
        """
        latency = timedelta(seconds=record.latency_s)
        span = record.span or self._spans.open("request", record.traceparent, self._now() - latency)
        if not isinstance(span, RecordedSpan) or span.start_time is None:
            return  # the sampler does not keep this trace
        start = _EPOCH + timedelta(microseconds=span.start_time // 1000)
        end = start + latency
        parts: tuple[tuple[str, float | None, dict[str, Value | None]], ...] = (
            ("route", record.route_s, {"punctual.price": record.price}),
            ("queue", record.queueing_delay_s, {}),
            ("infer", record.service_time_s, {"punctual.batch_size": record.batch_size}),
        )
        for name, seconds, attributes in parts:
            if seconds is not None:
                until = min(start + timedelta(seconds=seconds), end)
                self._spans.part(span, name, start, until, attributes)
                start = until
        span.update_name(f"POST /{record.task}")
        end_span(span, end, _attributes(record), record.outcome.value if record.outcome in _FAILED else None)


def open_spans(process: str, instance: str) -> Spans:
    """Makes the spans of one process, named by its role and instance, as OpenTelemetry's variables say.

    The service is called `punctual` unless those name it.
    """
    resource = Resource.create({"service.instance.id": instance, "punctual.process": process})
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "punctual"}))
    return Spans(OTLPSpanExporter(), resource)


def end_span(span: Span, end: datetime, attributes: Mapping[str, Value | None], error: str | None = None) -> None:
    """Ends a span. Attributes of None are left out; `error` is from a closed list."""
    span.set_attributes({name: value for name, value in attributes.items() if value is not None})
    if error is not None:
        span.set_attribute("error.type", error)
        span.set_status(Status(StatusCode.ERROR, error))
    span.end(_ns(end))


def traceparent_of(span: Span) -> str:
    """The header that passes a span to another process."""
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers, set_span_in_context(span))
    return headers[TRACEPARENT]


def _attributes(record: RequestRecord) -> dict[str, Value | None]:
    """Attributes under OpenTelemetry's names for HTTP where there are any, else under the record's own."""
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


def _ns(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1) * 1000
