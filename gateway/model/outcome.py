"""How a request can end: the closed list behind every metric label and every record."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How one request ended; each is counted once.

    LEAD is an answer in time for which too little was written: the text's first sentence stands in.
    """

    IN_TIME = "in_time"
    LEAD = "lead"
    LATE = "late"
    INVALID = "invalid"
    TOO_LONG = "too_long"
    INFEASIBLE = "infeasible"
    SHED = "shed"
    EXPIRED = "expired"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"
    CANCELLED = "cancelled"
