"""Ways for texts to share an engine, in numbers: who was measured, ratios within rounds, and which one to take.

Pure arithmetic over the turns. Durations are in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median

from deployments.replica.summarize.time_slicing import TURN_S
from loadtests.offered_load import Quantiles
from loadtests.turns import WARM_UP, Spread

CORES = 2
"""What every arrangement has, whether as threads of one lane or as lanes of one thread."""


@dataclass(frozen=True)
class Arrangement:
    """How an engine is shared: so many texts at once, on so many threads each, a turn of each after the other."""

    name: str
    slots: int
    threads: int
    turn_s: float


BASELINE = "one after another"
ARRANGEMENTS = (
    Arrangement(BASELINE, 1, CORES, inf),
    Arrangement("in turns", 1, CORES, TURN_S),
    Arrangement("two workers, one after another", CORES, 1, inf),
    Arrangement("two workers in turns", CORES, 1, TURN_S),
)


@dataclass(frozen=True)
class SharingTurn:
    """One arrangement's turn beside so many long texts at once.

    Latencies of the short texts count from when they were due, those of the long ones from their submission; `lag` is
    by how much the short ones were sent too late, `others` the share of the machine that was busy with something else.
    """

    round: int
    longs: int
    arrangement: str
    short: Quantiles | None
    long: Quantiles | None
    shorts: int
    tokens_per_s: float
    lag: Quantiles | None
    others: float

    @property
    def complete(self) -> bool:
        """Whether it has all figures: a short turn may end before one of its texts does."""
        return self.short is not None and self.long is not None


@dataclass(frozen=True)
class BatchTurn:
    """What a step of `rows` rows takes, and so many steps of one row."""

    round: int
    rows: int
    together_s: float
    apart_s: float

    @property
    def gain(self) -> float:
        """How many times the tokens a batch writes in the same time."""
        return self.apart_s / self.together_s


Measure = Callable[[SharingTurn], float]


def short_p50(turn: SharingTurn) -> float:
    """The median latency of the short texts."""
    return _found(turn.short).p50_s


def short_p95(turn: SharingTurn) -> float:
    """The 95th percentile of the short texts' latency: what the verdict goes by."""
    return _found(turn.short).p95_s


def long_p50(turn: SharingTurn) -> float:
    """The median latency of the long texts."""
    return _found(turn.long).p50_s


def tokens_per_s(turn: SharingTurn) -> float:
    """What is written a second, of short and long texts together."""
    return turn.tokens_per_s


@dataclass(frozen=True)
class SharingTurns:
    """Every turn taken. A round in which any turn is incomplete does not count at that number of long texts."""

    taken: tuple[SharingTurn, ...]

    def rounds(self, longs: int) -> list[int]:
        """The rounds that count beside so many long texts: not the warm-up, all turns complete."""
        here = [turn for turn in self.taken if turn.longs == longs]
        return sorted({turn.round for turn in here} - {turn.round for turn in here if not turn.complete} - {WARM_UP})

    def counted(self) -> list[SharingTurn]:
        """The turns of all rounds that count."""
        return [turn for turn in self.taken if turn.round in self.rounds(turn.longs)]

    def spread(self, arrangement: str, longs: int, measure: Measure) -> Spread | None:
        """An arrangement's measure over the rounds that count, or None where none does."""
        values = list(self._by_round(arrangement, longs, measure).values())
        return Spread.of(values) if values else None

    def ratio(self, arrangement: str, longs: int, measure: Measure) -> Spread | None:
        """The measure over the baseline's, taken within each round, then over the rounds that count."""
        ours, theirs = (self._by_round(name, longs, measure) for name in (arrangement, BASELINE))
        ratios = [value / theirs[number] for number, value in ours.items() if theirs.get(number)]
        return Spread.of(ratios) if ratios else None

    def first_in(self, arrangement: str, longs: int, measure: Measure) -> int:
        """In how many of the rounds that count no other arrangement's measure is less."""
        by_name = {one.name: self._by_round(one.name, longs, measure) for one in ARRANGEMENTS}
        own = by_name[arrangement]
        return sum(all(value <= other.get(number, inf) for other in by_name.values()) for number, value in own.items())

    def _by_round(self, arrangement: str, longs: int, measure: Measure) -> dict[int, float]:
        counted = set(self.rounds(longs))
        return {
            turn.round: measure(turn)
            for turn in self.taken
            if turn.arrangement == arrangement and turn.longs == longs and turn.round in counted
        }


@dataclass(frozen=True)
class Verdict:
    """The arrangement with the lowest p95 of short texts beside so many long ones, what it costs, and the next best.

    Ratios are to the baseline.
    """

    longs: int
    best: str
    p95_s: Spread
    p95_ratio: Spread
    tokens_ratio: Spread
    next_best: str
    next_p95_ratio: Spread
    first_in: int
    rounds: int

    @property
    def clear(self) -> bool:
        """Whether it is the best in every round that counts."""
        return self.first_in == self.rounds

    def sentence(self) -> str:
        """The verdict with its figures."""
        beside = f"beside {self.longs} long text{'' if self.longs == 1 else 's'}"
        change = self.tokens_ratio.median - 1
        tokens = f", with {abs(change):.0%} {'fewer' if change < 0 else 'more'} tokens/s, {_times(self.tokens_ratio)}"
        return (
            f"{beside}: {self.best} has the lowest p95 of short texts, {self.p95_s.median * 1000:.0f} ms, "
            f"in {self.first_in} of {self.rounds} rounds"
            + (f": {_times(self.p95_ratio)} that of {BASELINE}{tokens}" if self.best != BASELINE else "")
            + f"; next: {self.next_best}, {_times(self.next_p95_ratio)}"
        )


def verdict(turns: SharingTurns, longs: int) -> Verdict | None:
    """By the median of the ratios within rounds, so that a slow minute decides nothing; None where no round counts."""
    ratios = {one.name: turns.ratio(one.name, longs, short_p95) for one in ARRANGEMENTS}
    measured = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    if not measured:
        return None
    best, following = sorted(measured, key=lambda name: measured[name].median)[:2]
    p95, tokens = turns.spread(best, longs, short_p95), turns.ratio(best, longs, tokens_per_s)
    assert p95 is not None and tokens is not None, "a round that counts has every arrangement's turn"
    return Verdict(
        longs=longs,
        best=best,
        p95_s=p95,
        p95_ratio=measured[best],
        tokens_ratio=tokens,
        next_best=following,
        next_p95_ratio=measured[following],
        first_in=turns.first_in(best, longs, short_p95),
        rounds=len(turns.rounds(longs)),
    )


def batch_sentence(batches: Sequence[BatchTurn]) -> str:
    """What continuous batching would gain at most, over the rounds but the warm-up."""
    counted = [one for one in batches if one.round != WARM_UP]
    if not counted:
        return "a batch: not measured"
    rows = counted[0].rows
    together_ms = median(one.together_s for one in counted) * 1000
    apart_ms = median(one.apart_s for one in counted) * 1000
    return (
        f"a batch of {rows} would write at most {_times(Spread.of([one.gain for one in counted]))} the tokens of "
        f"{rows} texts in turns: {together_ms:.1f} ms for a step of {rows} rows, {apart_ms:.1f} ms for {rows} steps of "
        "one; the graphs cannot do it, as texts of different progress share no step"
    )


def _found(quantiles: Quantiles | None) -> Quantiles:
    assert quantiles is not None, "a round that counts has all figures"
    return quantiles


def _times(ratio: Spread) -> str:
    return f"{ratio.median:.2f} × ({ratio.low:.2f} to {ratio.high:.2f})"
