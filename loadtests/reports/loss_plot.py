"""The page of an ablation: what each part of the policy earns, drawn and in tables. Needs Matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from loadtests.reports.drawing import ABOVE, BELOW, Chip, Colour, Panel, Plot, panel
from loadtests.reports.losses import Loss, loss_grid, loss_sentences, ranked, scenario_grid
from loadtests.reports.page import figures, page, paragraph, section

ROW = 15.0
"""The height of a part's row, in pixels."""
NAMES = 128.0
"""The margin for the names of parts, in pixels."""
SMALL = 9.0


def write_losses(losses: Sequence[Loss], path: Path, command: str) -> None:
    """Writes the page; equal losses give equal bytes."""
    parts = [
        paragraph(command, "lead"),
        *(paragraph(sentence, "verdict") for sentence in loss_sentences(losses)),
        figures([loss_plot(losses)]),
        section("Tables", loss_grid(losses).html(), scenario_grid(losses).html()),
    ]
    path.write_text(page("What each part of the policy earns", "Punctual ablation, simulated", parts), encoding="utf-8")


def loss_plot(losses: Sequence[Loss]) -> Plot:
    """Each part as a row: its loss in every scenario as a faint dot, and over all with its interval."""
    return Plot(
        "losses",
        "Lost without it, points of the task's best quality",
        "Bars: 95 % intervals over all scenarios.",
        (_panel(ranked(losses)),),
        (
            Chip(Colour.OURS, "over all, beyond chance"),
            Chip(Colour.MUTED, "over all"),
            Chip(Colour.RIVAL, "one scenario"),
        ),
    )


def _panel(losses: Sequence[Loss]) -> Panel:
    said = "Loss without each part: " + "; ".join(f"{loss.name} {loss.overall.text}" for loss in losses) + "."
    height = ABOVE + BELOW + ROW * len(losses)
    return panel("all scenarios", said, lambda axes: _rows(axes, losses), left=NAMES, height=height)


def _rows(axes: Axes, losses: Sequence[Loss]) -> None:
    axes.axvline(0.0, color=Colour.INK.value, linewidth=0.8)
    for height, loss in enumerate(reversed(losses)):
        mean = loss.overall
        margin = mean.margin() or 0.0
        colour = (Colour.OURS if abs(mean.value) > margin > 0 else Colour.MUTED).value
        each = [one.value for one in loss.by_scenario.values()]
        axes.plot(
            each, [height] * len(each), marker="o", linestyle="", markersize=2.5, color=Colour.RIVAL.value, alpha=0.6
        )
        axes.plot([mean.value - margin, mean.value + margin], [height] * 2, color=colour, linewidth=2)
        axes.plot([mean.value], [height], marker="o", color=colour, markersize=5)
    names = [loss.name for loss in reversed(losses)]
    axes.set_yticks(range(len(names)), names, fontsize=SMALL)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xscale("symlog", linthresh=1.0)
    axes.set_xlabel("points lost")
