"""The record of one finished request, written once; metrics, the access log and traces observe it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from gateway.model.faults import Note, attempt
from gateway.model.outcome import Outcome
from gateway.scheduling.policy import Assessed


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """What happened to one request. Durations in seconds; never any text of it.

    A field that the request did not reach is None: a refused one has no checkpoint, an invalid one not even a budget.
    `steps`, `output_tokens` and `finish_reason` (`stop`, `length`, `deadline`) are of summaries. `quantile_s` is the
    forecast at the percentile asked for and `predicted_s` its median, both from arrival. `degraded` is True if a better
    checkpoint of the task was on offer and was not used. `percentile`, in percent, and `strict` are as asked for.
    `price` is the capacity price of the decision, in points of quality per core-second. `verdicts` has each candidate
    considered, with what was found of it. `traceparent` and `span` are the request's place in its trace, and its open
    span if tracing is on. `first_delta_s` is the time from arrival to the first delta of an answer that is streamed,
    `first_quantile_s` its forecast at the percentile, and `first_budget_s` the budget for it, if it was given one.
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
    strict: bool = False
    percentile: float | None = None
    price: float | None = None
    verdicts: tuple[Assessed, ...] = ()
    traceparent: str | None = None
    span: object | None = None
    first_delta_s: float | None = None
    first_quantile_s: float | None = None
    first_budget_s: float | None = None

    @property
    def first_met(self) -> bool | None:
        """True if the first text came within its budget, or the end of an answer without text; None if it had none."""
        if self.first_budget_s is None:
            return None
        told_s = self.latency_s if self.first_delta_s is None and self.answered else self.first_delta_s
        return told_s is not None and told_s <= self.first_budget_s

    @property
    def met(self) -> bool:
        """True if the client had the checkpoint's answer in time, and not a text's first sentence in its place."""
        return self.outcome is Outcome.IN_TIME

    @property
    def answered(self) -> bool:
        """True if the client had an answer: in time or late, written or standing in."""
        return self.outcome in _ANSWERED


_ANSWERED = frozenset((Outcome.IN_TIME, Outcome.LEAD, Outcome.LATE))


class Observer(Protocol):
    """Sees each finished request exactly once. It must not block and must not raise."""

    def observe(self, record: RequestRecord) -> None:
        """Takes one record."""


def tell(observers: Iterable[Observer], record: RequestRecord, note: Note) -> None:
    """Gives the record to each observer once. An observer that raises harms neither the request nor the others."""
    for observer in observers:
        _tell_one(observer, record, note)


def _tell_one(observer: Observer, record: RequestRecord, note: Note) -> None:
    attempt("observer", note, lambda: observer.observe(record), _nothing)


def _nothing() -> None:
    """Stands in for an observer that failed."""
