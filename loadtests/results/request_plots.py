"""Plots of single requests and of the forecast: latency against budget, and coverage by load and over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from loadtests.results.aggregate import Spread, cells
from loadtests.results.counting import WINDOW
from loadtests.results.curves import curves_of, curves_panel, lines_of, span_of
from loadtests.results.ink import Chip, Colour, Panel, Plot, panel
from loadtests.results.roles import Roles
from loadtests.results.run import Recorded, RunResult, Sample
from loadtests.results.tables import cvs
from loadtests.results.words import scale_of
from loadtests.simulator.requests import Fate

DOTS = 700
"""Requests a scatter shows: past that, dots only hide dots."""
MARKS = {
    Fate.IN_TIME: (Colour.OURS, "o", "in time"),
    Fate.LATE: (Colour.LATE, "X", "late"),
    Fate.REFUSED: (Colour.REFUSED, "|", "refused"),
    Fate.FAILED: (Colour.FAILED, "|", "failed"),
}


def budget_plot(of: Sequence[Recorded]) -> Plot | None:
    """Latency against budget, both logarithmic, a panel a run; what got no answer is a tick above, at its budget."""
    drawn = [one for one in of if one.samples]
    if not drawn:
        return None
    latencies_s = [s.latency_s for one in drawn for s in one.samples if s.latency_s]
    budgets_s = [s.budget_s for one in drawn for s in one.samples]
    span_s = (min(latencies_s + budgets_s) / 1.2, max(latencies_s + budgets_s) * 1.6)
    seen = {s.fate for one in drawn for s in one.samples}
    legend = tuple(Chip(MARKS[fate][0], MARKS[fate][2]) for fate in MARKS if fate in seen)
    caption = "Under the line is in time. Ticks along the top are requests without an answer. Each panel is one seed."
    panels = tuple(_scatter(one, (min(budgets_s) / 1.1, max(budgets_s) * 1.1), span_s) for one in drawn)
    return Plot("budgets", "Latency against budget, ms", caption, panels, legend)


def coverage_plot(runs: Sequence[RunResult], roles: Roles) -> Plot | None:
    """Observed coverage by load beside the nominal one, for every policy that forecasts."""
    found = [cell for cell in cells(runs) if cell.coverage]
    nominals = [run.nominal for run in runs if run.nominal is not None]
    if not found or not nominals:
        return None
    nominal = fmean(nominals)
    lines = lines_of(found, roles, "effective_quality")
    scale = scale_of(runs, "coverage")
    span = span_of([*(cell.spread("coverage") for cell in found), Spread.of([nominal])], scale)

    def drawing(cv: float) -> Panel:
        return curves_panel(f"CV {cv:g}", curves_of(found, lines, cv, "coverage"), scale, span, nominal)

    caption = (
        f"The share of answers at or under their forecast quantile; dashed: the nominal {100 * nominal:.1f} %, the "
        "mean of what requests asked for. The tables have it by class of request."
    )
    panels = tuple(drawing(cv) for cv in sorted({cell.place.cv for cell in found}))
    return Plot("coverage", "Calibration: observed coverage, %", caption, panels)


def window_plot(runs: Sequence[RunResult], policy: str, load: float) -> Plot | None:
    """Coverage of our policy over time at one load: a line a seed, and the band in which chance alone would keep it."""
    of = [run for run in runs if run.policy == policy and run.load == load and run.windows and run.nominal]
    if not of:
        return None
    low = min(window.coverage for run in of for window in run.windows)
    floor = max(0.0, min(100 * low - 1, 90.0))
    panels = tuple(_windows([run for run in of if run.cv == cv], cv, floor) for cv in cvs(of))
    title = "Calibration over time: observed coverage, %"
    caption = (
        f"Of {policy} at load {load:g} in windows of {WINDOW} answers, a line a seed; dashed: nominal; shaded: where "
        "chance alone keeps 95 of 100 windows."
    )
    return Plot("windows", title, caption, panels)


def chance_band(nominal: float) -> tuple[float, float]:
    """Where the coverage of a window lies in 95 of 100 cases if every answer is covered with the nominal chance."""
    margin = 1.96 * math.sqrt(nominal * (1 - nominal) / WINDOW)
    return max(0.0, nominal - margin), min(1.0, nominal + margin)


def _windows(runs: Sequence[RunResult], cv: float, floor: float) -> Panel:
    nominal = runs[0].nominal or 0.0
    low, high = chance_band(nominal)

    def draw(axes: Axes) -> None:
        axes.axhspan(100 * low, 100 * high, color=Colour.FAINT.value, linewidth=0)
        axes.axhline(100 * nominal, color=Colour.INK.value, linewidth=0.9, linestyle=(0, (5, 2)))
        for run in runs:
            times_s = [(window.from_s + window.to_s) / 2 for window in run.windows]
            shares = [100 * window.coverage for window in run.windows]
            axes.plot(times_s, shares, color=Colour.OURS.value, linewidth=1.0, marker="o", markersize=2.5, alpha=0.75)
        axes.set_ylim(floor, 100.5)
        axes.set_xlabel("seconds into the run")

    every = [window.coverage for run in runs for window in run.windows]
    inside = sum(low <= share <= high for share in every)
    return panel(f"CV {cv:g}", f"{inside} of {len(every)} windows lie where chance alone would keep them", draw)


def _scatter(one: Recorded, across_s: tuple[float, float], up_s: tuple[float, float]) -> Panel:
    run = one.result
    samples = one.samples[:: max(1, -(-len(one.samples) // DOTS))]

    def draw(axes: Axes) -> None:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(1000 * across_s[0], 1000 * across_s[1])
        axes.set_ylim(1000 * up_s[0], 1000 * up_s[1])
        for set_locator, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            ticks = _ticks(low, high)
            set_locator.set_major_locator(FixedLocator(ticks))
            set_locator.set_minor_locator(NullLocator())
            set_locator.set_ticklabels([f"{tick:g}" for tick in ticks])
        ends = (1000 * across_s[0], 1000 * across_s[1])
        axes.plot(ends, ends, color=Colour.INK.value, linewidth=1, linestyle=(0, (5, 2)), zorder=1.5)
        for fate, (colour, marker, _) in MARKS.items():
            _mark(axes, [s for s in samples if s.fate is fate], colour, marker, 1000 * up_s[1])
        axes.set_xlabel("budget, ms")

    heading = f"{run.policy}, CV {run.cv:g}, load {run.load:g}"
    said = (
        f"{run.served} of {run.offered} requests in time, {run.late} late, {run.refused} refused, {run.failed} failed"
    )
    return panel(heading, said, draw)


def _mark(axes: Axes, of: Sequence[Sample], colour: Colour, marker: str, top_ms: float) -> None:
    """Dots of requests of one fate; those without an answer stand at the top."""
    if not of:
        return
    heights = [top_ms / 1.1 if one.latency_s is None else 1000 * one.latency_s for one in of]
    tick = marker == "|"
    axes.plot(
        [1000 * one.budget_s for one in of],
        heights,
        linestyle="none",
        marker=marker,
        color=colour.value,
        markersize=5.0 if tick else 4.2 if marker == "X" else 3.0,
        markeredgewidth=0.8 if tick else 0.0,
        alpha=0.55 if marker == "o" else 0.95,
    )


def _ticks(low: float, high: float) -> list[float]:
    """The 1, 2 and 5 of each power of ten within; of more than six, the powers alone."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    within = [digit * 10.0**power for power in powers for digit in (1, 2, 5) if low <= digit * 10.0**power <= high]
    whole = [10.0**power for power in powers if low <= 10.0**power <= high]
    return within if len(within) <= 6 or len(whole) < 2 else whole
