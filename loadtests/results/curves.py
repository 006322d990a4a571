"""How policies are drawn against load: lines with their bands and names, or dots where there is one load only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.axes import Axes

from loadtests.results.aggregate import Cell, Figure, Spread
from loadtests.results.ink import ABOVE, BELOW, HEIGHT, LEFT, WIDTH, Colour, Panel, apart, panel
from loadtests.results.roles import Roles
from loadtests.results.words import Scale

MOST_LINES = 12
LABELS = 122.0
"""Pixels beside the axes for the names of policies."""
LABEL_SIZE = 9.5
LONGEST_NAME = 21
"""Characters of a name that the labels have room for."""
DASHES: tuple[tuple[float, ...], ...] = ((), (4, 1.5), (1.2, 1.2), (6, 1.5, 1.2, 1.5))


@dataclass(frozen=True, slots=True)
class Line:
    """How a policy is drawn; of two that cross, the one with the higher `order` is on top."""

    policy: str
    colour: Colour
    width: float
    order: int
    marker: str = ""
    dashes: tuple[float, ...] = ()

    @property
    def weight(self) -> str:
        """Of its name."""
        return "bold" if self.colour is Colour.OURS else "normal"


@dataclass(frozen=True, slots=True)
class Curve:
    """A policy's line: what it has at each load, at one at least."""

    line: Line
    points: Mapping[float, Spread]


def lines_of(found: Sequence[Cell], roles: Roles, figure: Figure) -> tuple[Line, ...]:
    """Ours in colour and thick, the best baseline in another, bounds broken, the others grey and thin.

    Of more than twelve, the best.
    """
    mean: dict[str, float] = {}
    for policy in dict.fromkeys(cell.policy for cell in found):
        mean[policy] = fmean(cell.spread(figure).mean for cell in found if cell.policy == policy)
    ranked = sorted(mean, key=lambda policy: (roles.rank(policy), -mean[policy]))[:MOST_LINES]
    rivals = [policy for policy in ranked if policy in roles.baselines]
    return tuple(_line(policy, roles, rivals) for policy in ranked)


def curves_of(found: Sequence[Cell], lines: Sequence[Line], cv: float, figure: Figure) -> list[Curve]:
    """The curves at one coefficient of variation of the policies that have the figure there."""
    curves = []
    for line in lines:
        of = [cell for cell in found if cell.policy == line.policy and cell.place.cv == cv]
        if of:
            curves.append(Curve(line, {cell.place.load: cell.spread(figure) for cell in of}))
    return curves


def curves_panel(
    heading: str, curves: Sequence[Curve], scale: Scale, span: tuple[float, float], nominal: float | None = None
) -> Panel:
    """One panel of curves; `nominal` draws a broken line at what the figure should be."""
    loads = sorted({load for curve in curves for load in curve.points})
    said = f"{scale.title} in {scale.unit} by policy. " + "; ".join(_said(curve, scale) for curve in curves) + "."

    def lines(axes: Axes) -> None:
        if nominal is not None:
            axes.axhline(nominal * scale.times, color=Colour.INK.value, linewidth=1, linestyle=(0, (5, 2)), zorder=4.2)
        _lines(axes, curves, scale, span, banded=nominal is None)

    def dots(axes: Axes) -> None:
        if nominal is not None:
            axes.axvline(nominal * scale.times, color=Colour.INK.value, linewidth=1, linestyle=(0, (5, 2)))
        _dots(axes, curves, scale, span)

    if len(loads) > 1:
        return panel(heading, said, lines, right=LABELS)
    height = ABOVE + BELOW + 17.0 * len(curves)
    return panel(f"{heading}, load {loads[0]:g}", said, dots, left=LABELS, height=height)


def span_of(spreads: Sequence[Spread], scale: Scale) -> tuple[float, float]:
    """From the least to the most with a little air, never under nothing nor over a whole."""
    low = min(spread.least for spread in spreads) * scale.times
    high = max(spread.most for spread in spreads) * scale.times
    air = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    ceiling = 100.5 if scale.unit.startswith("%") else high + air
    return max(0.0, low - air), min(high + air, ceiling)


def drawn_name(policy: str) -> str:
    """The name as a plot has room for it: of a long one its beginning and its end, where static choices differ."""
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
    """Every line, and its band; only ours where lines lie so close that bands would hide them."""
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
    """Names beside the ends of lines, moved apart where they would overlap, each tied to its end."""
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
    """Policies from the best down, a dot and its interval each."""
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


def _said(curve: Curve, scale: Scale) -> str:
    """Where the line begins and ends, for who cannot see it."""
    ends = sorted({min(curve.points), max(curve.points)})
    means = (f"{curve.points[load].mean * scale.times:.{scale.digits}f} at load {load:g}" for load in ends)
    return f"{curve.line.policy} {', '.join(means)}"


def _few(loads: Sequence[float]) -> list[float]:
    """At most seven of them, the last among them."""
    every = -(-len(loads) // 7)
    return [load for at, load in enumerate(reversed(loads)) if at % every == 0][::-1]
