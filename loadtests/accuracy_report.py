"""How the accuracy over HTTP is shown: a table, its faults in words, and a JSON file."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from loadtests.accuracy import AccuracyReport
from loadtests.agreement import AGREEMENT_FLOOR, Agreement


def print_accuracy(report: AccuracyReport, console: Console) -> None:
    """One row a checkpoint, one more for each data set of it, then what is wrong, if anything."""
    table = Table("checkpoint", "data set", "sentences", "over HTTP", "verified", "apart", "variant alone")
    for one in report.checkpoints:
        apart = "-" if one.apart is None else f"{one.apart:+d} sentences (of {one.allowed} allowed)"
        table.add_row(
            f"{one.checkpoint} {one.variant}", "all", str(one.overall.sentences), f"{one.overall.served_share:.2%}",
            _share(one.verified_accuracy), apart, f"{one.overall.alone_share:.2%}",
        )  # fmt: skip
        for name, right in one.by_data_set.items():
            served, alone = f"{right.served_share:.2%}", f"{right.alone_share:.2%}"
            table.add_row("", name, str(right.sentences), served, "", "", alone)
    console.print(table)
    for one in report.checkpoints:
        console.print(_agreement(one))
        for fault in one.faults():
            console.print(f"[red]{one.checkpoint}: {fault}[/]")
    if report.skipped:
        console.print(f"[yellow]not judged, since their labels are not the sentences':[/] {', '.join(report.skipped)}")


def write_accuracy(report: AccuracyReport, path: Path) -> None:
    """Everything that was found, with the faults."""
    document = {
        **msgspec.to_builtins(report),
        "faultless": report.faultless,
        "faults": {one.checkpoint: one.faults() for one in report.checkpoints},
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


def _agreement(one: Agreement) -> str:
    return (
        f"{one.checkpoint}: labels over HTTP agree with the variant run alone in {one.alone_agreement:.2%}; "
        f"with its source in {_share(one.source_agreement)} (run now), {one.manifest_agreement:.2%} (its manifest); "
        f"floor {AGREEMENT_FLOOR:.1%}"
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"
