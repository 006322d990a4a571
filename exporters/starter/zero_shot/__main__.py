"""Fit the scores of `/zero-shot` and measure each starter embedder: `python -m exporters.starter.zero_shot`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from deployments.replica.zero_shot import MIDDLE, SLOPE, TEMPERATURE
from exporters.errors import ExportError
from exporters.sources.registry import NotFetched
from exporters.starter.command import CACHE, THREADS
from exporters.starter.embedders.build import RECIPES
from exporters.starter.embedders.vectors import Vectors, vectors_of
from exporters.starter.packages import CannotBuild
from exporters.starter.zero_shot.fit import Cosines, accuracy, loss, off, sigmoid_of, temperature_of
from exporters.starter.zero_shot.material import Topics, intents, sections
from gateway.tasks.zero_shot import DEFAULT_TEMPLATE, PLACE

WIDTH = 150
"""Columns of the table, so that no cell is cut."""


def measured(topics: Topics, vectors: Vectors, template: str) -> Cosines:
    """The cosine of each text (row) with the sentence about each label (column)."""
    of_labels = vectors([template.replace(PLACE, label) for label in topics.labels])
    found: Cosines = vectors(topics.texts) @ of_labels.T
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the fit and the scores. Status 0, or 1 if data or weights cannot be fetched."""
    parser = argparse.ArgumentParser(prog="python -m exporters.starter.zero_shot", description=__doc__)
    parser.add_argument("--cache", type=Path, default=CACHE, help="the folder of downloads")
    options = parser.parse_args(arguments)
    console = Console(width=WIDTH)
    torch.set_num_threads(THREADS)
    try:
        fitted_on, scored_on = sections(options.cache / "lists"), intents(options.cache)
        embedders = {recipe.name: vectors_of(recipe.name, options.cache) for recipe in RECIPES}
    except (CannotBuild, NotFetched, ExportError) as missing:
        console.print(f"[red]{missing}[/red]")
        return 1
    fitted = {name: measured(fitted_on, vectors, PLACE) for name, vectors in embedders.items()}
    temperature = temperature_of([*fitted.values()], fitted_on.right)
    sigmoid = sigmoid_of([*fitted.values()], fitted_on.right)
    console.print(
        f"fitted on {len(fitted_on.texts)} texts of {fitted_on.name}, {len(fitted_on.labels)} labels: "
        f"temperature {temperature:.4f} (in use {TEMPERATURE}), "
        f"sigmoid middle {sigmoid.middle:.4f} (in use {MIDDLE}), slope {sigmoid.slope:.2f} (in use {SLOPE})"
    )
    table = Table("checkpoint", "data", "texts", "labels", "template", "accuracy", "loss", "calibration error")
    for name, vectors in embedders.items():
        for topics in (fitted_on, scored_on):
            for template in (PLACE, DEFAULT_TEMPLATE):
                cosines = measured(topics, vectors, template)
                figures = (
                    f"{accuracy(cosines, topics.right):.1%}",
                    f"{loss(cosines, topics.right, TEMPERATURE):.3f}",
                    f"{off(cosines, topics.right, TEMPERATURE):.3f}",
                )
                table.add_row(name, topics.name, str(len(topics.texts)), str(len(topics.labels)), template, *figures)
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
