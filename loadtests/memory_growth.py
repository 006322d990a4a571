"""Whether a process grows: the rule over samples of its resident memory. Pure arithmetic, in bytes.

The median of the last fifth of a run may be 2 % and 2 MB over the median of its second fifth: the first fifth is for
caches and buffers that fill once, medians do not mind a moment's peak, and the allowance is what one process's figure
wanders by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

FIFTHS = 5
ALLOWED_SHARE = 0.02
ALLOWED_BYTES = 2e6


@dataclass(frozen=True)
class Sample:
    """The resident memory of each checkpoint once so many summaries were written; None of one that was not up."""

    summaries: int
    memory_bytes: dict[str, int | None]


@dataclass(frozen=True)
class Growth:
    """One checkpoint: its median in the second fifth and in the last, and what the last may be."""

    checkpoint: str
    early_bytes: float
    late_bytes: float

    @property
    def allowed_bytes(self) -> float:
        """The most that the last fifth's median may be."""
        return self.early_bytes * (1 + ALLOWED_SHARE) + ALLOWED_BYTES

    @property
    def grows(self) -> bool:
        """Whether it is more than that."""
        return self.late_bytes > self.allowed_bytes


def growth_of(samples: Sequence[Sample], checkpoint: str) -> Growth | None:
    """Judges one checkpoint, or None where it was not up at some sample or the samples are fewer than five."""
    sizes = [sample.memory_bytes.get(checkpoint) for sample in samples]
    known = [size for size in sizes if size]
    if len(known) < len(sizes) or len(known) < FIFTHS:
        return None
    return Growth(checkpoint, median(fifth(known, 2)), median(fifth(known, FIFTHS)))


def fifth(sizes: Sequence[int], number: int) -> Sequence[int]:
    """The first (1) to the last (5) fifth of at least five values."""
    return sizes[len(sizes) * (number - 1) // FIFTHS : len(sizes) * number // FIFTHS]
