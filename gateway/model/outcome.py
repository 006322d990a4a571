"""How a request can end: the closed list behind every metric label and every record."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How one request ended; each is counted once."""

    IN_TIME = "in_time"
    LATE = "late"
    INVALID = "invalid"
    TOO_LONG = "too_long"
    INFEASIBLE = "infeasible"
    SHED = "shed"
    EXPIRED = "expired"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"
    CANCELLED = "cancelled"
