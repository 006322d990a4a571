"""Fit the scores of `/answer` and measure each starter embedder: `python -m exporters.starter.answers`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from deployments.replica.answering.sentences import MIDDLE, SLOPE, TEMPERATURE
from exporters.errors import ExportError
from exporters.sources.registry import NotFetched
from exporters.starter.answers.material import Asked, questions, synopses
from exporters.starter.command import CACHE, THREADS
from exporters.starter.embedders.vectors import Vectors, vectors_of
from exporters.starter.packages import CannotBuild
from exporters.starter.zero_shot.fit import Cosines, Sigmoid, off, sigmoid_of, temperature_of

EMBEDDERS = ("paraphrase-minilm-l3", "all-minilm-l6", "all-mpnet-base")
"""Those of the starter catalog."""

MOST = 1_000
"""Questions of Disfl-QA that are scored on, with an answer and without: a few minutes on two cores."""

WIDTH = 150
"""Columns of the table, so that no cell is cut."""


def near(asked: Sequence[Asked], vectors: Vectors) -> Cosines:
    """The cosine of each question (row) with each sentence of its context (column); -inf where it has no more."""
    texts = list(dict.fromkeys(text for one in asked for text in (one.question, *one.sentences)))
    of_text = dict(zip(texts, vectors(texts), strict=True))
    found: Cosines = np.full((len(asked), max(len(one.sentences) for one in asked)), -np.inf)
    for at, one in enumerate(asked):
        found[at, : len(one.sentences)] = np.stack([of_text[text] for text in one.sentences]) @ of_text[one.question]
    return found


def first_right(asked: Sequence[Asked], cosines: Cosines, best: int = 1) -> float:
    """The share of questions that have a right sentence among the `best` nearest."""
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :best].tolist()
    return float(np.mean([bool(one.right & set(row)) for one, row in zip(asked, order, strict=True)]))


def by_chance(asked: Sequence[Asked]) -> float:
    """The share of questions that a sentence drawn by chance answers."""
    return float(np.mean([len(one.right) / len(one.sentences) for one in asked]))


def right_of(asked: Sequence[Asked], cosines: Cosines) -> list[int]:
    """One right sentence of each question: the nearest of them."""
    return [max(one.right, key=row.__getitem__) for one, row in zip(asked, cosines.tolist(), strict=True)]


def sigmoid_of_best(asked: Sequence[Asked], measured: Sequence[Cosines]) -> Sigmoid:
    """The sigmoid of the nearest sentence: each context as it is, and without the sentences that answer."""
    both = []
    for cosines in measured:
        without = cosines.copy()
        for row, one in zip(without, asked, strict=True):
            row[list(one.right)] = -np.inf
        both.append(np.stack([cosines.max(axis=1), without.max(axis=1)], axis=1))
    return sigmoid_of(both, [0] * len(asked))


def told_apart(answered: Cosines, unanswered: Cosines) -> float:
    """How often a question with an answer has a nearer sentence than one without, from 0 to 1; 0.5 by chance."""
    ours, theirs = answered.max(axis=1)[:, None], unanswered.max(axis=1)[None]
    return float((ours > theirs).mean() + (ours == theirs).mean() / 2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the fit and the scores. Status 0, or 1 if data or weights cannot be fetched."""
    parser = argparse.ArgumentParser(prog="python -m exporters.starter.answers", description=__doc__)
    parser.add_argument("--cache", type=Path, default=CACHE, help="the folder of downloads")
    options = parser.parse_args(arguments)
    console = Console(width=WIDTH)
    torch.set_num_threads(THREADS)
    try:
        fitted_on, scored_on = synopses(options.cache / "lists"), questions(options.cache, MOST)
        embedders = {name: vectors_of(name, options.cache) for name in EMBEDDERS}
    except (CannotBuild, NotFetched, ExportError) as missing:
        console.print(f"[red]{missing}[/red]")
        return 1
    fitted = {name: near(fitted_on, vectors) for name, vectors in embedders.items()}
    temperature = temperature_of([*fitted.values()], [min(one.right) for one in fitted_on])
    sigmoid = sigmoid_of_best(fitted_on, [*fitted.values()])
    console.print(
        f"fitted on {len(fitted_on)} synopses of Debian's packages, {len(fitted_on[0].sentences)} sentences each: "
        f"temperature {temperature:.4f} (in use {TEMPERATURE}), "
        f"sigmoid middle {sigmoid.middle:.4f} (in use {MIDDLE}), slope {sigmoid.slope:.2f} (in use {SLOPE})"
    )
    table = Table("checkpoint", "data", "questions", "by chance", "first", "in two", "calibration error", "told apart")
    answered, unanswered = [[one for one in scored_on if bool(one.right) is has] for has in (True, False)]
    for name, vectors in embedders.items():
        apart = told_apart(near(answered, vectors), near(unanswered, vectors))
        for data, asked, last in (
            ("Debian", fitted_on, "-"),
            ("Disfl-QA", answered, f"{apart:.3f} of {len(unanswered)}"),
        ):
            cosines = near(asked, vectors)
            figures = (
                f"{by_chance(asked):.1%}",
                f"{first_right(asked, cosines):.1%}",
                f"{first_right(asked, cosines, 2):.1%}",
                f"{off(cosines, right_of(asked, cosines), TEMPERATURE):.3f}",
            )
            table.add_row(name, data, str(len(asked)), *figures, last)
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
