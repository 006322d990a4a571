"""What load means: the rate that the best variant of each task alone could just serve, and a run's rate by it.

A load of 1 is therefore the most at which nobody need be given less than the best; what is above it can only be served
by choosing. It knows medians; noise and queueing are the simulator's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from loadtests.scenarios.errors import ScenarioError
from loadtests.scenarios.model import RequestClass, Scenario, tokens_of
from loadtests.scenarios.traces import read_trace
from loadtests.simulator.variants import Variant

_LENGTHS = 64
"""At how many lengths, evenly spread over the span, the mean cost of a text is taken."""


def quality_capacity(scenario: Scenario, variants: Sequence[Variant]) -> float:
    """The requests/s of this mixture at which serving each with the best variant of its task keeps all cores busy.

    Each text costs what it does in that variant's best batch. A variant made for a domain counts for requests that
    name it. Raises ScenarioError where a task of the mixture has no variant.
    """
    shares = sum(asked.share for asked in scenario.requests)
    work_s = sum(asked.share * _core_s(scenario, at, variants) for at, asked in enumerate(scenario.requests))
    return scenario.node.cores * shares / work_s


def rate_of(scenario: Scenario, variants: Sequence[Variant], load: float) -> float:
    """The rate in requests/s of a run at this load, which a shape's factors then multiply.

    It is `rate_per_s` where the scenario gives one, and the mean of what is played of a trace that is replayed as it
    was recorded. Raises ScenarioError.
    """
    if scenario.arrivals.rate_per_s is not None:
        return scenario.arrivals.rate_per_s
    if scenario.as_recorded and scenario.arrivals.trace is not None:
        return read_trace(Path(scenario.arrivals.trace)).over(scenario.seconds).mean_per_s
    return load * quality_capacity(scenario, variants)


def candidates(asked: RequestClass, variants: Sequence[Variant]) -> tuple[Variant, ...]:
    """The variants that may answer such a request, the best first; of equal quality the one that stood first."""
    may = (one for one in variants if one.task == asked.task and one.domain in (None, asked.domain))
    return tuple(sorted(may, key=lambda one: -one.quality))


def _core_s(scenario: Scenario, at: int, variants: Sequence[Variant]) -> float:
    """Core seconds of one request of a class with the best variant of its task."""
    asked = scenario.requests[at]
    best = next(iter(candidates(asked, variants)), None)
    if best is None:
        raise ScenarioError(f"{scenario.name}: requests.{at}.task: no variant of the catalog does {asked.task}")
    low, high = asked.words
    words = (low + (high - low) * (step + 0.5) / _LENGTHS for step in range(_LENGTHS))
    text_s = fmean(best.cheapest_s(tokens_of(length)) for length in words)
    return asked.texts * text_s + (scenario.node.overhead_core_ms + scenario.node.served_core_ms) / 1000
