"""Counts a replica's work since its start, for metrics. Waste means the same for batches and time slices.

`busy_s` is engine time in seconds. `wasted_s` is the part that helped nobody in time: the engine failed, the caller had
left, the result was not usable, or the deadline had passed, strict or not. `inputs` counts those that ended (in a
batcher: that ran), `cancelled` those whose callers left, `engine_failures` the batches or texts that failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

GAUGES = ("longest_", "past_")
"""How the names of figures begin that are no counts."""


@dataclass(slots=True)
class Totals:
    """The counts that all replicas have. `sizes` maps a batch size to the number of batches of that size."""

    inputs: int = 0
    cancelled: int = 0
    engine_failures: int = 0
    busy_s: float = 0.0
    wasted_s: float = 0.0
    sizes: Counter[int] = field(default_factory=Counter)

    def figures(self) -> dict[str, float]:
        """All counts but the sizes, by name. Names of seconds end in `_s`.

        Those that begin as one of `GAUGES` does are no counts, but how it is now, or was at the most.
        """
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("sizes", "past")}


@dataclass(slots=True)
class BatcherTotals(Totals):
    """The counts of a batcher, with failed batches. Each input counts for an equal share of its batch's time.

    `expired` counts strict inputs that were not run. A batch's size is its number of inputs. `lone` ones had the node
    for themselves, and all processors of the replica.
    """

    batches: int = 0
    real_tokens: int = 0
    padded_tokens: int = 0
    expired: int = 0
    lone: int = 0


@dataclass(slots=True)
class TimeSlicerTotals(Totals):
    """The counts of a time slicer. A text is counted when it has ended.

    `turns` counts time slices; a slice's size is the number of texts that shared the engine at its end. `late_steps`
    began after their text's deadline. `longest_overshoot_s` is the longest time that a step ended after it.
    `waits_for_memory` counts texts that had to wait since the keys and values of others left them no room, and
    `refused_for_memory` those that would not have had room alone. `followed` counts texts that went along with the run
    of an equal one. `past` tells what memory keys and values take.
    """

    turns: int = 0
    steps: int = 0
    late_steps: int = 0
    longest_overshoot_s: float = 0.0
    waits_for_memory: int = 0
    refused_for_memory: int = 0
    followed: int = 0
    past: Callable[[], Mapping[str, float]] = dict

    def figures(self) -> dict[str, float]:
        """Beside the counts, what keys and values take of memory: those of `past`."""
        return Totals.figures(self) | dict(self.past())
