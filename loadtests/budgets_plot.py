"""Budgets as a drawing: every answer's latency against its budget, both logarithmic, a colour for each checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

from loadtests.budgets import BudgetReport, Ended
from loadtests.summary_answers import Summarised

WIDTH, HEIGHT = 760, 520
LEFT, RIGHT, TOP, BOTTOM = 80, 20, 40, 60
DOT = 3.5
INK, GRID, LATE = "#202124", "#e8eaed", "#d93025"
COLOURS = ("#9aa0a6", "#1a73e8", "#f29900", "#188038", "#9334e6", "#12b5cb")


@dataclass(frozen=True)
class Axis:
    """A logarithmic scale from `least` to `most` seconds, drawn from pixel `start` to pixel `end`."""

    least: float
    most: float
    start: float
    end: float

    def at(self, seconds: float) -> float:
        """The pixel of so many seconds; what lies outside is drawn at the edge."""
        inside = min(max(seconds, self.least), self.most)
        share = math.log(inside / self.least) / math.log(self.most / self.least)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """The 1, 2 and 5 of every power of ten within."""
        powers = range(math.floor(math.log10(self.least)), math.ceil(math.log10(self.most)) + 1)
        marks = (digit * 10.0**power for power in powers for digit in (1, 2, 5))
        return [mark for mark in marks if self.least <= mark * (1 + 1e-9) and mark <= self.most * (1 + 1e-9)]


def write_budgets_svg(report: BudgetReport, path: Path) -> None:
    """One self-contained drawing. A late answer has a red ring; a request without an answer is not in it."""
    answers = [(one, one.outcome) for one in report.ended if isinstance(one.outcome, Summarised)]
    settings = report.settings
    latencies = [one.latency_s for one, _ in answers]
    least = 0.8 * min([settings.least_s, *latencies])
    across = Axis(settings.least_s, settings.most_s, LEFT, WIDTH - RIGHT)
    up = Axis(least, max([settings.most_s, *latencies]), HEIGHT - BOTTOM, TOP)
    colours = {name: COLOURS[at % len(COLOURS)] for at, name in enumerate(report.checkpoints)}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="8" y="25" font-weight="bold">{len(answers)} summaries: latency against budget, ms</text>',
        *_grid(across, up),
        *(_dot(one, colours.get(answer.checkpoint, INK), across, up) for one, answer in answers),
        *_legend(colours, {answer.checkpoint for _, answer in answers}),
        "</svg>",
    ]
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _grid(across: Axis, up: Axis) -> Iterator[str]:
    """Lines and numbers of both axes, their names, and the line on which latency equals budget."""
    for seconds in across.ticks():
        x = across.at(seconds)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{up.start}" y2="{up.end}" stroke="{GRID}"/>'
        yield f'<text x="{x:.1f}" y="{up.start + 18}" text-anchor="middle">{seconds * 1000:g}</text>'
    for seconds in up.ticks():
        y = up.at(seconds)
        yield f'<line x1="{across.start}" x2="{across.end}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>'
        yield f'<text x="{across.start - 8}" y="{y + 4:.1f}" text-anchor="end">{seconds * 1000:g}</text>'
    yield f'<text x="{(across.start + across.end) / 2}" y="{HEIGHT - 18}" text-anchor="middle">budget</text>'
    middle = (up.start + up.end) / 2
    yield f'<text x="18" y="{middle}" text-anchor="middle" transform="rotate(-90 18 {middle})">latency</text>'
    ends = ((across.at(seconds), up.at(seconds)) for seconds in (across.least, across.most))
    (x1, y1), (x2, y2) = ends
    yield f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{INK}" stroke-dasharray="4 3"/>'


def _dot(one: Ended, colour: str, across: Axis, up: Axis) -> str:
    ring = "none" if one.in_time else LATE
    place = f'cx="{across.at(one.asked.budget_s):.1f}" cy="{up.at(one.latency_s):.1f}"'
    return f'<circle {place} r="{DOT}" fill="{colour}" fill-opacity="0.75" stroke="{ring}" stroke-width="1.5"/>'


def _legend(colours: dict[str, str], answered: set[str]) -> Iterator[str]:
    for at, (name, colour) in enumerate((name, colour) for name, colour in colours.items() if name in answered):
        y = TOP + 16 + 20 * at
        yield f'<circle cx="{LEFT + 16}" cy="{y}" r="{DOT + 1}" fill="{colour}"/>'
        yield f'<text x="{LEFT + 28}" y="{y + 4}">{escape(name)}</text>'
    yield f'<text x="{WIDTH - RIGHT - 4}" y="25" text-anchor="end">dashed: latency = budget; red ring: late</text>'
