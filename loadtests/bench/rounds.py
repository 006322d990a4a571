"""Contestants that take turns in shuffled rounds: the order, which rounds count, medians, and ratios within a round.

A slow minute of a shared machine falls on everyone when they alternate, and falls out of a ratio taken within a round.
It knows neither who runs nor how a load is made: a benchmark gives `take_turns` a function that measures one slot.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import pi, sqrt
from statistics import median, stdev
from typing import Generic, Protocol, TypeVar

from rich.console import Console
from rich.progress import Progress

from loadtests.bench.report import Verdict

WARM_UP = 0
"""The number of the round that is run and not counted."""


class Sample(Protocol):
    """What one turn gave."""

    @property
    def spoilt(self) -> str:
        """Why this turn's round does not count, in words; empty if it does."""


S = TypeVar("S", bound=Sample)


@dataclass(frozen=True)
class Slot:
    """One place in the order: who runs, in which round, under which load."""

    round: int
    load: int
    contestant: str


@dataclass(frozen=True)
class Turn(Generic[S]):
    """A slot and its sample."""

    slot: Slot
    sample: S


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds that count: its median, the least and the most.

    `error` is the standard error of the median, as if rounds were drawn from a normal distribution; None of one round.
    """

    median: float
    low: float
    high: float
    error: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """The spread of the values, or None of nothing."""
        if not values:
            return None
        error = sqrt(pi / 2) * stdev(values) / sqrt(len(values)) if len(values) > 1 else None
        return cls(median(values), min(values), max(values), error)


@dataclass(frozen=True)
class Plan:
    """Who takes turns, under which loads, for how many rounds, and how long a turn lasts.

    A load is the whole number that a benchmark varies, such as connections or beams. Before the rounds that count, one
    is run to warm up.
    """

    contestants: Sequence[str]
    loads: Sequence[int] = (1,)
    rounds: int = 5
    seconds: float = 1.0
    warm_up_seconds: float = 1.0
    seed: int = 20

    def slots(self) -> list[Slot]:
        """The order: in each round everyone has one turn at each load. Equal seeds, equal orders.

        Who follows whom is shuffled in every round, so that nobody always inherits another's heat or cache. The turns
        at one load stand together, so that what is compared was measured in the same minute.
        """
        chance = random.Random(self.seed)
        return [
            Slot(number, load, contestant)
            for number in range(WARM_UP, self.rounds + 1)
            for load in chance.sample(self.loads, len(self.loads))
            for contestant in chance.sample(self.contestants, len(self.contestants))
        ]

    def seconds_of(self, slot: Slot) -> float:
        """How long a turn lasts; one to warm up is never longer than the others."""
        return min(self.warm_up_seconds, self.seconds) if slot.round == WARM_UP else self.seconds


def take_turns(
    plan: Plan, measure: Callable[[Slot, float], S], console: Console, load_name: str | None = None
) -> Turns[S]:
    """Measures every slot of the plan, one after the other, and shows how far it is. Blocking.

    `measure` is given the slot and how many seconds it may last. `load_name` says what the number of a load counts.
    """
    slots = plan.slots()
    taken = []
    with Progress(console=console, refresh_per_second=1) as bar:  # the machine that is measured draws it, so seldom
        line = bar.add_task("warming up", total=sum(map(plan.seconds_of, slots)))
        for slot in slots:
            stage = "warming up" if slot.round == WARM_UP else f"round {slot.round} of {plan.rounds}"
            under = f", {slot.load} {load_name}" if load_name else ""
            bar.update(line, description=f"{stage}: {slot.contestant}{under}")
            taken.append(Turn(slot, measure(slot, plan.seconds_of(slot))))
            bar.advance(line, plan.seconds_of(slot))
    return Turns(tuple(taken))


@dataclass(frozen=True)
class Turns(Generic[S]):
    """All turns that were taken. A round with a spoilt turn does not count at that load, for anyone."""

    taken: tuple[Turn[S], ...]

    def rounds(self, load: int = 1) -> list[int]:
        """The rounds that count at a load: not the warm-up, and no turn of it spoilt."""
        here = [turn for turn in self.taken if turn.slot.load == load]
        spoilt = {turn.slot.round for turn in here if turn.sample.spoilt}
        return sorted({turn.slot.round for turn in here} - spoilt - {WARM_UP})

    def by_round(self, contestant: str, load: int, measure: Callable[[S], float]) -> dict[int, float]:
        """A contestant's measure at a load in each round that counts."""
        counted = set(self.rounds(load))
        return {
            turn.slot.round: measure(turn.sample)
            for turn in self.taken
            if turn.slot.round in counted and turn.slot.load == load and turn.slot.contestant == contestant
        }

    def spread(self, contestant: str, load: int, measure: Callable[[S], float]) -> Spread | None:
        """A contestant's measure at a load over the rounds that count, or None if none does."""
        return Spread.of(list(self.by_round(contestant, load, measure).values()))

    def ratios(self, contestant: str, baseline: str, load: int, measure: Callable[[S], float]) -> list[float]:
        """The contestant's measure over the baseline's, in each round that counts and has both."""
        theirs = self.by_round(baseline, load, measure)
        ours = self.by_round(contestant, load, measure)
        return [value / theirs[number] for number, value in ours.items() if theirs.get(number)]

    def ratio(self, contestant: str, baseline: str, load: int, measure: Callable[[S], float]) -> Spread | None:
        """The ratios within each round, over the rounds that count; None if none does."""
        return Spread.of(self.ratios(contestant, baseline, load, measure))

    def cautions(self, load_name: str | None = None) -> list[str]:
        """A sentence on each spoilt turn, those of the warm-up too."""
        return [
            f"{turn.slot.contestant}{f' at {turn.slot.load} {load_name}' if load_name else ''}: {turn.sample.spoilt}; "
            f"round {turn.slot.round or '(warm-up)'} does not count{' at that load' if load_name else ''}"
            for turn in self.taken
            if turn.sample.spoilt
        ]


@dataclass(frozen=True)
class Target:
    """A bound on a ratio to a baseline. `ratio` is None if no round counts; then the target is missed."""

    what: str
    baseline: str
    ratio: Spread | None
    bound: float
    at_most: bool = True

    @property
    def met(self) -> bool:
        """Whether the median ratio keeps the bound."""
        if self.ratio is None:
            return False
        return self.ratio.median <= self.bound if self.at_most else self.ratio.median >= self.bound

    def verdict(self) -> Verdict:
        """The target in a sentence, with the margin in per cent of the bound."""
        wanted = f"{self.what}: {'at most' if self.at_most else 'at least'} {self.bound:g} × {self.baseline}'s"
        if self.ratio is None:
            return Verdict(f"{wanted}: not measured, no round counts", met=False)
        margin = abs(self.ratio.median / self.bound - 1)
        return Verdict(f"{wanted}: {'met' if self.met else 'missed'} by {margin:.0%}: {shown(self.ratio)}", self.met)


def shown(spread: Spread | None, form: str = ".2f", scale: float = 1.0) -> str:
    """A spread as text, `median (least to most)`, each times `scale`; a dash if there is none."""
    if spread is None:
        return "-"
    middle, low, high = (format(value * scale, form) for value in (spread.median, spread.low, spread.high))
    return f"{middle} ({low} to {high})"
