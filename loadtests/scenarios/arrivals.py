"""The requests of one run: when they arrive, of which class they are, what they grant and how long their texts are.

Chance is seeded and parted: instants, classes and each class's own draws come from streams of their own. So runs that
differ in load or policy see the same requests in the same order, at instants that are only drawn nearer together or
further apart; and a class more in the mixture leaves the others' draws as they were.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

from loadtests.scenarios.capacity import rate_of
from loadtests.scenarios.errors import ScenarioError
from loadtests.scenarios.model import ArrivalModel, Scenario, tokens_of
from loadtests.scenarios.traces import read_trace
from loadtests.simulator.requests import Offered
from loadtests.simulator.variants import Variant

MOST_REQUESTS = 5_000_000
"""A run that is to offer more is refused: it would not fit in memory."""


@dataclass(frozen=True, slots=True)
class RatePiece:
    """A stretch of time over which the rate goes evenly from one value to another, in requests/s."""

    seconds: float
    from_per_s: float
    to_per_s: float

    @property
    def expected(self) -> float:
        """The requests to expect in it."""
        return self.seconds * (self.from_per_s + self.to_per_s) / 2

    def reached_s(self, requests: float) -> float:
        """After how many of its seconds so many requests (no more than `expected`) are to be expected.

        The positive root of from·t + (to - from)·t²/(2·seconds) = requests, in the form that also holds for a rate
        that does not change.
        """
        bend = (self.to_per_s - self.from_per_s) / self.seconds
        root = math.sqrt(max(self.from_per_s * self.from_per_s + 2 * bend * requests, 0.0))
        slowest = self.from_per_s + root
        return min(2 * requests / slowest, self.seconds) if slowest > 0 else 0.0


def offered_of(scenario: Scenario, variants: Sequence[Variant], load: float, cv: float, seed: int) -> list[Offered]:
    """The requests of one run in the order they arrive, from 0 s to the end of its counted part.

    `load` and `cv` are the run's own. Equal arguments, equal requests. Raises ScenarioError.
    """
    pieces = rate_over_time(scenario, rate_of(scenario, variants, load))
    expected = sum(piece.expected for piece in pieces)
    if expected > MOST_REQUESTS:
        raise ScenarioError(
            f"{scenario.name}: a run at load {load:g} would offer {expected:.3g} requests, more than {MOST_REQUESTS}"
        )
    cv = 1.0 if scenario.arrivals.process == "poisson" else cv
    mixture = _Mixture(scenario, seed)
    arrived = instants(pieces, cv, random.Random(f"{seed} instants"))
    return [mixture.request(sequence, arrived_s) for sequence, arrived_s in enumerate(arrived)]


def instants(pieces: Sequence[RatePiece], cv: float, chance: random.Random) -> Iterator[float]:
    """Arrivals, in seconds from the beginning of the first piece, whose number follows the rate at every moment.

    A renewal process of gamma gaps (mean 1, coefficient of variation `cv`; exponential at 1) is bent in time until its
    rate is that of the pieces. It is met under way, not begun: the first gap is what is left at an arbitrary moment
    of one drawn in proportion to its length (Cox, "Renewal Theory", 1962, section 5.2), else bursty arrivals
    would begin every run with a burst.
    """
    shape, scale = 1 / cv**2, cv**2
    due = chance.random() * chance.gammavariate(shape + 1, scale)
    at_s = began_s = passed = 0.0
    for piece in pieces:
        while due - passed < piece.expected:
            at_s = max(at_s, began_s + piece.reached_s(due - passed))  # rounding could take a bursty gap for negative
            yield at_s
            due += chance.gammavariate(shape, scale)
        began_s += piece.seconds
        passed += piece.expected


def rate_over_time(scenario: Scenario, rate_per_s: float) -> tuple[RatePiece, ...]:
    """The offered rate of a run: the warm-up at the rate that the shape begins with, then the shape.

    A trace is scaled until the mean of what is played of it is the run's rate. Raises ScenarioError.
    """
    shape = _shape(scenario.arrivals, scenario.seconds, rate_per_s, scenario.name)
    begin = shape[0].from_per_s
    warmup = (RatePiece(scenario.warmup_s, begin, begin),) if scenario.warmup_s else ()
    return (*warmup, *shape)


def _shape(model: ArrivalModel, seconds: float, rate_per_s: float, name: str) -> tuple[RatePiece, ...]:
    if model.trace is not None:
        trace = read_trace(Path(model.trace)).over(seconds)
        if not trace.mean_per_s:
            raise ScenarioError(f"{name}: arrivals.trace: offers nothing in its first {seconds:g} s")
        scaled = trace.scaled(rate_per_s / trace.mean_per_s)
        return tuple(RatePiece(one.seconds, one.rate_per_s, one.rate_per_s) for one in scaled.intervals)
    if model.ramp is not None:
        return (RatePiece(seconds, model.ramp[0] * rate_per_s, model.ramp[1] * rate_per_s),)
    starts_s = [0.0, *(step.start_s for step in model.steps if step.start_s < seconds), seconds]
    factors = [1.0, *(step.factor for step in model.steps)]
    return tuple(
        RatePiece(end_s - start_s, factor * rate_per_s, factor * rate_per_s)
        for (start_s, end_s), factor in zip(pairwise(starts_s), factors, strict=False)
        if end_s > start_s
    )


class _Mixture:
    """The classes of a scenario, drawn by share, with a stream of chance for each."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._classes = scenario.requests
        self._shares = list(accumulate(asked.share for asked in self._classes))
        self._kinds = range(len(self._classes))
        self._kind = random.Random(f"{seed} kinds")
        self._own = [random.Random(f"{seed} kind {kind}") for kind in self._kinds]

    def request(self, sequence: int, arrived_s: float) -> Offered:
        """The next request."""
        kind = self._kind.choices(self._kinds, cum_weights=self._shares)[0]
        asked, own = self._classes[kind], self._own[kind]
        budget_s = own.uniform(*asked.budget_ms) / 1000
        return Offered(
            sequence,
            asked.task,
            arrived_s,
            budget_s,
            tokens_of(own.uniform(*asked.words)),
            texts=asked.texts,
            strict=asked.mode == "strict",
            percentile=asked.percentile,
            domain=asked.domain,
            kind=kind,
        )
