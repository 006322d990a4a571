"""The page that a report is: its frame and its style sheet. Nothing in it is fetched from anywhere."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from loadtests.results.ink import Colour, Plot

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

STYLE = """
:root{--face:system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 var(--face)}
main,header,footer{max-width:1180px;margin:0 auto;padding:0 16px}
header{padding-top:40px}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 4px}
h2{font-size:1.25rem;line-height:1.3;margin:48px 0 4px}
h3{font-size:.9rem;font-weight:600;margin:0 0 2px}
p{max-width:76ch;margin:8px 0}
.lead{font-size:1.1rem}
.kind{color:var(--muted);margin:0 0 12px;font-size:.9rem}
.verdict{border-left:4px solid var(--ours);padding:4px 0 4px 14px;margin:20px 0}
.warning{border-left:4px solid var(--late);padding:4px 0 4px 14px;margin:20px 0}
.panels,.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr));gap:20px 24px}
.panels{margin:14px 0}
.figures{row-gap:0}
.figures>section{min-width:0}
.figures>section:not(.single){grid-column:1/-1}
.panel{max-width:560px;min-width:0}
figure{margin:0}
figcaption,.note{color:var(--muted);font-size:.88rem;max-width:90ch;margin:2px 0 8px}
svg{display:block;width:100%;height:auto;overflow:visible;stroke-linejoin:round;stroke-linecap:butt}
svg text{font-family:var(--face)!important}
ul.legend{display:flex;flex-wrap:wrap;gap:4px 18px;list-style:none;padding:0;margin:8px 0;font-size:.88rem}
ul.legend i{display:inline-block;width:12px;height:12px;border-radius:2px;margin-right:6px;vertical-align:-1px}
.wide{overflow-x:auto;margin:14px 0 4px}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums;white-space:nowrap}
caption{text-align:left;font-weight:600;padding:4px 0;white-space:normal}
th,td{padding:4px 12px;border-bottom:1px solid var(--faint);text-align:right;font-weight:400}
thead th{white-space:normal;vertical-align:bottom;min-width:5.5em;color:var(--muted);border-bottom-color:var(--muted)}
.words{text-align:left}
th:first-child{text-align:left;padding-left:0}
strong{font-weight:700}
tr.ours th,tr.ours td{color:var(--ours)}
details{margin:14px 0}
summary{cursor:pointer;color:var(--ours)}
footer{color:var(--muted);font-size:.85rem;margin:56px auto 40px}
@media print{body{font-size:12px}.panel,table{break-inside:avoid}}
"""


def page(title: str, kind: str, parts: Iterable[str]) -> str:
    """A whole document of these parts; its colours follow what the reader's system prefers."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{_colours()}{STYLE}</style></head>\n"
        f'<body><header><h1>{escape(title)}</h1><p class="kind">{escape(kind)}</p></header><main>\n'
        + "\n".join(parts)
        + "\n</main><footer>Drawn by Punctual's load tests. What is plotted against load is in the tables.</footer>"
        + "</body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A part of the page under a heading."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph, of a class where one is named."""
    named = f' class="{kind}"' if kind else ""
    return f"<p{named}>{escape(text)}</p>"


def folded(summary: str, *parts: str) -> str:
    """What opens when asked for."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"


def figures(plots: Iterable[Plot]) -> str:
    """Plots under one another; those of one panel share a line where there is room."""
    return f'<div class="figures">{"".join(_figure(plot) for plot in plots)}</div>'


def _figure(plot: Plot) -> str:
    """A plot under its title: caption, legend, panels."""
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
