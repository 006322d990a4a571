"""A place in a trace, as W3C's `traceparent` writes it. Knows no OpenTelemetry: logs and replicas read it too."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

_SAMPLED = 0x01


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span of one trace, and whether the trace is kept."""

    trace_id: int
    span_id: int
    sampled: bool

    @classmethod
    def read(cls, traceparent: str) -> TraceContext:
        """Reads a header that is well formed, as `terms` has made sure; of a later version what this one knows."""
        _, trace_id, span_id, flags = traceparent.split("-", 4)[:4]
        return cls(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED))

    @property
    def traceparent(self) -> str:
        """The header that hands it on."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """How a request entered its trace: under which span of its client's, if any, and when."""

    parent: int | None
    at: datetime


def trace_id_of(traceparent: str) -> str:
    """The trace alone, as its 32 hexadecimal digits."""
    return traceparent.split("-", 2)[1]
