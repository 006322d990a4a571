"""The rate that the quality tier really serves here, measured: loads are multiples of it.

The capacity is the highest throughput in an open loop with the best checkpoint pinned for every class, best effort:
HTTP, gateway, generator and engines share the cores as they will in the runs. Throughput counts full answers, late
ones too, while requests still come; a summary that its deadline cut is not what the quality tier is there for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtests.errors import LoadTestError
from loadtests.generator.results import ANSWERED, LATE_SHARE, Result, late_share
from loadtests.workload.scenario import ArrivalModel, Scenario

FIRST_LOAD, GROWTH = 0.4, 1.2
"""Where the offered load begins, in multiples of what the profiles promise, and by what it grows from step to step."""

KEPT_UP = 0.97
"""A step is kept up with where at least this share of what came was answered meanwhile."""

MOST_STEPS = 20
LEAST_STEP_S, MOST_STEP_S, LEAST_REQUESTS = 4.0, 20.0, 200
WARMUP_S = 1.0


class NothingOffered(LoadTestError):
    """A run would have no request, or there is no capacity that a load could be relative to; the message says why."""


@dataclass(frozen=True, slots=True)
class Step:
    """One rate that was tried: arrivals and full answers a second over the same stretch. `load` is by the profiles."""

    load: float
    offered_per_s: float
    answered_per_s: float
    valid: bool

    @property
    def kept_up(self) -> bool:
        """Whether what came was answered."""
        return self.answered_per_s >= KEPT_UP * self.offered_per_s


@dataclass(frozen=True, slots=True)
class Capacity:
    """The requests/s that a load of 1 stands for; computed from latency profiles where there are no steps."""

    per_s: float
    steps: tuple[Step, ...] = ()

    @property
    def measured(self) -> bool:
        """Whether it was measured here."""
        return bool(self.steps)

    @property
    def reached(self) -> bool:
        """Whether the gateway was the limit, not the generator or the last step; else it may serve more."""
        return any(step.valid and not step.kept_up for step in self.steps)


def measured_capacity(fire: Callable[[float], Step]) -> Capacity:
    """Raises the load step by step until the gateway falls behind twice in a row; gives the highest throughput.

    `fire` offers one load. Steps whose generator sent late say nothing, and end the measurement. Raises NothingOffered.
    """
    steps: list[Step] = []
    load = FIRST_LOAD
    while len(steps) < MOST_STEPS:
        steps.append(fire(load))
        load *= GROWTH
        behind = len(steps) > 1 and not steps[-1].kept_up and not steps[-2].kept_up
        if behind or not steps[-1].valid:
            break
    best = max((step.answered_per_s for step in steps if step.valid), default=0.0)
    if not best:
        raise NothingOffered("the quality tier's capacity: no step was answered that the generator sent in time")
    return Capacity(best, tuple(steps))


def step_scenario(scenario: Scenario, rate_per_s: float) -> Scenario:
    """The scenario's mixture as a Poisson process long enough to count."""
    seconds = min(max(LEAST_STEP_S, LEAST_REQUESTS / rate_per_s), MOST_STEP_S)
    plain = {"arrivals": ArrivalModel(process="poisson"), "cvs": (1.0,), "seconds": seconds, "warmup_s": WARMUP_S}
    return scenario.model_copy(update=plain)


def step_of(load: float, results: Sequence[Result], warmup_s: float, seconds: float) -> Step:
    """Counts one step: what was due, and what was answered in full, between the end of the warm-up and the run's."""
    end_s = warmup_s + seconds
    due = [one for one in results if one.due_s >= warmup_s]
    full = [one for one in results if one.fate in ANSWERED and not (one.prediction and one.prediction.cut)]
    answered = sum(warmup_s <= one.due_s + one.latency_s < end_s for one in full)
    return Step(load, len(due) / seconds, answered / seconds, late_share(due) <= LATE_SHARE)
