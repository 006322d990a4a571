"""How the memory of a run is shown: a table of samples, a verdict for each checkpoint, and a JSON file."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from loadtests.memory import MemoryReport
from loadtests.memory_growth import ALLOWED_BYTES, ALLOWED_SHARE, Growth

MB = 1e6


def print_memory(report: MemoryReport, console: Console) -> None:
    """One row a sample, in MB, then failures, the rule, and what it says of each checkpoint."""
    table = Table("summaries", *report.checkpoints, title=f"resident memory, MB, on {report.host}")
    for sample in report.samples:
        sizes = (sample.memory_bytes.get(name) for name in report.checkpoints)
        table.add_row(str(sample.summaries), *("-" if size is None else f"{size / MB:.1f}" for size in sizes))
    console.print(table)
    for why, count in report.failures.items():
        console.print(f"[red]{count} summaries failed: {why}[/]")
    console.print(
        f"the rule: the median of the last fifth of the samples is at most {ALLOWED_SHARE:.0%} and "
        f"{ALLOWED_BYTES / MB:g} MB over that of the second fifth"
    )
    for name, growth in report.growths.items():
        good = growth is not None and not growth.grows
        console.print(f"[{'green' if good else 'red'}]{verdict(name, growth)}[/]")


def verdict(checkpoint: str, growth: Growth | None) -> str:
    """What the rule says of one checkpoint, with the figures."""
    if growth is None:
        return f"{checkpoint}: not judged: it was not up at every sample, or there were too few"
    early, late, allowed = (size / MB for size in (growth.early_bytes, growth.late_bytes, growth.allowed_bytes))
    said = "grows" if growth.grows else "no growth"
    return f"{checkpoint}: {said}: {early:.1f} MB to {late:.1f} MB ({late - early:+.1f}), allowed up to {allowed:.1f}"


def write_memory(report: MemoryReport, path: Path) -> None:
    """Everything in SI units: conditions, every sample, and the verdicts."""
    settings = report.settings
    document = {
        "host": report.host,
        "summaries": settings.summaries,
        "seed": settings.seed,
        "budgets_s": [settings.least_s, settings.most_s],
        "lasted_s": report.lasted_s,
        "samples": [msgspec.to_builtins(sample) for sample in report.samples],
        "failures": report.failures,
        "growths": {
            name: None
            if growth is None
            else {**msgspec.to_builtins(growth), "allowed_bytes": growth.allowed_bytes, "grows": growth.grows}
            for name, growth in report.growths.items()
        },
        "steady": report.steady,
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
