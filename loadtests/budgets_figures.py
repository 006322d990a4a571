"""What a run of budgets shows: the promises kept or not, how each summarizer used its budgets, quality by budget.

Pure arithmetic over what ended. Durations are in seconds, shares and ROUGE-L from 0 to 1.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

import numpy as np

from loadtests.budgets import BudgetReport, Ended
from loadtests.summary_answers import Summarised, Unsummarised
from loadtests.summary_texts import Kind

IN_TIME_FLOOR = 0.99
BAND_EDGES_S = (0.25, 0.5, 1.0, 2.0)
"""Where the bands of budgets meet; the first and the last reach to the ends of the range that was drawn from."""


@dataclass(frozen=True)
class Promise:
    """One thing that the run was to show, whether it did, and the figures in words."""

    met: bool
    sentence: str


@dataclass(frozen=True)
class Ratios:
    """Latency over budget: above 1 is late."""

    p50: float
    p95: float
    p99: float
    most: float


@dataclass(frozen=True)
class CheckpointFigures:
    """How one summarizer fared with what it was given; counts by finish reason and by beams."""

    checkpoint: str
    answers: int
    in_time: int
    least_budget_s: float
    median_budget_s: float
    most_budget_s: float
    ratios: Ratios
    finish_reasons: dict[str, int]
    beams: dict[int, int]
    leads: int


@dataclass(frozen=True)
class BandFigures:
    """The texts of one kind whose budgets lie from one bound up to another, and who answered them.

    `rouge_l` is the mean over the answers, None where there is none.
    """

    kind: Kind
    from_s: float
    to_s: float
    texts: int
    in_time: int
    rouge_l: float | None
    checkpoints: dict[str, int]


def promises(report: BudgetReport) -> tuple[Promise, Promise, Promise]:
    """Answers in time, none of them empty, and no engine step that began after its deadline."""
    ended = report.ended
    in_time = sum(one.in_time for one in ended)
    share = in_time / len(ended) if ended else 0.0
    answers = [one.outcome for one in ended if isinstance(one.outcome, Summarised)]
    empty = sum(not answer.text.strip() for answer in answers)
    return (
        Promise(
            share >= IN_TIME_FLOOR,
            f"in time by the client's clock: {in_time} of {len(ended)} ({share:.1%}; at least {IN_TIME_FLOOR:.0%})",
        ),
        Promise(bool(answers) and not empty, f"empty: {empty} of {len(answers)} answers (none may be)"),
        _punctual_steps(ended),
    )


def by_checkpoint(report: BudgetReport) -> list[CheckpointFigures]:
    """The summarizers that answered, in the catalog's order."""
    found: dict[str, list[tuple[Ended, Summarised]]] = {}
    for one in report.ended:
        if isinstance(one.outcome, Summarised):
            found.setdefault(one.outcome.checkpoint, []).append((one, one.outcome))
    return [_checkpoint(name, found[name]) for name in report.checkpoints if name in found]


def by_band(report: BudgetReport) -> list[BandFigures]:
    """Every band that has a text, kind by kind, from the least budget to the most."""
    settings = report.settings
    inner = [edge for edge in BAND_EDGES_S if settings.least_s < edge < settings.most_s]
    bands = list(pairwise([settings.least_s, *inner, settings.most_s]))
    places: dict[tuple[Kind, int], list[Ended]] = {}
    for one in report.ended:
        places.setdefault((one.asked.text.kind, bisect_right(inner, one.asked.budget_s)), []).append(one)
    return [
        _band(kind, *bands[at], places[kind, at]) for kind in Kind for at in range(len(bands)) if (kind, at) in places
    ]


def unanswered(report: BudgetReport) -> dict[str, int]:
    """Why requests had no answer, and how many."""
    return dict(Counter(one.outcome.why for one in report.ended if isinstance(one.outcome, Unsummarised)))


def longest_step_overshoot_s(ended: Sequence[Ended]) -> float | None:
    """The furthest that any step ended past its deadline, negative where all ended before; None without a step."""
    return max((step.ended_s for one in ended for step in one.steps or ()), default=None)


def longest_overshoot_s(ended: Sequence[Ended]) -> float | None:
    """The furthest that an answer came past its budget, by the client; negative where all came before."""
    latencies = [one.latency_s - one.asked.budget_s for one in ended if isinstance(one.outcome, Summarised)]
    return max(latencies, default=None)


def _punctual_steps(ended: Sequence[Ended]) -> Promise:
    """Proved only where the steps of every answer were logged, and there was a step at all."""
    late = sum(step.late for one in ended for step in one.steps or ())
    steps = sum(len(one.steps or ()) for one in ended)
    unlogged = sum(isinstance(one.outcome, Summarised) and one.steps is None for one in ended)
    sentence = f"engine steps that began after their deadline: {late} of {steps} logged (none may)"
    if unlogged:
        sentence += f"; not proved: the steps of {unlogged} answers were not logged"
    return Promise(bool(steps) and not late and not unlogged, sentence)


def _checkpoint(name: str, answers: Sequence[tuple[Ended, Summarised]]) -> CheckpointFigures:
    budgets_s = [one.asked.budget_s for one, _ in answers]
    ratios = [one.latency_s / one.asked.budget_s for one, _ in answers]
    p50, p95, p99, most = (float(value) for value in np.percentile(ratios, (50, 95, 99, 100)))
    return CheckpointFigures(
        checkpoint=name,
        answers=len(answers),
        in_time=sum(one.in_time for one, _ in answers),
        least_budget_s=min(budgets_s),
        median_budget_s=median(budgets_s),
        most_budget_s=max(budgets_s),
        ratios=Ratios(p50, p95, p99, most),
        finish_reasons=dict(Counter(answer.finish_reason for _, answer in answers).most_common()),
        beams=dict(sorted(Counter(answer.beams for _, answer in answers).items())),
        leads=sum(answer.lead for _, answer in answers),
    )


def _band(kind: Kind, least: float, most: float, ended: Sequence[Ended]) -> BandFigures:
    scores = [one.rouge_l for one in ended if one.rouge_l is not None]
    names = [one.outcome.checkpoint for one in ended if isinstance(one.outcome, Summarised)]
    return BandFigures(
        kind=kind,
        from_s=least,
        to_s=most,
        texts=len(ended),
        in_time=sum(one.in_time for one in ended),
        rouge_l=fmean(scores) if scores else None,
        checkpoints=dict(Counter(names).most_common()),
    )
