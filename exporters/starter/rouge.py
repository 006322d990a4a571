"""ROUGE F1 with stemming, in points, and how far chance may move its mean.

The scores are those of the `rouge-score` library (Lin, 2004, as Google's re-implementation counts), the intervals
bootstrap intervals over the texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer

Scores = NDArray[np.float64]


def rouge_scores(references: Sequence[str], candidates: Sequence[str], kinds: Sequence[str]) -> Scores:
    """F1 in points (0 to 100) of each text (rows) by each kind of ROUGE (columns)."""
    scorer = RougeScorer(list(kinds), use_stemmer=True)
    found = [scorer.score(r, c) for r, c in zip(references, candidates, strict=True)]
    return np.array([[100 * one[kind].fmeasure for kind in kinds] for one in found])


def interval(values: Scores, seed: int, resamples: int) -> tuple[Scores, Scores]:
    """The 2.5th and 97.5th percentile of the means of resampled rows, for each column."""
    chosen = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    means = np.stack([values[rows].mean(axis=0) for rows in chosen])
    low, high = np.percentile(means, (2.5, 97.5), axis=0)
    return low, high
