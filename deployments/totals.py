"""What a replica counts of its work since the start, for metrics. Waste means the same of batches and of turns.

`busy_s` is engine time. `wasted_s` is the part of it that helped nobody in time: the engine failed, the caller had
left, nothing usable came of it, or the deadline had passed, best-effort or not. `inputs` are those that ended (of a
batcher: that were run), `cancelled` those whose callers left, `engine_failures` the runs or texts that failed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields


@dataclass(slots=True)
class Totals:
    """Of either kind. `sizes` has how many runs there were of each size."""

    inputs: int = 0
    cancelled: int = 0
    engine_failures: int = 0
    busy_s: float = 0.0
    wasted_s: float = 0.0
    sizes: Counter[int] = field(default_factory=Counter)

    def figures(self) -> dict[str, float]:
        """All but the sizes, by name; names of seconds end in `_s`, of maxima begin with `longest_`."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "sizes"}


@dataclass(slots=True)
class BatcherTotals(Totals):
    """Of engine runs, failed ones included; each member of a run has an equal share of its time.

    `expired` are strict inputs that were not run. The size of a run is its inputs.
    """

    batches: int = 0
    real_tokens: int = 0
    padded_tokens: int = 0
    expired: int = 0


@dataclass(slots=True)
class TimeSlicerTotals(Totals):
    """Of texts in turns, counted when each has ended.

    `late_steps` are steps that began after their text's deadline, `longest_overshoot_s` is the furthest that any step
    ended past it. The size of a turn is how many texts shared the engine's time when it ended.
    """

    turns: int = 0
    steps: int = 0
    late_steps: int = 0
    longest_overshoot_s: float = 0.0
