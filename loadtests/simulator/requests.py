"""A simulated request and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Fate(StrEnum):
    """How a simulated request ended; OPEN while it has not."""

    OPEN = "open"
    IN_TIME = "in_time"
    LATE = "late"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(slots=True, eq=False)
class Offered:
    """One request on the virtual clock, in seconds. `tokens` is the length of each of its texts.

    `kind` is its class in the scenario's mixture. What became of it is written once, by `World.finish`; `engine_s` are
    the core-seconds that its runs took, its equal share of each. `predicted_s` and `quantile_s` are the forecast from
    its arrival that it was decided on, where the policy makes one.
    """

    sequence: int
    task: str
    arrived_s: float
    budget_s: float
    tokens: int
    texts: int = 1
    strict: bool = False
    percentile: float = 95.0
    domain: str | None = None
    kind: int = 0
    fate: Fate = Fate.OPEN
    variant: str | None = None
    finished_s: float = 0.0
    engine_s: float = 0.0
    predicted_s: float | None = None
    quantile_s: float | None = None

    @property
    def deadline_s(self) -> float:
        """The instant by which it should be answered."""
        return self.arrived_s + self.budget_s
