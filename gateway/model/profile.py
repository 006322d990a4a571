"""The latency profile: measured service time by batch size and token length, interpolated in between.

It knows only numbers; `exporters/profiling.py` measures them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypedDict

from pydantic import BaseModel, ConfigDict, Field

_Z95 = NormalDist().inv_cdf(0.95)


class ProfileCell(BaseModel):
    """Service time of one (batch size, token length), over `samples` timed runs; durations in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch: int = Field(ge=1)
    tokens: int = Field(ge=1)
    samples: int = Field(ge=1)
    p50_s: float = Field(gt=0)
    p95_s: float = Field(gt=0)
    min_s: float = Field(gt=0)
    max_s: float = Field(gt=0)


class CellMs(TypedDict):
    """The service time of one (batch size, token length) as people read it, in milliseconds."""

    batch: int
    tokens: int
    p50: float
    p95: float


class LoneCell(BaseModel):
    """The time of a lone run of so many tokens as a share of that of a usual run; medians of runs in turns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: int = Field(ge=1)
    share: float = Field(gt=0)


class LoneDocument(BaseModel):
    """Lone runs as stored in a manifest: the threads of one, more than a usual run has, and cells by tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int = Field(ge=2)
    cells: tuple[LoneCell, ...] = Field(min_length=1)


class ProfileDocument(BaseModel):
    """The profile as stored in a manifest: a full grid of cells, and the host and threads that it applies to.

    `lone` is there if lone runs were measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int = Field(ge=1)
    measured_on: str
    cells: tuple[ProfileCell, ...] = Field(min_length=1)
    lone: LoneDocument | None = None

    def cells_ms(self) -> list[CellMs]:
        """The cells as people read them: medians and 95th percentiles in milliseconds."""
        return [
            {"batch": cell.batch, "tokens": cell.tokens, "p50": _ms(cell.p50_s), "p95": _ms(cell.p95_s)}
            for cell in self.cells
        ]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


@dataclass(frozen=True)
class LatencyProfile:
    """Service time as a function of batch size and padded token length, interpolated in a full grid.

    The median is linear between cells in both axes, which is how the work grows. Past the last length or batch size it
    continues at the slope of the last two cells, but never falls.
    """

    batches: tuple[int, ...]
    lengths: tuple[int, ...]
    medians_s: tuple[tuple[float, ...], ...]
    sigma: float

    @classmethod
    def from_document(cls, document: ProfileDocument) -> LatencyProfile:
        """Builds the grid. Raises ValueError if a cell is missing."""
        batches = tuple(sorted({cell.batch for cell in document.cells}))
        lengths = tuple(sorted({cell.tokens for cell in document.cells}))
        by_place = {(cell.batch, cell.tokens): cell for cell in document.cells}
        missing = [(b, n) for b in batches for n in lengths if (b, n) not in by_place]
        if missing:
            raise ValueError(f"the latency profile lacks the cells (batch, tokens) {missing}")
        medians = tuple(tuple(by_place[b, n].p50_s for n in lengths) for b in batches)
        return cls(batches, lengths, medians, sigma=spread_of([cell.p95_s / cell.p50_s for cell in document.cells]))

    def median_s(self, batch: int, tokens: int) -> float:
        """Median service time in seconds of one run of `batch` inputs padded to `tokens` tokens."""
        if batch == self.batches[0]:
            return _along(self.lengths, self.medians_s[0], tokens)
        column = [_along(self.lengths, row, tokens) for row in self.medians_s]
        return _along(self.batches, column, batch)


PAYS = 0.9
"""Most share of a usual run's time at which a lone run is worth its threads' extra work. Set by hand."""


@dataclass(frozen=True)
class LoneRuns:
    """How much faster a batch runs if nothing else does, on `threads` threads: a share of its usual time."""

    threads: int
    lengths: tuple[int, ...]
    shares: tuple[float, ...]

    @classmethod
    def from_document(cls, document: ProfileDocument) -> LoneRuns | None:
        """The lone runs of a profile; None if none were measured, or if they do not pay at any length."""
        if document.lone is None or all(cell.share > PAYS for cell in document.lone.cells):
            return None
        cells = sorted(document.lone.cells, key=lambda cell: cell.tokens)
        return cls(document.lone.threads, tuple(one.tokens for one in cells), tuple(one.share for one in cells))

    def share(self, tokens: int) -> float:
        """The time of a lone run of so many tokens in all, divided by that of a usual run; 1 where it does not pay.

        Past the last length the share is that of the last.
        """
        share = _along(self.lengths, self.shares, min(tokens, self.lengths[-1]))
        return share if share <= PAYS else 1.0


def spread_of(ratios: Sequence[float]) -> float:
    """The spread (sigma of the logarithm) of a log-normal time, from ratios of its 95th percentile to its median.

    Returns the middle one of several ratios.
    """
    spreads = sorted(math.log(max(ratio, 1.0)) / _Z95 for ratio in ratios)
    return spreads[len(spreads) // 2]


def _along(places: Sequence[int], values: Sequence[float], at: int) -> float:
    """Interpolates linearly: the first value before the first place, past the last its slope, never falling."""
    if at <= places[0] or len(places) == 1:
        return values[0] if at <= places[0] else values[0] * at / places[0]
    right = min(bisect_left(places, at), len(places) - 1)
    left = right - 1
    share = (at - places[left]) / (places[right] - places[left])
    value = values[left] + (values[right] - values[left]) * share
    return max(value, values[-1]) if at > places[-1] else value
