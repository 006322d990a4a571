"""A trace of offered load: a rate that is constant from each of its rows to the next.

It knows the columns `start_s,rate_per_s`; which requests come at that rate is `arrivals`' business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path

from loadtests.scenarios.errors import ScenarioError
from loadtests.scenarios.tables import Row, read_table

COLUMNS = ("start_s", "rate_per_s")
HIGHEST_RATE = 1e9
LATEST_S = 1e12
SHORTEST_S = 0.01


@dataclass(frozen=True, slots=True)
class Interval:
    """So many seconds at one rate."""

    seconds: float
    rate_per_s: float

    @property
    def expected(self) -> float:
        """The requests to expect in it."""
        return self.seconds * self.rate_per_s


@dataclass(frozen=True, slots=True)
class Trace:
    """Intervals one after another, from 0 s on."""

    intervals: tuple[Interval, ...]

    @property
    def seconds(self) -> float:
        """How long it is."""
        return sum(interval.seconds for interval in self.intervals)

    @property
    def mean_per_s(self) -> float:
        """Its mean rate."""
        return sum(interval.expected for interval in self.intervals) / self.seconds

    def over(self, seconds: float) -> Trace:
        """The same cut to so many seconds, or repeated until there are as many."""
        return Trace(tuple(self._until(seconds)))

    def scaled(self, factor: float) -> Trace:
        """The same at so many times its rates."""
        return Trace(tuple(Interval(one.seconds, factor * one.rate_per_s) for one in self.intervals))

    def _until(self, seconds: float) -> Iterator[Interval]:
        left_s = seconds
        for interval in cycle(self.intervals):
            if left_s <= interval.seconds:
                yield Interval(left_s, interval.rate_per_s)
                return
            yield interval
            left_s -= interval.seconds


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
    return Trace(tuple(map(Interval, (*lengths_s, lengths_s[-1]), rates)))


def _length(row: Row, seconds: float) -> float:
    if seconds <= 0:
        raise row.fault("start_s", "must be later than in the row before")
    if seconds < SHORTEST_S:
        raise row.fault("start_s", f"must be at least {SHORTEST_S:g} later than in the row before")
    return seconds
