"""A classifier alone and beside a busy summarizer, in numbers: the order of turns, ratios within rounds, faults.

Pure arithmetic: it knows neither how a load is made nor who is asked. Durations are in seconds.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from loadtests.offered_load import Ending, LoadReport, Quantiles
from loadtests.turns import WARM_UP, Spread

P95_CEILING = 1.3
BUSY_FLOOR = 0.95
"""The least share of a turn beside which the neighbour must have had work under way, for the turn to be one."""


class Company(StrEnum):
    """What the classifier's requests meet."""

    ALONE = "alone"
    BESIDE = "beside"


@dataclass(frozen=True)
class Place:
    """One turn's place in the order: its round, of which the warm-up's does not count, and the company."""

    round: int
    company: Company


@dataclass(frozen=True)
class Finished:
    """One of the neighbour's summaries: from when to when, on the turn's clock, and the engine's time for it."""

    began_s: float
    ended_s: float
    service_time_s: float
    failure: str | None = None


@dataclass(frozen=True)
class Neighbour:
    """What the summarizers did within one turn: summaries, in part where they reach out of it, and their shares of it.

    `asked_share` is the part of the turn with a summary under way, `engine_share` that with the engine at work on one,
    both of each client on average.
    """

    summaries: float
    per_s: float
    asked_share: float
    engine_share: float
    failures: dict[str, int]


@dataclass(frozen=True)
class Turn:
    """A place, the classifier's load there, and the neighbour where there was one."""

    place: Place
    load: LoadReport
    neighbour: Neighbour | None = None


@dataclass(frozen=True)
class Round:
    """Both turns of a round."""

    alone: Turn
    beside: Turn

    @property
    def number(self) -> int:
        """Which it is, from 1."""
        return self.alone.place.round

    @property
    def p50_ratio(self) -> float:
        """The median beside over the median alone."""
        return _latency(self.beside).p50_s / _latency(self.alone).p50_s

    @property
    def p95_ratio(self) -> float:
        """The 95th percentile beside over that alone."""
        return _latency(self.beside).p95_s / _latency(self.alone).p95_s


def order(rounds: int, seed: int) -> Iterator[Place]:
    """A warm-up round, then so many; whether a round begins alone is drawn anew. Equal seeds, equal orders."""
    chance = random.Random(seed)
    for number in range(WARM_UP, rounds + 1):
        for company in chance.sample(list(Company), len(Company)):
            yield Place(number, company)


def neighbour_within(finished: Sequence[Finished], began_s: float, ended_s: float, clients: int) -> Neighbour:
    """What so many clients' summaries amount to between two instants; one that reaches out counts by its part."""
    lasted_s = ended_s - began_s
    summaries = asked_s = engine_s = 0.0
    for one in finished:
        inside_s = max(0.0, min(one.ended_s, ended_s) - max(one.began_s, began_s))
        part = inside_s / (one.ended_s - one.began_s) if inside_s else 0.0
        asked_s += inside_s
        summaries += part if one.failure is None else 0.0
        engine_s += part * one.service_time_s
    return Neighbour(
        summaries=summaries,
        per_s=summaries / lasted_s,
        asked_share=asked_s / lasted_s / clients,
        engine_share=engine_s / lasted_s / clients,
        failures=dict(Counter(one.failure for one in finished if one.failure is not None)),
    )


def counted_rounds(turns: Sequence[Turn]) -> list[Round]:
    """The rounds but the warm-up, those in which the classifier answered in both turns."""
    answered = {turn.place: turn for turn in turns if turn.load.latency is not None and turn.place.round != WARM_UP}
    found = []
    for number in sorted({place.round for place in answered}):
        alone, beside = (answered.get(Place(number, company)) for company in Company)
        if alone is not None and beside is not None:
            found.append(Round(alone, beside))
    return found


def p95_ratio(turns: Sequence[Turn]) -> Spread | None:
    """The ratio over the rounds that count, or None where none does."""
    ratios = [one.p95_ratio for one in counted_rounds(turns)]
    return Spread.of(ratios) if ratios else None


def faults(turns: Sequence[Turn]) -> list[str]:
    """What makes the figures worth nothing, in words: a late generator, a neighbour at rest, requests that failed."""
    found = []
    for turn in turns:
        if turn.place.round == WARM_UP:
            continue
        where = f"round {turn.place.round}, {turn.place.company}"
        if not turn.load.valid and turn.load.lag is not None:
            found.append(f"{where}: the generator sent late, p99 {turn.load.lag.p99_s * 1000:.1f} ms")
        if not turn.load.offered:
            found.append(f"{where}: nothing was offered")
        lost = {ending: turn.load.endings[ending] for ending in (Ending.REFUSED, Ending.FAILED, Ending.HUNG)}
        found += [f"{where}: {count} classifications {ending}" for ending, count in lost.items() if count]
        if turn.neighbour is not None:
            found += [f"{where}: {count} summaries failed: {why}" for why, count in turn.neighbour.failures.items()]
            if turn.neighbour.asked_share < BUSY_FLOOR:
                found.append(f"{where}: the summarizer was kept busy for {turn.neighbour.asked_share:.0%} only")
    return found


def met(turns: Sequence[Turn]) -> bool:
    """Whether the median ratio keeps the bound in a run without a fault."""
    ratio = p95_ratio(turns)
    return ratio is not None and ratio.median <= P95_CEILING and not faults(turns)


def _latency(turn: Turn) -> Quantiles:
    assert turn.load.latency is not None, "a round that counts has answers in both turns"
    return turn.load.latency
