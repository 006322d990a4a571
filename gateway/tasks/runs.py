"""How a batch of unlike lengths is run: in the parts that take the least time together, by the latency profile.

A run of the engine pads every input to the longest. Two runs of like lengths can take less time than one of unlike
lengths. The replica runs its batches so, and the service-time model forecasts them so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

LARGEST_RUN = 16
"""Most inputs in one run of the engine."""

MOST_PADDED_TOKENS = 2_048
"""Most tokens in one run of several inputs, padding included, so that no run holds the engine for long."""


class MedianTimes(Protocol):
    """The median service times of a latency profile."""

    def median_s(self, batch: int, tokens: int) -> float:
        """The median service time in seconds of one run of `batch` inputs padded to `tokens` tokens."""


@dataclass(frozen=True)
class RememberedMedians:
    """A latency profile that interpolates each (batch, tokens) once and remembers it, without limit."""

    profile: MedianTimes
    _known: dict[tuple[int, int], float] = field(default_factory=dict, repr=False, compare=False)

    def median_s(self, batch: int, tokens: int) -> float:
        """The profile's median in seconds, computed once."""
        try:
            return self._known[batch, tokens]
        except KeyError:
            return self._known.setdefault((batch, tokens), self.profile.median_s(batch, tokens))


def runs_of(lengths: Sequence[int], median_s: Callable[[int, int], float]) -> list[list[int]]:
    """Divides inputs of these lengths, in tokens, into the runs that take the least time; gives their places.

    Runs are of neighbours in order of length, of at most `LARGEST_RUN` inputs and `MOST_PADDED_TOKENS` tokens, unless
    one input alone has more. Of equally fast divisions it takes one whose last run is the largest.
    """
    if len(lengths) == 1:
        return [[0]]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    least: list[tuple[float, int]] = [(0.0, 0)]  # of the first inputs in order: seconds, and where the last run begins
    for end in range(1, len(order) + 1):
        tokens = lengths[order[end - 1]]
        most = max(1, min(end, LARGEST_RUN, MOST_PADDED_TOKENS // max(tokens, 1)))
        least.append(min((least[end - size][0] + median_s(size, tokens), end - size) for size in range(1, most + 1)))
    runs, end = [], len(order)
    while end:
        begin = least[end][1]
        runs.append(order[begin:end])
        end = begin
    return runs[::-1]
