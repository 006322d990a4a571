"""Draws panels as SVG for an HTML page: themeable colours, one size.

Matplotlib draws, and this module cleans up: Matplotlib's SVG has ids that clash between drawings, a global style
sheet, fixed colours and ten digits a number.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from html import escape
from io import StringIO

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

WIDTH, HEIGHT = 370.0, 260.0
"""The size of a panel in CSS pixels on a phone; larger screens scale it up a little."""
LEFT, ABOVE, BELOW = 40.0, 10.0, 42.0
"""Margins of the axes, in pixels."""
POINTS = 72.0


class Colour(StrEnum):
    """The colours by meaning. Values are for light pages; a page overrides them by the CSS variable of the same name.

    Okabe and Ito's palette, which suits the colour-blind; tiers are shades of one hue.
    """

    INK = "#1c2127"
    FAINT = "#d9dde2"
    MUTED = "#7b8490"
    PAPER = "#fefefe"
    OURS = "#0067ad"
    RIVAL = "#c24e00"
    BOUND = "#1c2128"
    REALTIME = "#a6cdee"
    BALANCED = "#4f9bd6"
    QUALITY = "#0a5591"
    LATE = "#d95f02"
    REFUSED = "#e3b505"
    FAILED = "#5f6670"

    @property
    def variable(self) -> str:
        """The CSS variable of this colour."""
        return f"--{self.name.lower()}"


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawing: its heading, its text alternative, and the SVG."""

    heading: str
    said: str
    svg: str


@dataclass(frozen=True, slots=True)
class Chip:
    """One entry of a legend."""

    colour: Colour
    label: str


@dataclass(frozen=True, slots=True)
class Plot:
    """Panels with equal axes side by side, with a title and a caption."""

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    legend: tuple[Chip, ...] = ()


STYLE: dict[RcKeyType, object] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "punctual",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": Colour.MUTED.value,
    "axes.labelcolor": Colour.INK.value,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.xmargin": 0.02,
    "grid.color": Colour.FAINT.value,
    "grid.linewidth": 0.6,
    "text.color": Colour.INK.value,
    "xtick.color": Colour.MUTED.value,
    "ytick.color": Colour.MUTED.value,
    "xtick.labelcolor": Colour.INK.value,
    "ytick.labelcolor": Colour.INK.value,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "path.simplify": True,
}


def panel(
    heading: str,
    said: str,
    draw: Callable[[Axes], None],
    right: float = 10.0,
    left: float = LEFT,
    height: float = HEIGHT,
) -> Panel:
    """Draws a panel with margins for labels. Equal drawings give equal bytes."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH / POINTS, height / POINTS))
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        axes = figure.add_axes((left / WIDTH, BELOW / height, 1 - (left + right) / WIDTH, 1 - (ABOVE + BELOW) / height))
        axes.patch.set_visible(False)
        draw(axes)
        written = StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Panel(heading, said, tidied(written.getvalue(), f"{heading}: {said}"))


def tidied(svg: str, said: str) -> str:
    """Cleans up Matplotlib's SVG for a page: a label, the page's size and colours, short numbers.

    Ids of definitions are made from their content, so that equal ids in one page mean the same.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", svg, flags=re.DOTALL)
    named = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in named else "", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), svg)
    for colour in Colour:
        svg = svg.replace(colour.value, f"var({colour.variable})")
    view = re.search(r'viewBox="[^"]+"', svg)
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"\n\s*", "\n", body)
    body = re.sub(r"<defs>\s*</defs>\s*", "", body)
    return f'<svg {view[0] if view else ""} role="img" aria-label="{escape(said)}">{body.strip()}'


def apart(wanted: list[float], gap: float, low: float, high: float) -> list[float]:
    """Places labels near their wanted positions, at least `gap` apart, in the same order, from `low` to `high`.

    If they do not all fit, they are spaced evenly.
    """
    if not wanted:
        return []
    if gap * (len(wanted) - 1) > high - low:
        gap = (high - low) / (len(wanted) - 1)
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    placed = [0.0] * len(wanted)
    floor = low
    for rank, at in enumerate(order):
        room = high - gap * (len(order) - 1 - rank)
        placed[at] = min(max(wanted[at], floor), room)
        floor = placed[at] + gap
    return placed
