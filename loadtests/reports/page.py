"""The HTML frame of a report with its style sheet. The page loads nothing from the network."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

from loadtests.reports.drawing import Colour, Plot

DARK = {
    Colour.INK: "#e6e9ed",
    Colour.FAINT: "#333a43",
    Colour.MUTED: "#8d97a5",
    Colour.PAPER: "#14171b",
    Colour.OURS: "#56b4e9",
    Colour.RIVAL: "#ff9d5c",
    Colour.BOUND: "#e6e9ee",
    Colour.REALTIME: "#2f6796",
    Colour.BALANCED: "#5ea5dc",
    Colour.QUALITY: "#b5dcf8",
    Colour.LATE: "#f08a3c",
    Colour.REFUSED: "#f0d25a",
    Colour.FAILED: "#99a1ad",
}

STYLE = Path(__file__).with_name("page.css")


def page(title: str, kind: str, parts: Iterable[str]) -> str:
    """A complete HTML document of these parts; its colours follow the system's light or dark mode."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{_colours()}\n{STYLE.read_text(encoding='utf-8')}</style></head>\n"
        f'<body><header><h1>{escape(title)}</h1><p class="kind">{escape(kind)}</p></header><main>\n'
        + "\n".join(parts)
        + "\n</main><footer>Drawn by Punctual's load tests. The tables hold all figures plotted against load.</footer>"
        + "</body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A section with a heading."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph, with the CSS class `kind` if given."""
    named = f' class="{kind}"' if kind else ""
    return f"<p{named}>{escape(text)}</p>"


def folded(summary: str, *parts: str) -> str:
    """Parts in a collapsed details element."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"


def figures(plots: Iterable[Plot]) -> str:
    """Plots in a column; single-panel plots share a row if there is space."""
    return f'<div class="figures">{"".join(_figure(plot) for plot in plots)}</div>'


def _figure(plot: Plot) -> str:
    """A plot: title, caption, legend and panels."""
    chips = "".join(
        f'<li><i style="background:var({chip.colour.variable})"></i>{escape(chip.label)}</li>' for chip in plot.legend
    )
    legend = f'<ul class="legend">{chips}</ul>' if chips else ""
    panels = "".join(f'<div class="panel"><h3>{escape(one.heading)}</h3>{one.svg}</div>' for one in plot.panels)
    caption = f"<figcaption>{escape(plot.caption)}</figcaption>" if plot.caption else ""
    single = ' class="single"' if len(plot.panels) == 1 else ""
    return (
        f"<section{single}><h2>{escape(plot.title)}</h2>"
        f'<figure id="{plot.name}">{caption}{legend}<div class="panels">{panels}</div></figure></section>'
    )


def _colours() -> str:
    light = "".join(f"{colour.variable}:{colour.value};" for colour in Colour)
    dark = "".join(f"{colour.variable}:{value};" for colour, value in DARK.items())
    return f":root{{{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
