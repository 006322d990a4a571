"""`punctual bench budgets`: summaries of real texts, one at a time, with random budgets from 0.1 to 5 s.

The gateway promises answers in time, no empty answer, and no engine step that begins after its deadline. Latency is
measured by the client; steps are read from the replicas' logs. Shares and ROUGE-L are from 0 to 1.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np
import typer
import uvloop
from rich.console import Console
from rich.progress import Progress

from deployments.engines.host import read_host
from deployments.replica.writing.step_log import VARIABLE, Entry, Step, read_log
from exporters.options import DEFAULT_CACHE, DEFAULT_CATALOG, CacheOption, CatalogOption
from exporters.verification import mean_rouge_l
from gateway.catalogs.catalog import Catalog
from loadtests import options
from loadtests.bench.measuring.report import Report, Table, Verdict, present
from loadtests.bench.summaries import (
    PATH,
    Asked,
    Ended,
    Kind,
    Summarised,
    Unsummarised,
    asked_in_turn,
    mixed_texts,
    requests_of,
    served,
    summarizers,
)
from loadtests.client import http_client
from loadtests.errors import LoadTestError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PATIENCE_S = 35.0
"""The client's timeout beyond the longest budget; the gateway itself gives up after 30 s."""
IN_TIME_FLOOR = 0.99
BAND_EDGES_S = (0.25, 0.5, 1.0, 2.0)
"""The inner edges of the budget bands in the quality table; the range of budgets gives the outer edges."""


class ScorerMissing(LoadTestError):
    """The package that scores summaries is not installed; the message says how to get it."""


@dataclass(frozen=True)
class Settings:
    """The number of texts, half of each kind, and the range of their budgets in seconds."""

    texts: int = 200
    budgets_s: tuple[float, float] = (0.1, 5.0)
    seed: int = 13


@dataclass(frozen=True)
class Scored(Ended):
    """A finished request with its logged engine steps and its answer's score.

    `steps` is None if no log names the request; `rouge_l`, against the reference, is None without an answer.
    """

    steps: tuple[Step, ...] | None = None
    rouge_l: float | None = None


@dataclass(frozen=True)
class Run:
    """The host, the summarizers in the catalog's order, and all requests of a run."""

    settings: Settings
    host: str
    checkpoints: tuple[str, ...]
    ended: tuple[Scored, ...]
    lasted_s: float


def command(
    catalog: CatalogOption = DEFAULT_CATALOG,
    cache: CacheOption = DEFAULT_CACHE,
    texts: Annotated[int, typer.Option(min=1, help="half of each kind")] = Settings.texts,
    seed: Annotated[int, typer.Option(help="of texts and budgets")] = Settings.seed,
    json: options.Json = None,
    svg: Annotated[Path | None, typer.Option(help="write a plot of latency against budget there")] = None,
) -> None:
    """Requests summaries with random budgets and measures how many are in time."""
    settings = Settings(texts=texts, seed=seed)
    report = measure(*options.prepared(catalog, cache), settings, options.console)
    raise typer.Exit(present(report, options.console, json=json, plot=svg))


def measure(catalog: Catalog, variants: Mapping[str, Path], settings: Settings, console: Console) -> Report:
    """Serves the catalog with step logs, sends the requests and scores the answers. Raises LoadTestError."""
    names = summarizers(catalog)
    if importlib.util.find_spec("rouge_score") is None:
        raise ScorerMissing("scoring needs the package rouge-score: `pip install rouge-score`")
    requests = requests_of(mixed_texts(settings.texts, settings.seed), settings.budgets_s, settings.seed)
    started = perf_counter()
    with tempfile.TemporaryDirectory(prefix="loadtests-") as folder:
        with logging_steps(Path(folder)), served(catalog, variants, console) as url:
            ended = uvloop.run(_ask(url, requests, settings, console))
        entries = read_log(Path(folder))
    with console.status("scoring the answers"):
        found = scored(ended, entries)
    return report_of(Run(settings, read_host().kind, names, tuple(found), perf_counter() - started))


@contextmanager
def logging_steps(folder: Path) -> Iterator[None]:
    """Makes gateways that start in this context log their engine steps into the folder."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(folder)
    try:
        yield
    finally:
        del os.environ[VARIABLE]
        if before is not None:
            os.environ[VARIABLE] = before


async def _ask(url: str, requests: Sequence[Asked], settings: Settings, console: Console) -> list[Ended]:
    ended: list[Ended] = []
    with Progress(console=console) as bar:
        line = bar.add_task("asking", total=len(requests))
        async with http_client(f"{url}{PATH}", settings.budgets_s[1] + PATIENCE_S) as client:
            async for one in asked_in_turn(client, requests, perf_counter):
                ended.append(one)
                late = sum(not one.in_time for one in ended)
                bar.update(line, advance=1, description=f"asking, {late} not in time")
    return ended


def scored(ended: Sequence[Ended], entries: Sequence[Entry]) -> list[Scored]:
    """Adds to each request its logged steps and its answer's ROUGE-L. A retried text has the steps of both tries."""
    steps: dict[str, tuple[Step, ...]] = {}
    for entry in entries:
        steps[entry.request_id] = steps.get(entry.request_id, ()) + entry.steps
    return [
        Scored(
            one.asked,
            one.outcome,
            one.latency_s,
            steps.get(one.asked.request_id),
            mean_rouge_l([one.outcome.text], [one.asked.text.reference])
            if isinstance(one.outcome, Summarised)
            else None,
        )
        for one in ended
    ]


def report_of(run: Run) -> Report:
    """Answers by checkpoint, quality by budget, the largest overshoots, and whether the promises were kept."""
    answer_s, step_s = longest_overshoot_s(run.ended), longest_step_overshoot_s(run.ended)
    unanswered = Counter(one.outcome.why for one in run.ended if isinstance(one.outcome, Unsummarised))
    late = [(one, one.outcome) for one in run.ended if isinstance(one.outcome, Summarised) and not one.in_time]
    return Report(
        tables=[_checkpoint_table(run), _band_table(run)],
        document={
            "host": run.host,
            "lasted_s": run.lasted_s,
            "settings": run.settings,
            "longest_overshoot_s": answer_s,
            "longest_step_overshoot_s": step_s,
            "unanswered": unanswered,
            "requests": [_without_text(one) for one in run.ended],
        },
        verdicts=promises(run.ended),
        remarks=[f"largest overshoot of a deadline: answer {_past(answer_s)}, engine step {_past(step_s)}"],
        cautions=[
            *(f"{count} without an answer: {why}" for why, count in unanswered.items()),
            *(f"late: {_late(one, answer)}" for one, answer in late),
        ],
        figure=lambda: _plot(run),
    )


def promises(ended: Sequence[Scored]) -> list[Verdict]:
    """Verdicts on answers in time, empty answers, and engine steps that began after their deadline."""
    in_time = sum(one.in_time for one in ended)
    share = in_time / len(ended) if ended else 0.0
    answers = [one.outcome for one in ended if isinstance(one.outcome, Summarised)]
    empty = sum(not answer.text.strip() for answer in answers)
    return [
        Verdict(
            f"in time by the client's clock: {in_time} of {len(ended)} ({share:.1%}; at least {IN_TIME_FLOOR:.0%})",
            share >= IN_TIME_FLOOR,
        ),
        Verdict(f"empty: {empty} of {len(answers)} answers (0 allowed)", bool(answers) and not empty),
        _punctual_steps(ended),
    ]


def _punctual_steps(ended: Sequence[Scored]) -> Verdict:
    """Met only if every answer's steps were logged, and there was at least one step."""
    late = sum(step.late for one in ended for step in one.steps or ())
    steps = sum(len(one.steps or ()) for one in ended)
    unlogged = sum(isinstance(one.outcome, Summarised) and one.steps is None for one in ended)
    sentence = f"engine steps that began after their deadline: {late} of {steps} logged (0 allowed)"
    if unlogged:
        sentence += f"; not proved: the steps of {unlogged} answers were not logged"
    return Verdict(sentence, bool(steps) and not late and not unlogged)


def longest_overshoot_s(ended: Sequence[Scored]) -> float | None:
    """The largest latency minus budget of all answers, by the client's clock; None without an answer."""
    latencies = [one.latency_s - one.asked.budget_s for one in ended if isinstance(one.outcome, Summarised)]
    return max(latencies, default=None)


def longest_step_overshoot_s(ended: Sequence[Scored]) -> float | None:
    """The latest end of a step relative to its deadline, negative if all ended before; None without a step."""
    return max((step.ended_s for one in ended for step in one.steps or ()), default=None)


def _checkpoint_table(run: Run) -> Table:
    """One row per summarizer that answered, in the catalog's order."""
    found: dict[str, list[tuple[Scored, Summarised]]] = {}
    for one in run.ended:
        if isinstance(one.outcome, Summarised):
            found.setdefault(one.outcome.checkpoint, []).append((one, one.outcome))
    return Table(
        f"{len(run.ended)} texts one at a time on {run.host}",
        ["checkpoint", "answers", "in time", "budgets, ms", "latency / budget", "finish reason", "beams", "leads"],
        [_checkpoint_row(name, found[name]) for name in run.checkpoints if name in found],
        "budgets: minimum, median, maximum; latency / budget: p50, p95, p99, maximum, above 1 is late; "
        "leads: answers that are the text's first sentence",
    )


def _checkpoint_row(name: str, answers: Sequence[tuple[Scored, Summarised]]) -> list[str]:
    budgets_s = [one.asked.budget_s for one, _ in answers]
    ratios = np.percentile([one.latency_s / one.asked.budget_s for one, _ in answers], (50, 95, 99, 100))
    return [
        name,
        str(len(answers)),
        str(sum(one.in_time for one, _ in answers)),
        ", ".join(f"{budget_s * 1000:.0f}" for budget_s in (min(budgets_s), median(budgets_s), max(budgets_s))),
        ", ".join(f"{ratio:.2f}" for ratio in ratios),
        _counts(answer.finish_reason for _, answer in answers),
        _counts(answer.beams for _, answer in answers),
        str(sum(answer.lead for _, answer in answers)),
    ]


def _band_table(run: Run) -> Table:
    """Quality by kind of text and band of budgets; empty bands are left out."""
    least, most = run.settings.budgets_s
    inner = [edge for edge in BAND_EDGES_S if least < edge < most]
    found: dict[tuple[Kind, int], list[Scored]] = {}
    for one in run.ended:
        found.setdefault((one.asked.text.kind, bisect_right(inner, one.asked.budget_s)), []).append(one)
    return Table(
        "quality by budget",
        ["texts", "budget, ms", "count", "in time", "ROUGE-L", "answered by"],
        [
            _band_row(kind, band, found[kind, at])
            for kind in Kind
            for at, band in enumerate(pairwise([least, *inner, most]))
            if (kind, at) in found
        ],
    )


def _band_row(kind: Kind, band_s: tuple[float, float], ended: Sequence[Scored]) -> list[str]:
    scores = [one.rouge_l for one in ended if one.rouge_l is not None]
    return [
        kind,
        " to ".join(f"{edge_s * 1000:.0f}" for edge_s in band_s),
        str(len(ended)),
        str(sum(one.in_time for one in ended)),
        f"{fmean(scores) * 100:.1f}" if scores else "-",
        _counts(one.outcome.checkpoint for one in ended if isinstance(one.outcome, Summarised)),
    ]


def _without_text(one: Scored) -> dict[str, object]:
    """One request for the JSON file, without its text and summary."""
    outcome: dict[str, object] = msgspec.to_builtins(one.outcome)
    return {
        "id": one.asked.request_id,
        "kind": one.asked.text.kind,
        "characters": len(one.asked.text.text),
        "budget_s": one.asked.budget_s,
        "latency_s": one.latency_s,
        "in_time": one.in_time,
        "rouge_l": one.rouge_l,
        "steps_by_deadline_s": one.steps,
        **{name: value for name, value in outcome.items() if name != "text"},
    }


def _late(one: Scored, answer: Summarised) -> str:
    """A late answer's latency by the client's clock, by the gateway's, and in the engine."""
    times = (one.asked.budget_s, one.latency_s, answer.gateway_s, answer.service_time_s)
    budget, latency, inside, engine = (f"{seconds * 1000:.1f} ms" for seconds in times)
    return f"budget {budget}, {answer.checkpoint} after {latency}; by the gateway's clock {inside}, the engine {engine}"


def _counts(values: Iterable[object]) -> str:
    return ", ".join(f"{value}: {count}" for value, count in Counter(values).most_common())


def _past(seconds: float | None) -> str:
    if seconds is None:
        return "none"
    return f"{abs(seconds) * 1000:.1f} ms {'past it' if seconds > 0 else 'before it'}"


def _plot(run: Run) -> Figure:
    """Plots each answer's latency against its budget; late ones have a ring. Leaves out unanswered requests."""
    from matplotlib.figure import Figure

    from loadtests.reports.drawing import Colour

    figure = Figure(figsize=(7.6, 5.2), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="budget, s", ylabel="latency, s")
    axes.plot(run.settings.budgets_s, run.settings.budgets_s, "--", color=Colour.INK, label="latency = budget")
    answers = [(one, one.outcome.checkpoint) for one in run.ended if isinstance(one.outcome, Summarised)]
    colours = cycle((Colour.OURS, Colour.REFUSED, Colour.MUTED, Colour.REALTIME, Colour.BOUND))
    for name, colour in zip(run.checkpoints, colours, strict=False):
        for late in (False, True):
            own = [one for one, checkpoint in answers if checkpoint == name and one.in_time is not late]
            if own:
                axes.scatter(
                    [one.asked.budget_s for one in own],
                    [one.latency_s for one in own],
                    color=colour,
                    edgecolors=Colour.LATE if late else "none",
                    label=f"{name}, late" if late else name,
                )
    axes.set_title(f"{len(answers)} summaries")
    axes.legend()
    return figure
