"""What a published policy knows in advance, and what makes its rule from that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from gateway.scheduling.ruled import Rule
from loadtests.workload.variants import Variant

MOST_TRIED = 4000
"""The most requests of one trial, unless a setting says otherwise."""


@dataclass(frozen=True)
class Setting:
    """What a rule knows in advance: its task's variants (best quality first) and cores, and the offered load.

    `rate_per_s` is the task's mean arrival rate, `budgets_s` a sample of budgets, `tokens` the mean length, and
    `overhead_s` the time of a request outside queue and engine. A rule that tries variants offline tries each with
    `most_tried` requests at most.
    """

    variants: tuple[Variant, ...]
    cores: int
    rate_per_s: float
    budgets_s: tuple[float, ...]
    tokens: int
    overhead_s: float
    most_tried: int = MOST_TRIED


RuleMaker: TypeAlias = Callable[[Setting], Rule[Variant]]
"""Makes a rule for one task."""
