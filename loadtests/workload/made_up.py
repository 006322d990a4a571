"""The made-up catalogs: writes the profiles of the scenarios `made-up/...` as CSVs.

    python -m loadtests.workload.made_up

No machine ran these variants. A batch of n texts takes `fixed_ms` + n · `each_ms`: it batches strongly where the first
is large beside the second. The files are kept in the repository; equal figures give equal files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from loadtests.workload.variants import COLUMNS, READING

DEVIATIONS = (-0.7, -0.4, -0.2, 0.0, 0.0, 0.2, 0.5, 1.0)
"""The samples of each batch size, in units of the spread: their median is 0, and the slow ones lie further out."""

_SIZES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class MadeUp:
    """One variant: its quality in points, the time of its runs, and the largest batch that it takes.

    `spread` is the deviation of its slowest sample, as a share of the median. Texts of a variant with `reading_ms`
    share steps, each after it has been read for so long.
    """

    name: str
    quality: float
    fixed_ms: float
    each_ms: float
    max_batch: int
    spread: float = 0.15
    task: str = "classify"
    reading_ms: float = 0.0

    def samples(self) -> Iterator[tuple[int, float]]:
        """Each batch size with the time of one run, in ms."""
        for size in (size for size in _SIZES if size <= self.max_batch):
            for deviation in DEVIATIONS:
                yield size, (self.fixed_ms + size * self.each_ms) * (1 + self.spread * deviation)


CATALOGS: Mapping[str, tuple[MadeUp, ...]] = {
    "accelerator": (
        MadeUp("huge", 85.0, 4.5, 0.4, 32, 0.05),
        MadeUp("large", 82.0, 2.4, 0.2, 32, 0.05),
        MadeUp("medium", 77.0, 1.3, 0.1, 32, 0.05),
        MadeUp("small", 70.0, 0.7, 0.06, 32, 0.05),
        MadeUp("tiny", 60.0, 0.36, 0.04, 32, 0.05),
    ),
    "near-qualities": (
        MadeUp("large", 90.4, 6.0, 24.0, 8),
        MadeUp("medium", 90.0, 3.0, 9.0, 8),
        MadeUp("small", 89.6, 2.0, 4.0, 8),
    ),
    "no-batching": (
        MadeUp("large", 88.0, 0.0, 150.0, 1, 0.3),
        MadeUp("medium", 84.0, 0.0, 60.0, 1, 0.3),
        MadeUp("small", 75.0, 0.0, 20.0, 1, 0.3),
    ),
    "seconds": (
        MadeUp("large", 92.0, 50.0, 950.0, 4),
        MadeUp("medium", 86.0, 20.0, 280.0, 4),
        MadeUp("small", 80.0, 10.0, 80.0, 8),
    ),
    "two-tasks": (
        MadeUp("reader-large", 91.0, 4.0, 10.0, 16),
        MadeUp("reader-medium", 87.0, 2.0, 2.2, 16),
        MadeUp("reader-small", 72.0, 1.0, 0.8, 16),
        MadeUp("writer", 44.0, 0.0, 220.0, 1, 0.3, "summarize"),
        MadeUp("extractor", 36.0, 0.0, 25.0, 1, 0.1, "summarize"),
    ),
    "step": (
        MadeUp("large", 95.0, 8.0, 8.0, 16),
        MadeUp("medium", 92.0, 5.0, 4.0, 16),
        MadeUp("small", 85.0, 3.0, 1.5, 16),
        MadeUp("tiny", 70.0, 2.0, 0.4, 16),
    ),
    "lists": (
        MadeUp("large", 93.0, 3.0, 5.0, 16),
        MadeUp("small", 84.0, 1.0, 0.8, 16),
    ),
    "one-variant": (MadeUp("only", 80.0, 6.0, 3.0, 16),),
    "tight": (
        MadeUp("large", 95.0, 40.0, 2.0, 16, 0.1),
        MadeUp("small", 55.0, 8.0, 1.0, 16, 0.1),
    ),
    "writers": (
        MadeUp("writer-large", 60.0, 548.0, 122.0, 8, task="generate", reading_ms=20.0),
        MadeUp("writer-small", 45.0, 139.0, 31.0, 8, task="generate", reading_ms=5.0),
    ),
    "day": (
        MadeUp("huge", 85.0, 70.0, 30.0, 8, 0.2),
        MadeUp("large", 83.0, 50.0, 20.0, 8, 0.2),
        MadeUp("medium", 80.0, 35.0, 12.0, 8, 0.2),
        MadeUp("small", 76.0, 22.0, 7.0, 8, 0.2),
        MadeUp("tiny", 70.0, 12.0, 3.0, 8, 0.2),
    ),
}
"""The variants of each scenario, by the second part of its name."""


def table_of(variants: Sequence[MadeUp]) -> str:
    """The profile of the variants as a CSV; with a column `task` for several tasks, and `reading_ms` for writers."""
    several = len({one.task for one in variants}) > 1
    sharing = any(one.reading_ms for one in variants)
    lines = [
        "# Made up by loadtests/workload/made_up.py: no machine ran this. One row is one run of a whole batch.",
        ",".join((*COLUMNS, *["task"] * several, *[READING] * sharing)),
    ]
    for one in variants:
        end = f",{one.task}" * several + f",{one.reading_ms:g}" * sharing
        lines += [f"{one.name},{one.quality:g},{size},{time_ms:.4g}{end}" for size, time_ms in one.samples()]
    return "\n".join(lines) + "\n"


def write(folder: Path) -> None:
    """Writes every profile there."""
    for name, variants in CATALOGS.items():
        (folder / f"{name}.csv").write_text(table_of(variants), encoding="utf-8")


if __name__ == "__main__":
    write(Path(str(files("loadtests").joinpath("workload", "data", "made-up"))))
