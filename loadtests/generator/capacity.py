"""Measures the quality tier's capacity on this machine; loads are multiples of it.

The capacity is the highest throughput in an open loop, best effort, with the best checkpoint pinned for every class.
HTTP, gateway, generator and engines share the cores, as they do in the runs. Throughput counts full answers, late
ones included, while requests still arrive. A summary that its deadline cut short does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtests.errors import LoadTestError
from loadtests.generator.results import ANSWERED, LATE_SHARE, Result, late_share
from loadtests.workload.scenario import ArrivalModel, Scenario

FIRST_LOAD, GROWTH = 0.4, 1.2
"""The first load, as a multiple of the capacity computed from profiles, and the factor from step to step."""

KEPT_UP = 0.97
"""A step is kept up with if at least this share of its arrivals was answered during it."""

MOST_STEPS = 20
LEAST_STEP_S, MOST_STEP_S, LEAST_REQUESTS = 4.0, 20.0, 200
WARMUP_S = 1.0


class NothingOffered(LoadTestError):
    """A run would have no request, or its load has no capacity to refer to; the message says why."""


@dataclass(frozen=True, slots=True)
class Step:
    """One rate that was tried: arrivals and full answers per second. `load` is relative to the profiles' capacity."""

    load: float
    offered_per_s: float
    answered_per_s: float
    valid: bool

    @property
    def kept_up(self) -> bool:
        """True if the gateway answered as fast as requests arrived."""
        return self.answered_per_s >= KEPT_UP * self.offered_per_s


@dataclass(frozen=True, slots=True)
class Capacity:
    """The requests/s at a load of 1; computed from latency profiles if there are no steps."""

    per_s: float
    steps: tuple[Step, ...] = ()

    @property
    def measured(self) -> bool:
        """True if the capacity was measured on this machine."""
        return bool(self.steps)

    @property
    def reached(self) -> bool:
        """True if the gateway was the limit. Else the generator or the last step was, and it may serve more."""
        return any(step.valid and not step.kept_up for step in self.steps)


def measured_capacity(fire: Callable[[float], Step]) -> Capacity:
    """Raises the load step by step until the gateway falls behind twice in a row; returns the highest throughput.

    `fire` sends one load. A step whose generator sent late is dropped and ends the measurement. Raises NothingOffered.
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
        raise NothingOffered("the quality tier's capacity: no step that the generator sent on time was answered")
    return Capacity(best, tuple(steps))


def step_scenario(scenario: Scenario, rate_per_s: float) -> Scenario:
    """The scenario's mixture as a Poisson process long enough to count."""
    seconds = min(max(LEAST_STEP_S, LEAST_REQUESTS / rate_per_s), MOST_STEP_S)
    plain = {"arrivals": ArrivalModel(process="poisson"), "cvs": (1.0,), "seconds": seconds, "warmup_s": WARMUP_S}
    return scenario.model_copy(update=plain)


def step_of(load: float, results: Sequence[Result], warmup_s: float, seconds: float) -> Step:
    """Counts the requests due, and the full answers, between the end of the warm-up and the end of the run."""
    end_s = warmup_s + seconds
    due = [one for one in results if one.due_s >= warmup_s]
    full = [one for one in results if one.fate in ANSWERED and not (one.prediction and one.prediction.cut)]
    answered = sum(warmup_s <= one.due_s + one.latency_s < end_s for one in full)
    return Step(load, len(due) / seconds, answered / seconds, late_share(due) <= LATE_SHARE)
