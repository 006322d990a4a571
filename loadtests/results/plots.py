"""Figures against load, a panel for each coefficient of variation; and what became of requests, by tier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.axes import Axes

from gateway.model.tier import Tier
from loadtests.results.aggregate import Cell, Figure, cells
from loadtests.results.curves import curves_of, curves_panel, lines_of, span_of
from loadtests.results.ink import Chip, Colour, Panel, Plot, panel
from loadtests.results.roles import Roles
from loadtests.results.run import RunResult
from loadtests.results.tables import cvs
from loadtests.results.words import scale_of

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

    def drawing(cv: float) -> Panel:
        return curves_panel(f"CV {cv:g}", curves_of(found, lines, cv, figure), scale, span)

    captions = []
    if any(cell.spread(figure).margin for cell in found):
        captions.append("Bands and bars: 95 % intervals over seeds.")
    if left_out := len({cell.policy for cell in found} - drawn):
        captions.append(f"Not drawn: the {left_out} lowest policies, which the tables have.")
    panels = tuple(drawing(cv) for cv in cvs(runs))
    return Plot(figure, f"{scale.title}, {scale.unit}", " ".join(captions), panels)


def tier_plot(runs: Sequence[RunResult], policies: Sequence[str]) -> Plot:
    """What became of all requests offered, by load: in time by tier, late, refused, failed."""
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
    return Plot("tiers", "What became of requests, % of those offered", "", tuple(panels), tuple(legend))


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
    """From the bottom up: the share of each tier, then of each other fate, in every cell, in percent."""
    tiers = [(colour, [_tier(cell, tier) for cell in found]) for tier, colour in TIERS.items()]
    return tiers + [(colour, [_fate(cell, fate) for cell in found]) for fate, colour in FATES.items()]


def _said(cell: Cell) -> str:
    tiers = "".join(f", {share:.0f} % by {tier}" for tier in TIERS if (share := _tier(cell, tier)))
    return f"load {cell.place.load:g}: {100 * cell.attainment.mean:.0f} % in time{tiers}"


def _tier(cell: Cell, tier: Tier) -> float:
    return 100 * fmean(run.by_tier.get(tier, 0) / run.offered for run in cell.runs)


def _fate(cell: Cell, fate: str) -> float:
    return 100 * fmean(getattr(run, fate) / run.offered for run in cell.runs)
