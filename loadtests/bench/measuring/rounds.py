"""Compares contestants in shuffled rounds: order, valid rounds, medians, and ratios within a round.

When contestants alternate, a slow minute of a shared machine affects all of them, and cancels out of a ratio within a
round. Each benchmark passes `take_turns` a function that measures one slot.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import pi, sqrt
from statistics import median, stdev
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from rich.console import Console
from rich.progress import Progress

from loadtests.bench.measuring.report import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer

WARM_UP = 0
"""The number of the warm-up round, which does not count."""


class Sample(Protocol):
    """The measurement of one turn."""

    @property
    def invalid(self) -> str:
        """Why this turn's round does not count; empty if it counts."""


S = TypeVar("S", bound=Sample)


@dataclass(frozen=True)
class Slot:
    """One turn in the plan: contestant, round and load."""

    round: int
    load: int
    contestant: str


@dataclass(frozen=True)
class Turn(Generic[S]):
    """A slot with its measurement."""

    slot: Slot
    sample: S


@dataclass(frozen=True)
class Spread:
    """A figure's median, minimum and maximum over the rounds that count.

    `error` is the median's standard error, assuming normally distributed rounds; None for a single round.
    """

    median: float
    low: float
    high: float
    error: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """The spread of the values; None if there are none."""
        if not values:
            return None
        error = sqrt(pi / 2) * stdev(values) / sqrt(len(values)) if len(values) > 1 else None
        return cls(median(values), min(values), max(values), error)


@dataclass(frozen=True)
class Plan:
    """Contestants, loads, number of rounds, and length of a turn.

    A load is the whole number that a benchmark varies, such as connections or beams. One warm-up round runs first.
    """

    contestants: Sequence[str]
    loads: Sequence[int] = (1,)
    rounds: int = 5
    seconds: float = 1.0
    warm_up_seconds: float = 1.0
    seed: int = 20

    def slots(self) -> list[Slot]:
        """The order of turns: each contestant once at each load per round. Equal seeds give equal orders.

        Every round is shuffled, so that no contestant always follows the same one and inherits its heat or cache.
        Turns at one load are adjacent, so that compared figures were measured within the same minute.
        """
        rng = random.Random(self.seed)
        return [
            Slot(number, load, contestant)
            for number in range(WARM_UP, self.rounds + 1)
            for load in rng.sample(self.loads, len(self.loads))
            for contestant in rng.sample(self.contestants, len(self.contestants))
        ]

    def seconds_of(self, slot: Slot) -> float:
        """The length of a turn; a warm-up turn is never longer than the others."""
        return min(self.warm_up_seconds, self.seconds) if slot.round == WARM_UP else self.seconds


def take_turns(
    plan: Plan, measure: Callable[[Slot, float], S], console: Console, load_name: str | None = None
) -> Turns[S]:
    """Measures every slot of the plan in order, with a progress bar. Blocking.

    `measure` receives the slot and its length in seconds. `load_name` names the unit of a load.
    """
    slots = plan.slots()
    taken = []
    with Progress(console=console, refresh_per_second=1) as bar:  # drawing takes time on the measured machine
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
    """All turns taken. A round with an invalid turn counts for no contestant at that load."""

    taken: tuple[Turn[S], ...]

    @property
    def timed(self) -> list[Turn[S]]:
        """The turns of all rounds but the warm-up, whether these count or not."""
        return [turn for turn in self.taken if turn.slot.round != WARM_UP]

    def rounds(self, load: int = 1) -> list[int]:
        """The rounds that count at a load: all but the warm-up and rounds with an invalid turn."""
        here = [turn for turn in self.taken if turn.slot.load == load]
        invalid = {turn.slot.round for turn in here if turn.sample.invalid}
        return sorted({turn.slot.round for turn in here} - invalid - {WARM_UP})

    def by_round(self, contestant: str, load: int, measure: Callable[[S], float]) -> dict[int, float]:
        """A contestant's figure at a load in each round that counts."""
        counted = set(self.rounds(load))
        return {
            turn.slot.round: measure(turn.sample)
            for turn in self.taken
            if turn.slot.round in counted and turn.slot.load == load and turn.slot.contestant == contestant
        }

    def spread(self, contestant: str, load: int, measure: Callable[[S], float]) -> Spread | None:
        """A contestant's figure at a load over the rounds that count; None if none counts."""
        return Spread.of(list(self.by_round(contestant, load, measure).values()))

    def ratios(self, contestant: str, baseline: str, load: int, measure: Callable[[S], float]) -> list[float]:
        """The contestant's figure divided by the baseline's, in each round that counts and has both."""
        theirs = self.by_round(baseline, load, measure)
        ours = self.by_round(contestant, load, measure)
        return [value / theirs[number] for number, value in ours.items() if theirs.get(number)]

    def ratio(self, contestant: str, baseline: str, load: int, measure: Callable[[S], float]) -> Spread | None:
        """The spread of those ratios; None if no round counts."""
        return Spread.of(self.ratios(contestant, baseline, load, measure))

    def cautions(self, load_name: str | None = None) -> list[str]:
        """A sentence for each invalid turn, warm-up included."""
        return [
            f"{turn.slot.contestant}{f' at {turn.slot.load} {load_name}' if load_name else ''}: {turn.sample.invalid}; "
            f"round {turn.slot.round or '(warm-up)'} does not count{' at that load' if load_name else ''}"
            for turn in self.taken
            if turn.sample.invalid
        ]


@dataclass(frozen=True)
class Target:
    """A bound on a ratio to a baseline. The target is missed if `ratio` is None: no round counts."""

    what: str
    baseline: str
    ratio: Spread | None
    bound: float
    at_most: bool = True

    @property
    def met(self) -> bool:
        """True if the median ratio is within the bound."""
        if self.ratio is None:
            return False
        return self.ratio.median <= self.bound if self.at_most else self.ratio.median >= self.bound

    def verdict(self) -> Verdict:
        """The target in a sentence, with its margin as a percentage of the bound."""
        wanted = f"{self.what}: {'at most' if self.at_most else 'at least'} {self.bound:g} × {self.baseline}'s"
        if self.ratio is None:
            return Verdict(f"{wanted}: not measured, no round counts", met=False)
        margin = abs(self.ratio.median / self.bound - 1)
        return Verdict(f"{wanted}: {'met' if self.met else 'missed'} by {margin:.0%}: {shown(self.ratio)}", self.met)


def shown(spread: Spread | None, form: str = ".2f", scale: float = 1.0) -> str:
    """A spread as text, `median (minimum to maximum)`, each times `scale`; a dash if there is none."""
    if spread is None:
        return "-"
    middle, low, high = (format(value * scale, form) for value in (spread.median, spread.low, spread.high))
    return f"{middle} ({low} to {high})"


def draw_medians(
    axes: Axes, spreads: Mapping[str, Spread], colours: Sequence[str], ink: str, scale: float = 1.0
) -> BarContainer:
    """Draws one bar per median, with a whisker from minimum to maximum, each times `scale`. The first is on top."""
    found = spreads.values()
    below = [(one.median - one.low) * scale for one in found]
    above = [(one.high - one.median) * scale for one in found]
    medians = [one.median * scale for one in found]
    bars = axes.barh(list(spreads), medians, xerr=[below, above], color=colours, ecolor=ink)
    axes.invert_yaxis()
    return bars
