"""ROUGE F1 with stemming, in points, with confidence intervals of its mean.

Scores are by the `rouge-score` library (Google's implementation of Lin, 2004); intervals are by bootstrap over the
texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer

Scores = NDArray[np.float64]


def rouge_scores(references: Sequence[str], candidates: Sequence[str], kinds: Sequence[str]) -> Scores:
    """F1 in points (0 to 100), (texts, kinds of ROUGE)."""
    scorer = RougeScorer(list(kinds), use_stemmer=True)
    found = [scorer.score(r, c) for r, c in zip(references, candidates, strict=True)]
    return np.array([[100 * one[kind].fmeasure for kind in kinds] for one in found])


def interval(values: Scores, seed: int, resamples: int) -> tuple[Scores, Scores]:
    """The 2.5th and 97.5th percentiles of the bootstrap means of each column."""
    chosen = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    means = np.stack([values[rows].mean(axis=0) for rows in chosen])
    low, high = np.percentile(means, (2.5, 97.5), axis=0)
    return low, high
