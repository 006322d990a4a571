"""A race in numbers: turns of contestants under a load, which rounds count, and what is compared of them.

Pure arithmetic: it knows neither who runs nor how a load is made. Durations are in seconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

WARM_UP = 0
"""The number of the round that is run and not counted."""


@dataclass(frozen=True)
class Sample:
    """What one turn gave: answers, errors among them or instead of them, and quantiles of the latency."""

    requests: int
    errors: int
    duration_s: float
    p50_s: float
    p90_s: float
    p99_s: float

    @property
    def throughput(self) -> float:
        """Answers a second."""
        return self.requests / self.duration_s


@dataclass(frozen=True)
class Slot:
    """One place in the order of a race: who runs, in which round, over how many connections."""

    round: int
    connections: int
    contestant: str


@dataclass(frozen=True)
class Turn:
    """A slot and its sample."""

    slot: Slot
    sample: Sample


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds: its median, the least and the most."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of one value or more."""
        return cls(median(values), min(values), max(values))


Measure = Callable[[Sample], float]


def median_latency(sample: Sample) -> float:
    """The measure at one connection: seconds, the less the better."""
    return sample.p50_s


def throughput(sample: Sample) -> float:
    """The measure at many connections: answers a second, the more the better."""
    return sample.throughput


def schedule(contestants: Sequence[str], loads: Sequence[int], rounds: int, seed: int) -> Iterator[Slot]:
    """The order of a race: a warm-up round, then `rounds` more, in each of which everyone has one turn at each load.

    Who follows whom is shuffled anew every time, so no contestant always inherits another's heat or cache; the turns
    at one load stand together, so that what is compared was measured in the same minute. Equal seeds, equal orders.
    """
    chance = random.Random(seed)
    for number in range(WARM_UP, rounds + 1):
        for connections in chance.sample(loads, len(loads)):
            for contestant in chance.sample(contestants, len(contestants)):
                yield Slot(number, connections, contestant)


@dataclass(frozen=True)
class Turns:
    """Every turn of a race. A round in which any turn at a load had an error does not count at that load."""

    taken: tuple[Turn, ...]

    def rounds(self, connections: int) -> list[int]:
        """The rounds that count at a load: complete, without an error, and not the warm-up."""
        at_load = [turn for turn in self.taken if turn.slot.connections == connections]
        spoilt = {turn.slot.round for turn in at_load if turn.sample.errors or not turn.sample.requests}
        return sorted({turn.slot.round for turn in at_load} - spoilt - {WARM_UP})

    def spoilt(self) -> list[Turn]:
        """The turns that had errors or no answer at all, the warm-up's too."""
        return [turn for turn in self.taken if turn.sample.errors or not turn.sample.requests]

    def spread(self, contestant: str, connections: int, measure: Measure) -> Spread | None:
        """A contestant's measure at a load over the rounds that count, or None where none does."""
        values = list(self._by_round(contestant, connections, measure).values())
        return Spread.of(values) if values else None

    def ratio(self, contestant: str, baseline: str, connections: int, measure: Measure) -> Spread | None:
        """The contestant's measure over the baseline's, taken within each round, then over the rounds that count."""
        ours = self._by_round(contestant, connections, measure)
        theirs = self._by_round(baseline, connections, measure)
        ratios = [value / theirs[number] for number, value in ours.items() if theirs.get(number)]
        return Spread.of(ratios) if ratios else None

    def _by_round(self, contestant: str, connections: int, measure: Measure) -> dict[int, float]:
        counted = set(self.rounds(connections))
        return {
            turn.slot.round: measure(turn.sample)
            for turn in self.taken
            if turn.slot.round in counted
            and turn.slot.connections == connections
            and turn.slot.contestant == contestant
        }
