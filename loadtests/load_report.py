"""What became of an open-loop run: endings counted apart, latency of the answered, goodput, and whether it is valid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from loadtests.open_loop import Ending, LoadSettings, Shot

ANSWERED = (Ending.IN_TIME, Ending.LATE)


@dataclass(frozen=True)
class Quantiles:
    """Of durations, in seconds."""

    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float

    @classmethod
    def of(cls, values_s: Sequence[float]) -> Quantiles | None:
        """The quantiles, or None of nothing."""
        if not values_s:
            return None
        p50, p95, p99, most = (float(value) for value in np.percentile(values_s, (50, 95, 99, 100)))
        return cls(p50, p95, p99, most)


@dataclass(frozen=True)
class LoadReport:
    """One run. The counts of endings add up to `offered`; `by_second` has them by the second they were due in."""

    settings: LoadSettings
    offered: int
    endings: dict[Ending, int]
    refused: dict[str, int]
    failed: dict[str, int]
    checkpoints: dict[str, int]
    latency: Quantiles | None
    lag: Quantiles | None
    by_second: tuple[dict[Ending, int], ...]

    @property
    def attainment(self) -> float:
        """Answers in time over requests offered: the refused, failed and hung count against it."""
        return self.endings[Ending.IN_TIME] / self.offered if self.offered else 0.0

    @property
    def goodput(self) -> float:
        """Answers in time a second."""
        return self.endings[Ending.IN_TIME] / self.settings.seconds

    @property
    def valid(self) -> bool:
        """Whether the generator kept its own times, so that the figures are the server's."""
        return self.lag is not None and self.lag.p99_s <= self.settings.lag_bound_s


def summarised(shots: Sequence[Shot], settings: LoadSettings) -> LoadReport:
    """Counts a run."""
    seconds: list[Counter[Ending]] = [Counter() for _ in range(int(settings.seconds) + 1)]
    for shot in shots:
        seconds[int(shot.due_s)][shot.ending] += 1
    while seconds and not seconds[-1]:
        seconds.pop()
    total = sum(seconds, Counter[Ending]())
    return LoadReport(
        settings=settings,
        offered=len(shots),
        endings={ending: total[ending] for ending in Ending},
        refused=dict(Counter(shot.detail for shot in shots if shot.ending is Ending.REFUSED)),
        failed=dict(Counter(shot.detail for shot in shots if shot.ending is Ending.FAILED)),
        checkpoints=dict(Counter(shot.checkpoint for shot in shots if shot.checkpoint and shot.ending in ANSWERED)),
        latency=Quantiles.of([shot.latency_s for shot in shots if shot.ending in ANSWERED]),
        lag=Quantiles.of([shot.lag_s for shot in shots]),
        by_second=tuple({ending: count[ending] for ending in Ending if count[ending]} for count in seconds),
    )


def print_load(report: LoadReport, console: Console) -> None:
    """The endings, the latency of the answered, and a word on the generator."""
    budget = "" if report.settings.budget_ms is None else f", budget {report.settings.budget_ms:g} ms"
    table = Table("ending", "requests", "share", title=f"{report.settings.rate:g} requests/s offered{budget}")
    for ending, count in report.endings.items():
        table.add_row(ending, str(count), f"{count / max(report.offered, 1):.2%}")
        details = {Ending.REFUSED: report.refused, Ending.FAILED: report.failed}.get(ending, {})
        for detail, times in details.items():
            table.add_row(f"  {detail}", str(times), "")
    console.print(table)
    console.print(f"SLA attainment {report.attainment:.2%}, goodput {report.goodput:.1f}/s")
    if report.latency:
        console.print(f"latency of the answered, from the intended send time: {_words(report.latency)}")
    if report.checkpoints:
        console.print("answered by: " + ", ".join(f"{name} {count}" for name, count in report.checkpoints.items()))
    lag = f"the generator sent late by {_words(report.lag)}" if report.lag else "nothing was offered"
    verdict = "valid" if report.valid else "[red]NOT VALID[/]"
    console.print(f"{verdict}: {lag}; p99 may be {report.settings.lag_bound_s * 1000:g} ms")


def write_load(report: LoadReport, path: Path) -> None:
    """The report as JSON, in SI units."""
    document = {
        **msgspec.to_builtins(report),
        "attainment": report.attainment,
        "goodput": report.goodput,
        "valid": report.valid,
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


def _words(quantiles: Quantiles) -> str:
    values = (quantiles.p50_s, quantiles.p95_s, quantiles.p99_s, quantiles.max_s)
    names = ("p50", "p95", "p99", "max")
    return ", ".join(f"{name} {value * 1000:.2f} ms" for name, value in zip(names, values, strict=True))
