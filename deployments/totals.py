"""What a replica counts of its work since the start, for metrics. Waste means the same of batches and of turns.

`busy_s` is engine time. `wasted_s` is the part of it that helped nobody in time: the engine failed, the caller had
left, nothing usable came of it, or the deadline had passed, best-effort or not. `inputs` are those that ended (of a
batcher: that were run), `cancelled` those whose callers left, `engine_failures` the runs or texts that failed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class BatcherTotals:
    """Of engine runs, failed ones included; each member of a run has an equal share of its time.

    `expired` are strict inputs that were not run.
    """

    batches: int = 0
    inputs: int = 0
    real_tokens: int = 0
    padded_tokens: int = 0
    expired: int = 0
    cancelled: int = 0
    engine_failures: int = 0
    busy_s: float = 0.0
    wasted_s: float = 0.0


@dataclass(slots=True)
class InterleaverTotals:
    """Of texts in turns, counted when each has ended.

    `late_steps` are steps that began after their text's deadline, `longest_overshoot_s` is the furthest that any step
    ended past it.
    """

    inputs: int = 0
    turns: int = 0
    steps: int = 0
    late_steps: int = 0
    longest_overshoot_s: float = 0.0
    cancelled: int = 0
    engine_failures: int = 0
    busy_s: float = 0.0
    wasted_s: float = 0.0
