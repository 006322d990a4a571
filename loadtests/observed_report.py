"""How a watched load is shown: both sides' counts by outcome, attainment four ways, what had no data, and verdicts."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.model.outcome import Outcome
from loadtests.observed import ObservedReport, targets
from loadtests.observed_counts import UNTOLD


def print_observed(report: ObservedReport, console: Console) -> None:
    """Two tables, everything that is silent or ails by its name, and a line for each target."""
    console.print(_outcomes(report))
    console.print(_attainment(report))
    console.print(
        f"{report.scrapes} scrapes while the load lasted, of which {report.scrapes_failed} were not answered in time"
    )
    for query in report.asked.silent_queries:
        console.print(f"[red]no data:[/] {escape(f'{query.where}: {query.expr}')}", soft_wrap=True)
    for name in (*report.asked.silent_rules, *report.asked.ailing):
        console.print(f"[red]no data, or failing:[/] {escape(name)}", soft_wrap=True)
    for target in targets(report):
        said = "met" if target.met else "MISSED"
        console.print(f"[{'green' if target.met else 'red'}]{target.what}: {said}: {escape(target.found)}[/]")


def write_observed(report: ObservedReport, path: Path) -> None:
    """Everything: conditions, counts, attainment as shares, what was asked, and the targets."""
    document = {
        **msgspec.to_builtins(report),
        "attainment": {
            one.task: {
                "by_client": one.by_client,
                "by_answers": one.by_answers,
                "by_promql": one.by_promql,
                "by_rule": one.by_rule,
            }
            for one in report.tasks
        },
        "targets": [msgspec.to_builtins(target) for target in targets(report)],
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


def _outcomes(report: ObservedReport) -> Table:
    """One row for each outcome that occurred: as clients were told, and as Prometheus counted."""
    settings = report.settings
    table = Table(
        "outcome",
        title=f"{settings.scenario} at {report.rate_per_s:g} requests/s for {settings.seconds:g} s on {report.host}",
        caption="as clients were told, and as Prometheus counted",
    )
    for one in report.tasks:
        table.add_column(f"{one.task}, told", justify="right")
        table.add_column("counted", justify="right")
    for how in (*Outcome, UNTOLD):
        row = [count for one in report.tasks for count in (one.told.get(how, 0), one.counted.get(how, 0))]
        if any(row):
            table.add_row(how, *map(str, row))
    sums = [sum(counts.values()) for one in report.tasks for counts in (one.told, one.counted)]
    table.add_section()
    table.add_row("all", *map(str, sums))
    return table


def _attainment(report: ObservedReport) -> Table:
    table = Table(
        "attainment", "client's clock", "X-SLA-Met", "PromQL, counters", "recording rule", "apart by",
        caption=f"client's clock: from the intended send time; rule: {report.rule}; apart: counters from the first two",
    )  # fmt: skip
    for one in report.tasks:
        shares = (one.by_client, one.by_answers, one.by_promql, one.by_rule, one.apart)
        table.add_row(one.task, *("-" if share is None else f"{share:.2%}" for share in shares))
    return table
