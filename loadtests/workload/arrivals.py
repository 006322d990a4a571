"""The requests of one run: when they arrive, of which class they are, what they grant and how long their texts are.

Chance is seeded and parted: instants, classes and each class's own draws come from streams of their own. So runs that
differ in load or policy see the same requests in the same order, at instants that are only drawn nearer together or
further apart; and a class more in the mixture leaves the others' draws as they were.

A load of 1 is the rate that the best variant of each task alone could just serve.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate, cycle, pairwise
from pathlib import Path
from statistics import fmean

from loadtests.workload.files import Row, ScenarioError, read_table
from loadtests.workload.scenario import ArrivalModel, RequestClass, Scenario, tokens_of
from loadtests.workload.variants import Variant


class Fate(StrEnum):
    """How a request ended; OPEN while it has not."""

    OPEN = "open"
    IN_TIME = "in_time"
    LATE = "late"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(slots=True, eq=False)
class Offered:
    """One request on the virtual clock, in seconds. `tokens` is the length of each of its texts.

    `kind` is its class in the scenario's mixture. What became of it is written once, by `World.finish`; `engine_s` are
    the core-seconds that its runs took, its equal share of each. `predicted_s` and `quantile_s` are the forecast from
    its arrival that it was decided on, where the policy makes one.
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
    kind: int = 0
    fate: Fate = Fate.OPEN
    variant: str | None = None
    finished_s: float = 0.0
    engine_s: float = 0.0
    predicted_s: float | None = None
    quantile_s: float | None = None

    @property
    def deadline_s(self) -> float:
        """The instant by which it should be answered."""
        return self.arrived_s + self.budget_s


COLUMNS = ("start_s", "rate_per_s")
HIGHEST_RATE = 1e9
LATEST_S = 1e12
SHORTEST_S = 0.01


@dataclass(frozen=True, slots=True)
class RatePiece:
    """A stretch of time over which the rate changes evenly from one value to another, in requests/s."""

    seconds: float
    from_per_s: float
    to_per_s: float

    @classmethod
    def even(cls, seconds: float, per_s: float) -> RatePiece:
        """A stretch at one rate."""
        return cls(seconds, per_s, per_s)

    @property
    def expected(self) -> float:
        """The requests expected in it."""
        return self.seconds * (self.from_per_s + self.to_per_s) / 2

    def reached_s(self, requests: float) -> float:
        """The second of the stretch by which this many requests are expected, at most `expected` of them.

        The positive root of from·t + (to - from)·t²/(2·seconds) = requests, in the form that also holds for a rate
        that does not change.
        """
        bend = (self.to_per_s - self.from_per_s) / self.seconds
        root = math.sqrt(max(self.from_per_s * self.from_per_s + 2 * bend * requests, 0.0))
        slowest = self.from_per_s + root
        return min(2 * requests / slowest, self.seconds) if slowest > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Trace:
    """Stretches one after another, from 0 s on, each at one rate."""

    pieces: tuple[RatePiece, ...]

    @property
    def seconds(self) -> float:
        """How long it is."""
        return sum(piece.seconds for piece in self.pieces)

    @property
    def mean_per_s(self) -> float:
        """Its mean rate."""
        return sum(piece.expected for piece in self.pieces) / self.seconds

    def over(self, seconds: float) -> Trace:
        """Cut to a length, or repeated until it has that length."""
        return Trace(tuple(self._until(seconds)))

    def scaled(self, factor: float) -> Trace:
        """With every rate multiplied."""
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
    """The trace of a CSV. Raises ScenarioError.

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
"""The number of lengths, evenly spread over the span, over which the mean cost of a text is taken."""


def quality_capacity(scenario: Scenario, variants: Sequence[Variant]) -> float:
    """The requests/s of a mixture that keep all cores busy, each served by the best variant of its task.

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
    """The variants that may answer a class of requests, the best first."""
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


MOST_REQUESTS = 5_000_000
"""A run that would offer more requests is refused: it would not fit in memory."""


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
