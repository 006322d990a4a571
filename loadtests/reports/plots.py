"""The plots of a report: figures against load, outcomes, latency against budget, and coverage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from gateway.model.tier import Tier
from loadtests.reports.comparison import Cell, Figure, Roles, Scale, Spread, cells, scale_of
from loadtests.reports.drawing import ABOVE, BELOW, HEIGHT, LEFT, WIDTH, Chip, Colour, Panel, Plot, apart, panel
from loadtests.reports.runs import WINDOW, Recorded, RunResult, Sample
from loadtests.reports.tables import cvs
from loadtests.workload.arrivals import Fate

MOST_LINES = 12
LABELS = 122.0
"""The margin for names of policies, in pixels."""
LABEL_SIZE = 9.5
LONGEST_NAME = 21
"""The most characters of a name in a label."""
DASHES: tuple[tuple[float, ...], ...] = ((), (4, 1.5), (1.2, 1.2), (6, 1.5, 1.2, 1.5))


@dataclass(frozen=True, slots=True)
class Line:
    """The style of a policy's line; a higher `order` is drawn on top."""

    policy: str
    colour: Colour
    width: float
    order: int
    marker: str = ""
    dashes: tuple[float, ...] = ()

    @property
    def weight(self) -> str:
        """The font weight of the policy's name."""
        return "bold" if self.colour is Colour.OURS else "normal"


@dataclass(frozen=True, slots=True)
class Curve:
    """A policy's figure at one or more loads."""

    line: Line
    points: Mapping[float, Spread]


def lines_of(found: Sequence[Cell], roles: Roles, figure: Figure) -> tuple[Line, ...]:
    """The styles: ours thick and coloured, the best baseline in another colour, bounds dashed, others thin and grey.

    At most the best twelve policies.
    """
    mean: dict[str, float] = {}
    for policy in dict.fromkeys(cell.policy for cell in found):
        mean[policy] = fmean(cell.spread(figure).mean for cell in found if cell.policy == policy)
    ranked = sorted(mean, key=lambda policy: (roles.rank(policy), -mean[policy]))[:MOST_LINES]
    rivals = [policy for policy in ranked if policy in roles.baselines]
    return tuple(_line(policy, roles, rivals) for policy in ranked)


def curves_of(found: Sequence[Cell], lines: Sequence[Line], cv: float, figure: Figure) -> list[Curve]:
    """The curves of a figure at one coefficient of variation, for policies that have it."""
    curves = []
    for line in lines:
        of = [cell for cell in found if cell.policy == line.policy and cell.place.cv == cv]
        if of:
            curves.append(Curve(line, {cell.place.load: cell.spread(figure) for cell in of}))
    return curves


def curves_panel(
    curves: Sequence[Curve], cv: float, scale: Scale, span: tuple[float, float], nominal: float | None = None
) -> Panel:
    """One panel of curves, with a dashed line at `nominal` if given."""
    loads = sorted({load for curve in curves for load in curve.points})
    said = (
        f"{scale.title} in {scale.unit} by policy. " + "; ".join(_said_of_curve(curve, scale) for curve in curves) + "."
    )

    def lines(axes: Axes) -> None:
        if nominal is not None:
            axes.axhline(nominal * scale.times, color=Colour.INK.value, linewidth=1, linestyle=(0, (5, 2)), zorder=4.2)
        _lines(axes, curves, scale, span, banded=nominal is None)

    def dots(axes: Axes) -> None:
        if nominal is not None:
            axes.axvline(nominal * scale.times, color=Colour.INK.value, linewidth=1, linestyle=(0, (5, 2)))
        _dots(axes, curves, scale, span)

    if len(loads) > 1:
        return panel(f"CV {cv:g}", said, lines, right=LABELS)
    height = ABOVE + BELOW + 17.0 * len(curves)
    return panel(f"CV {cv:g}, load {loads[0]:g}", said, dots, left=LABELS, height=height)


def span_of(spreads: Sequence[Spread], scale: Scale) -> tuple[float, float]:
    """The limits of an axis: the range of the values with a margin, within 0 and 100 %."""
    low = min(spread.least for spread in spreads) * scale.times
    high = max(spread.most for spread in spreads) * scale.times
    air = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    ceiling = 100.5 if scale.unit.startswith("%") else high + air
    return max(0.0, low - air), min(high + air, ceiling)


def drawn_name(policy: str) -> str:
    """The name, shortened in the middle to fit a plot; static choices differ at the end."""
    if len(policy) <= LONGEST_NAME:
        return policy
    return f"{policy[:11]}\u2026{policy[12 - LONGEST_NAME :]}"


def _line(policy: str, roles: Roles, rivals: Sequence[str]) -> Line:
    if policy == roles.ours:
        return Line(policy, Colour.OURS, 2.6, 5, "o")
    if policy in roles.bounds:
        return Line(policy, Colour.BOUND, 1.2, 4, dashes=(1, 1.8) if policy == roles.bounds[0] else (4, 1.8))
    rank = rivals.index(policy)
    if rank == 0:
        return Line(policy, Colour.RIVAL, 1.6, 4, "s")
    return Line(policy, Colour.MUTED, 1.0, 2, dashes=DASHES[rank % len(DASHES)])


def _lines(axes: Axes, curves: Sequence[Curve], scale: Scale, span: tuple[float, float], banded: bool) -> None:
    """Draws every line with its band; only our band if `banded` is False, as close lines would be hidden."""
    loads = sorted({load for curve in curves for load in curve.points})
    axes.set_ylim(*span)
    axes.set_xlim(loads[0], loads[-1])
    axes.set_xticks(_few(loads), [f"{load:g}" for load in _few(loads)])
    axes.set_xlabel("offered load")
    for curve in curves:
        _draw(axes, curve, scale, banded or curve.line.colour is Colour.OURS)
    _name(axes, curves, scale, span)


def _draw(axes: Axes, curve: Curve, scale: Scale, banded: bool) -> None:
    line, loads = curve.line, sorted(curve.points)
    spreads = [curve.points[load] for load in loads]
    if banded and any(spread.margin for spread in spreads):
        low, high = ([getattr(one, end) * scale.times for one in spreads] for end in ("least", "most"))
        alpha = 0.25 if line.colour is Colour.OURS else 0.15
        axes.fill_between(loads, low, high, color=line.colour.value, alpha=alpha, linewidth=0, zorder=line.order)
    axes.plot(
        loads,
        [spread.mean * scale.times for spread in spreads],
        color=line.colour.value,
        linewidth=line.width,
        linestyle=(0, line.dashes) if line.dashes else "-",
        marker=line.marker,
        markersize=2 + line.width,
        zorder=line.order + 0.5,
        clip_on=False,
    )


def _name(axes: Axes, curves: Sequence[Curve], scale: Scale, span: tuple[float, float]) -> None:
    """Writes names beside the ends of lines, moved apart if they overlap, each connected to its end."""
    low, high = span
    ends = [curve.points[max(curve.points)].mean * scale.times for curve in curves]
    gap = (high - low) * 1.3 * LABEL_SIZE / (HEIGHT - ABOVE - BELOW)
    first, last = axes.get_xlim()
    pixel = (last - first) / (WIDTH - LABELS - LEFT)
    for curve, end, place in zip(curves, ends, apart(ends, gap, low, high), strict=True):
        line = curve.line
        tie = [last + 4 * pixel, last + 13 * pixel]
        axes.plot(tie, [end, place], color=line.colour.value, linewidth=0.6, clip_on=False, zorder=1)
        axes.text(
            last + 16 * pixel, place, drawn_name(line.policy), color=line.colour.value, va="center_baseline",
            fontsize=LABEL_SIZE, fontweight=line.weight,
        )  # fmt: skip


def _dots(axes: Axes, curves: Sequence[Curve], scale: Scale, span: tuple[float, float]) -> None:
    """Draws each policy as a dot with its interval, best first."""
    ordered = sorted(curves, key=lambda curve: next(iter(curve.points.values())).mean)
    for height, curve in enumerate(ordered):
        spread = next(iter(curve.points.values()))
        colour = curve.line.colour.value
        ends = [spread.least * scale.times, spread.most * scale.times]
        axes.plot(ends, [height] * 2, color=colour, linewidth=2, clip_on=False)
        size = 4 + curve.line.width
        axes.plot([spread.mean * scale.times], [height], marker="o", color=colour, markersize=size, clip_on=False)
    axes.set_yticks(range(len(ordered)), [drawn_name(curve.line.policy) for curve in ordered], fontsize=LABEL_SIZE)
    for label, curve in zip(axes.get_yticklabels(), ordered, strict=True):
        label.set_color(curve.line.colour.value)
        label.set_fontweight(curve.line.weight)
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    axes.set_xlim(*span)
    axes.set_xlabel(scale.unit)


def _said_of_curve(curve: Curve, scale: Scale) -> str:
    """The first and last point of a curve in words, for the text alternative."""
    ends = sorted({min(curve.points), max(curve.points)})
    means = (f"{curve.points[load].mean * scale.times:.{scale.digits}f} at load {load:g}" for load in ends)
    return f"{curve.line.policy} {', '.join(means)}"


def _few(loads: Sequence[float]) -> list[float]:
    """At most seven of the loads, including the last."""
    every = -(-len(loads) // 7)
    return [load for at, load in enumerate(reversed(loads)) if at % every == 0][::-1]


FATES: Mapping[str, Colour] = {"late": Colour.LATE, "refused": Colour.REFUSED, "failed": Colour.FAILED}
TIERS: Mapping[Tier, Colour] = {
    Tier.QUALITY: Colour.QUALITY,
    Tier.BALANCED: Colour.BALANCED,
    Tier.REALTIME: Colour.REALTIME,
}


def load_plot(runs: Sequence[RunResult], roles: Roles, figure: Figure) -> Plot:
    """One figure of every policy against load."""
    scale = scale_of(runs, figure)
    found = cells(runs)
    lines = lines_of(found, roles, figure)
    drawn = {line.policy for line in lines}
    span = span_of([cell.spread(figure) for cell in found if cell.policy in drawn], scale)
    captions = []
    if any(cell.spread(figure).margin for cell in found):
        captions.append("Bands and bars: 95 % intervals over seeds.")
    if left_out := len({cell.policy for cell in found} - drawn):
        captions.append(f"Not drawn: the {left_out} lowest policies; see the tables.")
    panels = tuple(curves_panel(curves_of(found, lines, cv, figure), cv, scale, span) for cv in cvs(runs))
    return Plot(figure, f"{scale.title}, {scale.unit}", " ".join(captions), panels)


def tier_plot(runs: Sequence[RunResult], policies: Sequence[str]) -> Plot:
    """Outcomes of all requests offered, by load: in time by tier, late, refused, failed."""
    found = [cell for cell in cells(runs) if cell.policy in policies]
    panels = [
        _stack(policy, cv, of)
        for policy in policies
        for cv in cvs(runs)
        if (of := [cell for cell in found if cell.policy == policy and cell.place.cv == cv])
    ]
    tiers = [tier for tier in TIERS if any(run.by_tier.get(tier) for run in runs)]
    fates = [fate for fate in FATES if any(getattr(run, fate) for run in runs)]
    legend = [Chip(TIERS[tier], f"in time, {tier}") for tier in tiers] + [Chip(FATES[fate], fate) for fate in fates]
    return Plot("tiers", "Outcomes, % of requests offered", "", tuple(panels), tuple(legend))


def _stack(policy: str, cv: float, found: Sequence[Cell]) -> Panel:
    def draw(axes: Axes) -> None:
        floor = [0.0] * len(found)
        for colour, shares in _shares(found):
            axes.bar(range(len(found)), shares, 0.82, floor, color=colour.value, linewidth=0)
            floor = [below + share for below, share in zip(floor, shares, strict=True)]
        axes.set_xticks(range(len(found)), [f"{cell.place.load:g}" for cell in found])
        middle, half = (len(found) - 1) / 2, max(len(found), 3) / 2 + 0.1
        axes.set_xlim(middle - half, middle + half)
        axes.tick_params(axis="x", length=0)
        axes.grid(visible=False, axis="x")
        axes.set_ylim(0, 100)
        axes.set_xlabel("offered load")

    return panel(f"{policy}, CV {cv:g}", "; ".join(_said(cell) for cell in found), draw)


def _shares(found: Sequence[Cell]) -> list[tuple[Colour, list[float]]]:
    """The stacked shares in percent, bottom first: each tier, then each other outcome, in every cell."""
    tiers = [(colour, [_tier(cell, tier) for cell in found]) for tier, colour in TIERS.items()]
    return tiers + [(colour, [_fate(cell, fate) for cell in found]) for fate, colour in FATES.items()]


def _said(cell: Cell) -> str:
    tiers = "".join(f", {share:.0f} % by {tier}" for tier in TIERS if (share := _tier(cell, tier)))
    return f"load {cell.place.load:g}: {100 * cell.attainment.mean:.0f} % in time{tiers}"


def _tier(cell: Cell, tier: Tier) -> float:
    return 100 * fmean(run.by_tier.get(tier, 0) / run.offered for run in cell.runs)


def _fate(cell: Cell, fate: str) -> float:
    return 100 * fmean(getattr(run, fate) / run.offered for run in cell.runs)


DOTS = 700
"""The most requests in a scatter plot; more dots would overlap."""
MARKS = {
    Fate.IN_TIME: (Colour.OURS, "o", "in time"),
    Fate.LATE: (Colour.LATE, "X", "late"),
    Fate.REFUSED: (Colour.REFUSED, "|", "refused"),
    Fate.FAILED: (Colour.FAILED, "|", "failed"),
}


def budget_plot(of: Sequence[Recorded]) -> Plot | None:
    """Latency against budget on logarithmic axes, one panel a run. Ticks at the top are requests without an answer."""
    drawn = [one for one in of if one.samples]
    if not drawn:
        return None
    latencies_s = [s.latency_s for one in drawn for s in one.samples if s.latency_s]
    budgets_s = [s.budget_s for one in drawn for s in one.samples]
    span_s = (min(latencies_s + budgets_s) / 1.2, max(latencies_s + budgets_s) * 1.6)
    seen = {s.fate for one in drawn for s in one.samples}
    legend = tuple(Chip(MARKS[fate][0], MARKS[fate][2]) for fate in MARKS if fate in seen)
    caption = "Below the line: in time. Ticks along the top: requests without an answer. Each panel is one seed."
    panels = tuple(_scatter(one, (min(budgets_s) / 1.1, max(budgets_s) * 1.1), span_s) for one in drawn)
    return Plot("budgets", "Latency against budget, ms", caption, panels, legend)


def coverage_plot(runs: Sequence[RunResult], roles: Roles) -> Plot | None:
    """Observed and nominal coverage by load, for every policy that forecasts."""
    found = [cell for cell in cells(runs) if cell.coverage]
    nominals = [run.nominal for run in runs if run.nominal is not None]
    if not found or not nominals:
        return None
    nominal = fmean(nominals)
    lines = lines_of(found, roles, "effective_quality")
    scale = scale_of(runs, "coverage")
    span = span_of([*(cell.spread("coverage") for cell in found), Spread.of([nominal])], scale)
    caption = (
        f"The share of answers at or under their forecast quantile; dashed: the nominal {100 * nominal:.1f} %, the "
        "mean of the requested percentiles. The tables list it by class of request."
    )
    panels = tuple(
        curves_panel(curves_of(found, lines, cv, "coverage"), cv, scale, span, nominal)
        for cv in sorted({cell.place.cv for cell in found})
    )
    return Plot("coverage", "Calibration: observed coverage, %", caption, panels)


def window_plot(runs: Sequence[RunResult], policy: str, load: float) -> Plot | None:
    """Coverage of a policy over time at one load: one line a seed, and the 95 % band of chance."""
    of = [run for run in runs if run.policy == policy and run.load == load and run.windows and run.nominal]
    if not of:
        return None
    low = min(window.coverage for run in of for window in run.windows)
    floor = max(0.0, min(100 * low - 1, 90.0))
    panels = tuple(_window_panel([run for run in of if run.cv == cv], cv, floor) for cv in cvs(of))
    title = "Calibration over time: observed coverage, %"
    caption = (
        f"Of {policy} at load {load:g} in windows of {WINDOW} answers, one line a seed; dashed: nominal; shaded: the "
        "range of 95 % of windows by chance alone."
    )
    return Plot("windows", title, caption, panels)


def chance_band(nominal: float) -> tuple[float, float]:
    """The range of 95 % of windows if every answer is covered with the nominal probability."""
    margin = 1.96 * math.sqrt(nominal * (1 - nominal) / WINDOW)
    return max(0.0, nominal - margin), min(1.0, nominal + margin)


def _window_panel(runs: Sequence[RunResult], cv: float, floor: float) -> Panel:
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
    return panel(f"CV {cv:g}", f"{inside} of {len(every)} windows lie in the range of chance", draw)


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
    """Draws the requests of one outcome as dots; those without an answer along the top."""
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
    """Ticks at 1, 2 and 5 times powers of ten; only the powers if there are more than six."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    within = [digit * 10.0**power for power in powers for digit in (1, 2, 5) if low <= digit * 10.0**power <= high]
    whole = [10.0**power for power in powers if low <= 10.0**power <= high]
    return within if len(within) <= 6 or len(whole) < 2 else whole
