"""How a run of budgets is shown: tables and promises at the terminal, and a JSON file with every request in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from loadtests.budgets import BudgetReport, Ended
from loadtests.budgets_figures import (
    by_band,
    by_checkpoint,
    longest_overshoot_s,
    longest_step_overshoot_s,
    promises,
    unanswered,
)
from loadtests.summary_answers import Summarised


def print_budgets(report: BudgetReport, console: Console) -> None:
    """Who answered and how, quality by budget, the longest overshoots, and the promises."""
    _print_checkpoints(report, console)
    _print_bands(report, console)
    for why, count in unanswered(report).items():
        console.print(f"[red]{count} without an answer: {why}[/]")
    for one in report.ended:
        if isinstance(one.outcome, Summarised) and not one.in_time:
            console.print(f"[yellow]late: {_late(one, one.outcome)}[/]")
    answer_s, step_s = longest_overshoot_s(report.ended), longest_step_overshoot_s(report.ended)
    console.print(f"the last before or furthest past its time: answer {_past(answer_s)}, engine step {_past(step_s)}")
    for promise in promises(report):
        console.print(f"[{'green' if promise.met else 'red'}]{promise.sentence}[/]")


def write_budgets(report: BudgetReport, path: Path) -> None:
    """Everything in SI units: figures, promises with their verdicts, and every request without its text."""
    settings = report.settings
    document = {
        "host": report.host,
        "lasted_s": report.lasted_s,
        "texts": settings.texts,
        "seed": settings.seed,
        "budgets_s": [settings.least_s, settings.most_s],
        "promises": [msgspec.to_builtins(promise) for promise in promises(report)],
        "longest_overshoot_s": longest_overshoot_s(report.ended),
        "longest_step_overshoot_s": longest_step_overshoot_s(report.ended),
        "unanswered": unanswered(report),
        "by_checkpoint": [msgspec.to_builtins(one, str_keys=True) for one in by_checkpoint(report)],
        "by_band": [msgspec.to_builtins(one) for one in by_band(report)],
        "requests": [_request(one) for one in report.ended],
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


def _print_checkpoints(report: BudgetReport, console: Console) -> None:
    table = Table(
        "checkpoint", "answers", "in time", "budgets, ms", "p50", "p95", "p99", "most", "ended by", "beams", "leads",
        title=f"{len(report.ended)} texts one at a time on {report.host}",
        caption="budgets: least, median, most; p50 to most: latency over budget",
    )  # fmt: skip
    for one in by_checkpoint(report):
        budgets_s = (one.least_budget_s, one.median_budget_s, one.most_budget_s)
        ratios = (one.ratios.p50, one.ratios.p95, one.ratios.p99, one.ratios.most)
        table.add_row(
            one.checkpoint,
            str(one.answers),
            str(one.in_time),
            ", ".join(f"{value * 1000:.0f}" for value in budgets_s),
            *(f"{ratio:.2f}" for ratio in ratios),
            _counts(one.finish_reasons),
            _counts(one.beams),
            str(one.leads),
        )
    console.print(table)


def _print_bands(report: BudgetReport, console: Console) -> None:
    table = Table("texts", "budget, ms", "count", "in time", "ROUGE-L", "answered by", title="quality by budget")
    for band in by_band(report):
        table.add_row(
            band.kind,
            f"{band.from_s * 1000:.0f} to {band.to_s * 1000:.0f}",
            str(band.texts),
            str(band.in_time),
            "-" if band.rouge_l is None else f"{band.rouge_l * 100:.1f}",
            _counts(band.checkpoints),
        )
    console.print(table)


def _request(one: Ended) -> dict[str, object]:
    """One request in numbers; its text and summary stay out of the file."""
    found: dict[str, object] = {
        "id": one.asked.request_id,
        "kind": one.asked.text.kind,
        "characters": len(one.asked.text.text),
        "budget_s": one.asked.budget_s,
        "latency_s": one.latency_s,
        "in_time": one.in_time,
        "rouge_l": one.rouge_l,
        "steps_by_deadline_s": None if one.steps is None else [[s.began_s, s.ended_s] for s in one.steps],
    }
    if not isinstance(one.outcome, Summarised):
        return {**found, "why": one.outcome.why}
    answer: dict[str, object] = msgspec.to_builtins(one.outcome)
    return {**found, **{name: value for name, value in answer.items() if name != "text"}}


def _late(one: Ended, answer: Summarised) -> str:
    """Where a late answer was lost: inside the gateway, or between its clock and the client's."""
    times = (one.asked.budget_s, one.latency_s, answer.gateway_s, answer.service_time_s)
    budget, latency, inside, engine = (f"{seconds * 1000:.1f} ms" for seconds in times)
    return f"budget {budget}, {answer.checkpoint} after {latency}; by the gateway's clock {inside}, the engine {engine}"


def _counts(counted: Mapping[str, int] | Mapping[int, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counted.items())


def _past(seconds: float | None) -> str:
    if seconds is None:
        return "none"
    return f"{abs(seconds) * 1000:.1f} ms {'past it' if seconds > 0 else 'before'}"
