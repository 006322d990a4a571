"""What a replica counts of its work since the start, for metrics. Waste means the same for batches and time slices.

`busy_s` is engine time. `wasted_s` is the part of it that helped nobody in time: the engine failed, the caller had
left, nothing usable came of it, or the deadline had passed, best-effort or not. `inputs` are those that ended (in a
batcher: that were run), `cancelled` those whose callers left, `engine_failures` the batches or texts that failed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields


@dataclass(slots=True)
class Totals:
    """The counts of either kind. `sizes` maps a batch size to the number of batches that had it."""

    inputs: int = 0
    cancelled: int = 0
    engine_failures: int = 0
    busy_s: float = 0.0
    wasted_s: float = 0.0
    sizes: Counter[int] = field(default_factory=Counter)

    def figures(self) -> dict[str, float]:
        """All but the sizes, by name: names of seconds end in `_s`, those of maxima begin with `longest_`."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "sizes"}


@dataclass(slots=True)
class BatcherTotals(Totals):
    """Counts engine runs, failed ones included; each member of a batch has an equal share of the run's time.

    `expired` are strict inputs that were not run. The size of a batch is its inputs.
    """

    batches: int = 0
    real_tokens: int = 0
    padded_tokens: int = 0
    expired: int = 0


@dataclass(slots=True)
class TimeSlicerTotals(Totals):
    """Counts texts that share the engine by time slicing, each when it has ended.

    `turns` are time slices; the size of one is how many texts shared the engine when it ended. `late_steps` began after
    their text's deadline, and `longest_overshoot_s` is the furthest that any step ended past it.
    """

    turns: int = 0
    steps: int = 0
    late_steps: int = 0
    longest_overshoot_s: float = 0.0
