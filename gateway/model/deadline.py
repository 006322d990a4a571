"""The latency budget of one request, anchored once on this process's monotonic clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

MIN_BUDGET_MS = 1e-6
"""Smallest budget that a client may send, in milliseconds; what is below it is rounded."""

MAX_BUDGET_MS = 600_000.0
"""The largest budget that a client may grant or a catalog may default to, in milliseconds."""

Clock: TypeAlias = Callable[[], float]
"""Seconds on a monotonic clock: `time.monotonic` in production, a variable in tests and in the simulator."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """Arrival plus budget, in seconds. It never leaves the process whose clock anchored it."""

    arrived_s: float
    budget_s: float

    @property
    def at_s(self) -> float:
        """The instant itself."""
        return self.arrived_s + self.budget_s

    def elapsed_s(self, now_s: float) -> float:
        """Seconds since arrival."""
        return now_s - self.arrived_s

    def remaining_s(self, now_s: float) -> float:
        """Seconds left of the budget; negative once it has passed."""
        return self.arrived_s + self.budget_s - now_s


def ms(seconds: float) -> float:
    """Converts seconds to milliseconds, to three decimals."""
    return round(seconds * 1000, 3)


def budget_ms(seconds: float) -> float:
    """Converts a budget to milliseconds, to six decimals: as finely as a client can state it."""
    return round(seconds * 1000, 6)
