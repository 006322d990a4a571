"""The requests of one run: arrival times, classes, budgets and text lengths.

Arrival times, classes and each class's draws come from separate seeded random streams. Runs that differ in load or
policy therefore have the same requests in the same order, at times that are only scaled; and adding a class leaves
the draws of the others unchanged.

A load of 1 is the highest rate that the best variant of each task could serve alone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate, cycle, pairwise
from pathlib import Path
from statistics import fmean

from loadtests.workload.files import Row, ScenarioError, read_table
from loadtests.workload.scenario import ArrivalModel, RequestClass, Scenario, tokens_of
from loadtests.workload.variants import Variant


class Fate(StrEnum):
    """The outcome of a request; OPEN until it ends."""

    OPEN = "open"
    IN_TIME = "in_time"
    LATE = "late"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(slots=True, eq=False)
class Offered:
    """One request on the virtual clock, in seconds. `tokens` is the length of each of its texts.

    `kind` is its class in the scenario's mixture. The outcome is written once, by `World.finish`. `engine_s` is its
    share of the core-seconds of its runs, divided equally by member. `predicted_s` and `quantile_s` are its forecast
    from arrival, if the policy makes one.
    """

    sequence: int
    task: str
    arrived_s: float
    budget_s: float
    tokens: int
    texts: int = 1
    strict: bool = False
    percentile: float = 95.0
    domain: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    kind: int = 0
    fate: Fate = Fate.OPEN
    variant: str | None = None
    finished_s: float = 0.0
    engine_s: float = 0.0
    predicted_s: float | None = None
    quantile_s: float | None = None

    @property
    def deadline_s(self) -> float:
        """Arrival plus budget, in seconds."""
        return self.arrived_s + self.budget_s


COLUMNS = ("start_s", "rate_per_s")
HIGHEST_RATE = 1e9
LATEST_S = 1e12
SHORTEST_S = 0.01


@dataclass(frozen=True, slots=True)
class RatePiece:
    """A period in which the rate changes linearly from one value to another, in requests/s."""

    seconds: float
    from_per_s: float
    to_per_s: float

    @classmethod
    def even(cls, seconds: float, per_s: float) -> RatePiece:
        """A period at a constant rate."""
        return cls(seconds, per_s, per_s)

    @property
    def expected(self) -> float:
        """The expected number of requests."""
        return self.seconds * (self.from_per_s + self.to_per_s) / 2

    def reached_s(self, requests: float) -> float:
        """The second of the period by which `requests` are expected, for at most `expected` requests.

        The positive root of from·t + (to - from)·t²/(2·seconds) = requests, in a form that also holds for a constant
        rate.
        """
        bend = (self.to_per_s - self.from_per_s) / self.seconds
        root = math.sqrt(max(self.from_per_s * self.from_per_s + 2 * bend * requests, 0.0))
        slowest = self.from_per_s + root
        return min(2 * requests / slowest, self.seconds) if slowest > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Trace:
    """Consecutive periods from 0 s on, each at a constant rate."""

    pieces: tuple[RatePiece, ...]

    @property
    def seconds(self) -> float:
        """The trace's duration."""
        return sum(piece.seconds for piece in self.pieces)

    @property
    def mean_per_s(self) -> float:
        """The mean rate over the trace."""
        return sum(piece.expected for piece in self.pieces) / self.seconds

    def over(self, seconds: float) -> Trace:
        """The trace cut or repeated to this duration."""
        return Trace(tuple(self._until(seconds)))

    def scaled(self, factor: float) -> Trace:
        """The trace with every rate multiplied."""
        return Trace(tuple(RatePiece.even(one.seconds, factor * one.from_per_s) for one in self.pieces))

    def _until(self, seconds: float) -> Iterator[RatePiece]:
        left_s = seconds
        for piece in cycle(self.pieces):
            if left_s <= piece.seconds:
                yield RatePiece.even(left_s, piece.from_per_s)
                return
            yield piece
            left_s -= piece.seconds


def read_trace(path: Path) -> Trace:
    """Reads a trace from a CSV. Raises ScenarioError.

    Its first start counts as 0 s, and its last interval is as long as the one before.
    """
    rows = list(read_table(path, COLUMNS))
    if len(rows) < 2:
        raise ScenarioError(f"{path}: must have at least two rows: the last interval is as long as the one before it")
    starts_s = [row.number("start_s", 0, LATEST_S) for row in rows]
    lengths_s = [
        _length(row, later - earlier) for row, (earlier, later) in zip(rows[1:], pairwise(starts_s), strict=True)
    ]
    rates = [row.number("rate_per_s", 0, HIGHEST_RATE) for row in rows]
    if not any(rates):
        raise ScenarioError(f"{path}: rate_per_s: must be more than 0 in some row")
    return Trace(tuple(map(RatePiece.even, (*lengths_s, lengths_s[-1]), rates)))


def _length(row: Row, seconds: float) -> float:
    if seconds <= 0:
        raise row.fault("start_s", "must be later than in the row before")
    if seconds < SHORTEST_S:
        raise row.fault("start_s", f"must be at least {SHORTEST_S:g} later than in the row before")
    return seconds


_LENGTHS = 64
"""The number of evenly spaced lengths over which the cost of a text is averaged."""


def quality_capacity(scenario: Scenario, variants: Sequence[Variant]) -> float:
    """The requests/s of a mixture that keep all cores busy if the best variant of each task serves them.

    Each text costs its share of that variant's most efficient batch. A variant for a domain counts for requests of that
    domain. Raises ScenarioError if a task of the mixture has no variant.
    """
    shares = sum(asked.share for asked in scenario.requests)
    work_s = sum(asked.share * _core_s(scenario, at, variants) for at, asked in enumerate(scenario.requests))
    return scenario.node.cores * shares / work_s


def rate_of(scenario: Scenario, variants: Sequence[Variant], load: float) -> float:
    """The rate of a run at this load in requests/s, before a shape's factors.

    This is `rate_per_s` if the scenario gives one, and the mean of the replayed part of a trace that is replayed as
    recorded. Raises ScenarioError.
    """
    if scenario.arrivals.rate_per_s is not None:
        return scenario.arrivals.rate_per_s
    if scenario.as_recorded and scenario.arrivals.trace is not None:
        return read_trace(Path(scenario.arrivals.trace)).over(scenario.seconds).mean_per_s
    return load * quality_capacity(scenario, variants)


def candidates(asked: RequestClass, variants: Sequence[Variant]) -> tuple[Variant, ...]:
    """The eligible variants of a class of requests, best first."""
    may = (one for one in variants if one.task == asked.task and one.domain in (None, asked.domain))
    return tuple(sorted(may, key=lambda one: -one.quality))


def _core_s(scenario: Scenario, at: int, variants: Sequence[Variant]) -> float:
    """The core-seconds of one request of a class on the best variant of its task."""
    asked = scenario.requests[at]
    best = next(iter(candidates(asked, variants)), None)
    if best is None:
        raise ScenarioError(f"{scenario.name}: requests.{at}.task: no variant of the catalog does {asked.task}")
    low, high = asked.words
    words = (low + (high - low) * (step + 0.5) / _LENGTHS for step in range(_LENGTHS))
    text_s = fmean(best.cheapest_s(tokens_of(length)) for length in words)
    return asked.texts * text_s + (scenario.node.overhead_core_ms + scenario.node.served_core_ms) / 1000


MOST_REQUESTS = 5_000_000
"""The most requests of a run, limited by memory."""


def offered_of(scenario: Scenario, variants: Sequence[Variant], load: float, cv: float, seed: int) -> list[Offered]:
    """The requests of one run in order of arrival, from 0 s, warm-up included.

    Equal arguments give equal requests. Raises ScenarioError.
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
    """Arrival times at the rate of the pieces, in seconds from the start of the first piece.

    A renewal process with gamma interarrival times (mean 1, coefficient of variation `cv`; exponential at 1) is
    rescaled in time to the rate of the pieces. The process is stationary: the first gap is the residual life at a
    random time (Cox, "Renewal Theory", 1962, section 5.2). Otherwise every bursty run would begin with a burst.
    """
    shape, scale = 1 / cv**2, cv**2
    due = chance.random() * chance.gammavariate(shape + 1, scale)
    at_s = began_s = passed = 0.0
    for piece in pieces:
        while due - passed < piece.expected:
            at_s = max(at_s, began_s + piece.reached_s(due - passed))  # rounding could make a tiny gap negative
            yield at_s
            due += chance.gammavariate(shape, scale)
        began_s += piece.seconds
        passed += piece.expected


def rate_over_time(scenario: Scenario, rate_per_s: float) -> tuple[RatePiece, ...]:
    """The offered rate of a run: the warm-up at the shape's first rate, then the shape.

    A trace is scaled so that the mean of its replayed part is the run's rate. Raises ScenarioError.
    """
    shape = _shape(scenario.arrivals, scenario.seconds, rate_per_s, scenario.name)
    begin = shape[0].from_per_s
    warmup = (RatePiece.even(scenario.warmup_s, begin),) if scenario.warmup_s else ()
    return (*warmup, *shape)


def _shape(model: ArrivalModel, seconds: float, rate_per_s: float, name: str) -> tuple[RatePiece, ...]:
    if model.trace is not None:
        trace = read_trace(Path(model.trace)).over(seconds)
        if not trace.mean_per_s:
            raise ScenarioError(f"{name}: arrivals.trace: offers nothing in its first {seconds:g} s")
        return trace.scaled(rate_per_s / trace.mean_per_s).pieces
    if model.ramp is not None:
        return (RatePiece(seconds, model.ramp[0] * rate_per_s, model.ramp[1] * rate_per_s),)
    starts_s = [0.0, *(step.start_s for step in model.steps if step.start_s < seconds), seconds]
    factors = [1.0, *(step.factor for step in model.steps)]
    return tuple(
        RatePiece.even(end_s - start_s, factor * rate_per_s)
        for (start_s, end_s), factor in zip(pairwise(starts_s), factors, strict=False)
        if end_s > start_s
    )


class _Mixture:
    """Draws requests from the classes of a scenario by share, with a random stream for each class."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._classes = scenario.requests
        self._shares = list(accumulate(asked.share for asked in self._classes))
        self._kinds = range(len(self._classes))
        self._kind = random.Random(f"{seed} kinds")
        self._own = [random.Random(f"{seed} kind {kind}") for kind in self._kinds]

    def request(self, sequence: int, arrived_s: float) -> Offered:
        """Draws the next request."""
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
            parameters=asked.parameters,
            kind=kind,
        )
