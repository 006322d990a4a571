"""One load counted twice: by the client that offered it, and by the gateway as a Prometheus has its counters.

Pure arithmetic. In time by the client's clock counts from the intended send time, so it has in it what the gateway
cannot see: the way to it and back, and a generator that sent late. In time as told is what `X-SLA-Met` said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from gateway.model.errors import (
    BudgetInfeasible,
    CheckpointUnavailable,
    DeadlineExceeded,
    InferenceFailed,
    InputTooLong,
    InvalidRequest,
    Overloaded,
)
from gateway.model.outcome import Outcome
from loadtests.offering.landings import ANSWERED, Landing
from loadtests.prometheus import Sample
from loadtests.simulator.requests import Fate

MOST_APART = 0.01
"""How far attainment by PromQL may be from the client's own, as a share."""

NOT_OFFERED = (Outcome.INVALID, Outcome.TOO_LONG)
"""Such asked for nothing that could be served: attainment leaves them out, here as in the recording rules."""

UNTOLD = "untold"
"""How a request ended that got no answer: the gateway may know more of it than its client."""

_BY_CODE = {
    problem.code: problem.outcome
    for problem in (
        BudgetInfeasible,
        CheckpointUnavailable,
        DeadlineExceeded,
        InferenceFailed,
        InputTooLong,
        InvalidRequest,
        Overloaded,
    )
}

Counts: TypeAlias = Mapping[str, int]
"""How many requests of a task ended how, by the name of the outcome."""


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """The requests of one task: how they ended as their clients were told, and as Prometheus has counted them.

    `in_time` is by the client's clock, `by_rule` the attainment that the recording rule has, where it has one.
    """

    task: str
    told: Counts
    counted: Counts
    in_time: int
    by_rule: float | None = None

    @property
    def agree(self) -> bool:
        """Whether each request was counted once, as it ended; of one without an answer, only that it was counted."""
        if sum(self.told.values()) != sum(self.counted.values()):
            return False
        return all(self.counted.get(how, 0) >= count for how, count in self.told.items() if how != UNTOLD)

    @property
    def by_client(self) -> float | None:
        """Attainment by the client's clock."""
        return _share(self.in_time, _offered(self.told))

    @property
    def by_answers(self) -> float | None:
        """Attainment as clients were told."""
        return _share(self.told.get(Outcome.IN_TIME, 0), _offered(self.told))

    @property
    def by_promql(self) -> float | None:
        """Attainment by the difference of the counters."""
        return _share(self.counted.get(Outcome.IN_TIME, 0), _offered(self.counted))

    @property
    def apart(self) -> float | None:
        """The larger of the distances of attainment by PromQL from the client's clock and from what clients were told;
        None where any of them is unknown.
        """
        if self.by_promql is None or self.by_client is None or self.by_answers is None:
            return None
        return max(abs(self.by_promql - self.by_client), abs(self.by_promql - self.by_answers))


def counted_both(
    landings: Sequence[Landing], before: Iterable[Sample], after: Iterable[Sample], by_rule: Mapping[str, float]
) -> tuple[TaskCounts, ...]:
    """The counts of each task that either side knows of, in the order of their names.

    The samples are of a counter with the labels `task` and `outcome`, at an instant before the first request and at
    one after the last. A series that was not there before began at 0.
    """
    told: dict[str, Counter[str]] = {}
    for one in landings:
        told.setdefault(one.task, Counter())[told_outcome(one)] += 1
    counted = _differences(before, after)
    in_time = Counter(one.task for one in landings if one.fate is Fate.IN_TIME)
    tasks = sorted(told.keys() | {task for task, counts in counted.items() if counts})
    return tuple(
        TaskCounts(one, told.get(one, {}), counted.get(one, {}), in_time[one], by_rule.get(one)) for one in tasks
    )


def told_outcome(landing: Landing) -> str:
    """How the gateway said that a request had ended; `UNTOLD` where it did not say."""
    if landing.fate in ANSWERED:
        met = landing.foretold.met if landing.foretold else None
        return UNTOLD if met is None else Outcome.IN_TIME if met else Outcome.LATE
    return _BY_CODE.get(landing.detail.rpartition(" ")[2], UNTOLD)


def _differences(before: Iterable[Sample], after: Iterable[Sample]) -> dict[str, Counter[str]]:
    """By task and outcome, where there is one. Below 0 is a counter that began anew: some requests are not in it."""
    began = {(one.metric["task"], one.metric["outcome"]): one.number for one in before}
    grown: dict[str, Counter[str]] = {}
    for one in after:
        task, outcome = one.metric["task"], one.metric["outcome"]
        difference = round(one.number - began.get((task, outcome), 0.0))
        if difference:
            grown.setdefault(task, Counter())[outcome] = difference
    return grown


def _offered(counts: Counts) -> int:
    return sum(count for how, count in counts.items() if how not in NOT_OFFERED)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
