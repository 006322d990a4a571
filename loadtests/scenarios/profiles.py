"""Variants from a plain CSV of measured samples: anybody's accelerator and models, without their weights.

It knows the columns `variant,quality,batch,latency_ms`; it refuses to know what ran or how long its inputs were.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from gateway.model.tier import Tier
from loadtests.scenarios.errors import ScenarioError
from loadtests.scenarios.tables import Row, read_table
from loadtests.simulator.variants import SampledTimes, Variant

COLUMNS = ("variant", "quality", "batch", "latency_ms")
LARGEST_BATCH = 4096
LEAST_QUALITY, MOST_QUALITY = 1e-3, 1e6
SHORTEST_MS, LONGEST_MS = 1e-4, 3_600_000.0


@dataclass
class _Measured:
    """What was seen of one variant so far: its quality, the line that said so, and its samples by batch size."""

    quality: float
    line: int
    samples: dict[int, list[float]] = field(default_factory=dict)


def read_profile(path: Path, task: str) -> tuple[Variant, ...]:
    """The variants of a CSV, best quality first; a row is one timed run of `batch` inputs. Raises ScenarioError.

    A variant batches up to the largest batch size measured of it. One that is slower and worse than another is kept:
    not to choose it is a policy's business.
    """
    measured: dict[str, _Measured] = {}
    for row in read_table(path, COLUMNS):
        _take(row, measured)
    if not measured:
        raise ScenarioError(f"{path}: has no rows under its header")
    qualities = [one.quality for one in measured.values()]
    variants = [
        Variant(name, task, one.quality, tier_of(one.quality, qualities), SampledTimes(one.samples), max(one.samples))
        for name, one in measured.items()
    ]
    return tuple(sorted(variants, key=lambda variant: -variant.quality))


def tier_of(quality: float, among: Collection[float]) -> Tier:
    """The best quality there is has the tier quality, the least realtime, what lies between balanced."""
    if quality == max(among):
        return Tier.QUALITY
    return Tier.REALTIME if quality == min(among) else Tier.BALANCED


def _take(row: Row, measured: dict[str, _Measured]) -> None:
    name, quality = row.name("variant"), row.number("quality", LEAST_QUALITY, MOST_QUALITY)
    batch, seconds = row.count("batch", LARGEST_BATCH), row.number("latency_ms", SHORTEST_MS, LONGEST_MS) / 1000
    one = measured.setdefault(name, _Measured(quality, row.line))
    if quality != one.quality:
        raise row.fault("quality", f"must be {one.quality:g}, as line {one.line} says of {name}")
    one.samples.setdefault(batch, []).append(seconds)
