"""The replica's part of a trace: its own spans, hung on the span of the gateway that sent the work.

Knows what a span tells of a piece of work; how spans are sent is `gateway.tracing`'s, which is imported only where
traces are asked for: OpenTelemetry costs those who have none nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING

from deployments.transport import Handler
from gateway.model.deadline import Clock
from gateway.model.messages import Answer, Failure, FailureKind, ReplicaTimings, Work
from gateway.trace_context import TraceContext

if TYPE_CHECKING:
    from gateway.tracing import Spans

TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_ENDPOINTS = (TRACES_ENDPOINT, "OTEL_EXPORTER_OTLP_ENDPOINT")


class TracingMissing(Exception):
    """Traces are asked for, and what sends them is not installed."""


def traces_asked_for(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's variables name a collector, and do not turn it off."""
    off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporter = environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    return not off and exporter == "otlp" and any(environ.get(name) for name in _ENDPOINTS)


def require_tracing(environ: Mapping[str, str]) -> None:
    """Raises TracingMissing where traces are asked for that could not be sent."""
    if traces_asked_for(environ):
        try:
            import_module("gateway.tracing")
        except ImportError:
            raise TracingMissing("traces need the extra: pip install 'punctual[tracing]'") from None


def spans_of(process: str, instance: str, environ: Mapping[str, str]) -> Spans | None:
    """Where this process's spans go; None where traces are not asked for. Raises ImportError without the extra."""
    if not traces_asked_for(environ):
        return None
    from gateway.tracing import open_spans

    return open_spans(process, instance, random.SystemRandom())


@dataclass(frozen=True, slots=True)
class TracedHandler:
    """Answers as the replica does, and writes a span of it, with one of its queueing and one of its engine's run."""

    handle: Handler
    checkpoint: str
    spans: Spans
    clock: Clock
    now: Callable[[], datetime]

    async def __call__(self, work: Work) -> Answer | Failure:
        """Answers one piece of work."""
        if work.traceparent is None or not (gateway := TraceContext.read(work.traceparent)).sampled:
            return await self.handle(work)
        began_s = self.clock()
        result: Answer | Failure = Failure(FailureKind.CANCELLED)  # unless it comes to another end
        try:
            result = await self.handle(work)
        finally:
            self._write(work, result, gateway, self.clock() - began_s)
        return result

    def _write(self, work: Work, result: Answer | Failure, gateway: TraceContext, total_s: float) -> None:
        """Reckons back from the end, where the engine's run has just ended; its beginning is the tokeniser's."""
        from gateway.tracing import Span

        end = self.now()
        own = self.spans.below(gateway)
        self.spans.write(
            Span(
                name=f"replica {self.checkpoint}",
                place=own,
                parent=gateway.span_id,
                remote=True,
                serves=True,
                start=end - timedelta(seconds=total_s),
                end=end,
                error=result.kind.value if isinstance(result, Failure) else None,
                attributes={"punctual.request_id": work.request_id, "punctual.checkpoint": self.checkpoint},
            )
        )
        if isinstance(result, Failure):
            return
        began = end - timedelta(seconds=min(result.timings.service_time_s, total_s))
        queued = end - timedelta(seconds=min(_until_end_s(result.timings), total_s))
        run = {
            "punctual.batch_size": result.timings.batch_size,
            "punctual.input_tokens": result.input.kept,
            "punctual.steps": sum(one.steps for one in result.generation) if result.generation else None,
        }
        for name, start, stop, attributes in (("replica queue", queued, began, {}), ("engine run", began, end, run)):
            place = self.spans.below(own)
            self.spans.write(
                Span(name=name, place=place, parent=own.span_id, start=start, end=stop, attributes=attributes)
            )


def _until_end_s(timings: ReplicaTimings) -> float:
    return timings.queueing_delay_s + timings.service_time_s
