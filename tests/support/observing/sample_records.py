"""A typical record of a request, and the mark for texts that must not be quoted."""

from __future__ import annotations

from fakes import GRAND

from gateway.model.outcome import Outcome
from gateway.observability.record import RequestRecord

MARK = "xyzzy"
"""Stands in texts, headers and parameters, and must never be in a log line."""

RECORD = RequestRecord(
    request_id="r-1",
    task="classify",
    outcome=Outcome.IN_TIME,
    latency_s=0.0123456,
    budget_s=0.05,
    checkpoint=GRAND,
    tier="quality",
    reason="fits",
    predicted_s=0.01,
    quantile_s=0.02,
    route_s=0.0003,
    queueing_delay_s=0.0011,
    service_time_s=0.0023,
    batch_size=2,
    inputs=1,
    tokens=12,
    kept=12,
    attempts=1,
    percentile=95.0,
    price=1.25,
    traceparent=f"00-{'a' * 32}-{'b' * 16}-01",
)
