"""Trains a ranker on embedded documents: ridge regression on human marks, and on importance where there are none.

The solution is in closed form, so equal documents give equal rankers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.replica.summarize.ranking import (
    FEATURES,
    Facts,
    Floats,
    Ranker,
    default_count,
    describe,
    features,
    unit_rows,
)
from exporters.starter.extractive.corpus import Document
from exporters.starter.extractive.measure import importance

Table = NDArray[np.float64]
IMPORTANCE_SCALE = 0.25
"""The mark that one standard deviation of importance counts as: about the marks' own standard deviation."""


@dataclass(frozen=True)
class Recipe:
    """Training settings. `views` is 1 (mean of the marks) or 3 (one per aspect); penalties are ridge's lambdas."""

    views: int
    neighbours: bool
    spread: float
    redundancy: float
    general_weight: float
    feature_penalty: float = 30.0
    own_penalty: float = 2.5
    neighbour_penalty: float = 15.0


@dataclass(frozen=True)
class Embedded:
    """A document with the unit embeddings of its sentences."""

    document: Document
    units: Floats
    facts: Facts

    @property
    def places(self) -> NDArray[np.int64]:
        """The indices of all sentences."""
        return np.arange(len(self.units))


def embedded(documents: Sequence[Document], embeddings: Floats) -> list[Embedded]:
    """Documents with their rows of a table of embeddings, in order."""
    units, start, joined = unit_rows(embeddings), 0, []
    for document in documents:
        end = start + len(document.spans)
        joined.append(Embedded(document, units[start:end], describe(document.text, document.spans)))
        start = end
    return joined


def extract(ranker: Ranker, one: Embedded, count: int | None = None) -> list[int]:
    """The indices of the sentences that a ranker chooses; `count` defaults to the ranker's own number."""
    return ranker.choose(one.units, one.facts, count or default_count(len(one.units)))


def learn(papers: Sequence[Embedded], general: Sequence[Embedded], recipe: Recipe) -> Ranker:
    """Trains a ranker by least squares on the sentences of both; general ones have the recipe's weight."""
    inputs = np.concatenate([_inputs(one) for one in (*papers, *general)])
    targets = np.concatenate(
        [_centred([_marks(one, recipe.views) for one in papers]), *(_hints(g, recipe) for g in general)]
    )
    weights = np.ones(len(inputs))
    weights[len(inputs) - sum(len(one.units) for one in general) :] = recipe.general_weight
    scale = np.ones(inputs.shape[1])
    scale[: len(FEATURES)] = inputs[:, : len(FEATURES)].std(axis=0) + 1e-6
    solved = _ridge(inputs / scale, targets, weights, _penalties(inputs.shape[1], recipe)) / scale[:, None]
    rows = solved.T.astype(np.float32)
    width = papers[0].units.shape[1]
    at = len(FEATURES)
    own, before, after = (rows[:, at + i * width : at + (i + 1) * width] for i in range(3))
    return Ranker(rows[:, :at], own, before, after, recipe.spread, recipe.redundancy)


def _inputs(one: Embedded) -> Table:
    """The inputs of each sentence: its features, and the embeddings of itself, its predecessor and its successor."""
    none = np.zeros_like(one.units[:1])
    before, after = np.concatenate([none, one.units[:-1]]), np.concatenate([one.units[1:], none])
    return np.concatenate(
        [features(one.units, one.facts, one.places), one.units, before, after], axis=1, dtype=np.float64
    )


def _marks(one: Embedded, views: int) -> Table:
    marks = np.array(one.document.marks, dtype=np.float64)
    return marks if views > 1 else marks.mean(axis=1, keepdims=True)


def _centred(tables: Sequence[Table]) -> Table:
    """Each document's marks minus their mean over all documents."""
    together = np.concatenate(tables)
    centred: Table = together - together.mean(axis=0)
    return centred


def _hints(one: Embedded, recipe: Recipe) -> Table:
    """Targets for a document without marks: importance in standard deviations, equal in each view."""
    values = np.array(importance(one.document))
    values = (values - values.mean()) / (values.std() + 1e-6)
    return np.repeat(IMPORTANCE_SCALE * values[:, None], recipe.views, axis=1)


def _penalties(columns: int, recipe: Recipe) -> Table:
    width = (columns - len(FEATURES)) // 3
    neighbours = recipe.neighbour_penalty if recipe.neighbours else np.inf
    parts = ((len(FEATURES), recipe.feature_penalty), (width, recipe.own_penalty), (2 * width, neighbours))
    return np.concatenate([np.full(size, penalty) for size, penalty in parts])


def _ridge(inputs: Table, targets: Table, weights: Table, penalties: Table) -> Table:
    """Coefficients [columns, views] that minimise weighted squared error plus penalties; an infinite one gives 0."""
    used = np.isfinite(penalties)
    kept = inputs[:, used] - np.average(inputs[:, used], axis=0, weights=weights)
    weighted = kept * weights[:, None]
    solved = np.zeros((inputs.shape[1], targets.shape[1]))
    solved[used] = np.linalg.solve(weighted.T @ kept + np.diag(penalties[used]), weighted.T @ targets)
    return solved
