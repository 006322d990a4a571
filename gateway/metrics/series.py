"""Counters and histograms that cost a request and a scrape next to nothing: a number, behind a line that is ready.

They stand where every request passes and where most of a scrape's lines come from. The library's own take a lock for
each increment and a dictionary, a sort and three escapes for each line: three times as long to count one request, and
ten milliseconds of the event loop for a thousand lines. One writer, the event loop; so these take no lock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf
from typing import Protocol

from prometheus_client.utils import floatToGoString


class Count:
    """A counter's one series: `value` only ever rises."""

    __slots__ = ("_line", "value")

    def __init__(self, name: str, labels: str) -> None:
        self._line = f"{name}_total{{{labels}}} " if labels else f"{name}_total "
        self.value: float = 0

    def lines(self) -> Iterator[str]:
        """Its one line."""
        yield f"{self._line}{self.value}\n"


class Distribution:
    """A histogram's one series. It says nothing before its first observation."""

    __slots__ = ("_bounds", "_counts", "_lines", "_sum", "_sum_line")

    def __init__(self, name: str, labels: str, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        ends = [f'{name}_bucket{{{labels},le="{bound_text(bound)}"}} ' for bound in (*bounds, inf)]
        self._lines = [*ends, f"{name}_count{{{labels}}} "]
        self._sum_line = f"{name}_sum{{{labels}}} "

    def observe(self, value: float) -> None:
        """Counts a value into the least bucket that holds it."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self) -> Iterator[str]:
        """Its buckets, each with all below it, the count and the sum."""
        upto = list(accumulate(self._counts))
        if upto[-1]:
            for line, count in zip(self._lines, (*upto, upto[-1]), strict=True):
                yield f"{line}{count}\n"
            yield f"{self._sum_line}{self._sum!r}\n"


class _Series(Protocol):
    def lines(self) -> Iterator[str]:
        """As they stand in the text format."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: what it is, by which labels it is told apart, and every series of it that there will be."""

    name: str
    about: str
    labels: tuple[str, ...]
    bounds: Sequence[float] = ()
    _series: list[_Series] = field(default_factory=list, init=False)

    def count(self, *values: str) -> Count:
        """A new series of a counter, at 0."""
        series = Count(self.name, _pairs(self.labels, values))
        self._series.append(series)
        return series

    def distribution(self, *values: str) -> Distribution:
        """A new series of a histogram."""
        series = Distribution(self.name, _pairs(self.labels, values), self.bounds)
        self._series.append(series)
        return series

    def text(self) -> str:
        """The family in the text format; nothing while there is no line of it."""
        name, kind = (self.name, "histogram") if self.bounds else (f"{self.name}_total", "counter")
        lines = "".join([line for series in self._series for line in series.lines()])
        return f"# HELP {name} {self.about}\n# TYPE {name} {kind}\n{lines}" if lines else ""


def bound_text(bound: float) -> str:
    """The upper bound of a bucket as its label has it."""
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]  # the library's own, so that all agree


def escaped(value: str) -> str:
    """A label's value as it stands between the quotes."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _pairs(labels: Sequence[str], values: Sequence[str]) -> str:
    return ",".join(f'{label}="{escaped(value)}"' for label, value in zip(labels, values, strict=True))
