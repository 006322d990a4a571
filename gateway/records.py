"""The record of one finished request, written once; metrics and logs are observers of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.outcome import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """What happened to one request. Durations in seconds; never any text of it.

    What a request did not reach is None: a refused one has no checkpoint, an invalid one not even a budget.
    `steps`, `output_tokens` and `finish_reason` (`stop`, `length`, `deadline`) are of summaries.
    `quantile_s` is the forecast at the percentile that was asked for, `predicted_s` its median, both from arrival.
    `degraded` says that a better checkpoint of the task stood in the catalog for it and was not used.
    """

    request_id: str
    task: str
    outcome: Outcome
    latency_s: float
    budget_s: float | None = None
    checkpoint: str | None = None
    tier: str | None = None
    reason: str | None = None
    predicted_s: float | None = None
    quantile_s: float | None = None
    route_s: float | None = None
    queueing_delay_s: float | None = None
    service_time_s: float | None = None
    batch_size: int | None = None
    inputs: int = 0
    tokens: int = 0
    kept: int = 0
    truncated: bool = False
    steps: int = 0
    output_tokens: int = 0
    finish_reason: str | None = None
    degraded: bool = False
    attempts: int = 0

    @property
    def met(self) -> bool:
        """Whether the client had its answer in time."""
        return self.outcome is Outcome.IN_TIME

    @property
    def answered(self) -> bool:
        """Whether the client had an answer, in time or late."""
        return self.outcome in (Outcome.IN_TIME, Outcome.LATE)


class Observer(Protocol):
    """Sees each finished request exactly once. It must not block and must not raise."""

    def observe(self, record: RequestRecord) -> None:
        """Takes one record."""
