"""How near a summary comes to the one people wrote (ROUGE F1 with stemming), and how far chance may move the mean.

The scores are those of the `rouge-score` library (Lin, 2004, as Google's re-implementation counts). The baselines are
what an answer costs nothing: the text's first sentence, and its first words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rouge_score.rouge_scorer import RougeScorer

KINDS = ("rouge1", "rouge2", "rougeL")
FIRST_WORDS = 12
RESAMPLES = 2000
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9])")
ABBREVIATIONS = ("e.g.", "i.e.", "etc.", "vs.", "cf.", "a.k.a.", "aka.", "Dr.", "Mr.", "Inc.", "No.")


@dataclass(frozen=True)
class Rouge:
    """Mean F1 in points (0 to 100) over so many texts, each with its 95 % bootstrap interval."""

    texts: int
    rouge1: tuple[float, float, float]
    rouge2: tuple[float, float, float]
    rougeL: tuple[float, float, float]


def rouge(references: Sequence[str], candidates: Sequence[str], seed: int = 0) -> Rouge:
    """The mean of each measure with the bounds of its interval. Raises `ValueError` for no texts."""
    values = scores(references, candidates)
    if not len(values):
        raise ValueError("no summaries to score")
    low, high = interval(values, seed)
    figures = [tuple(round(float(v[at]), 2) for v in (values.mean(0), low, high)) for at in range(len(KINDS))]
    return Rouge(len(values), *figures)  # type: ignore[arg-type]  # three of three


def margin(references: Sequence[str], ours: Sequence[str], theirs: Sequence[str]) -> tuple[float, float, float]:
    """How many points of ROUGE-L one answer is above another on the same texts, with the paired interval."""
    values = scores(references, ours) - scores(references, theirs)
    low, high = interval(values, 0)
    return round(float(values.mean(0)[-1]), 2), round(float(low[-1]), 2), round(float(high[-1]), 2)


def scores(references: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
    """F1 in points of each text (rows) by each of `KINDS` (columns)."""
    scorer = RougeScorer(list(KINDS), use_stemmer=True)
    found = [scorer.score(r, c) for r, c in zip(references, candidates, strict=True)]
    return np.array([[100 * one[kind].fmeasure for kind in KINDS] for one in found])


def interval(values: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The 2.5th and 97.5th percentile of the means of resampled rows."""
    chance = np.random.default_rng(seed)
    means = [values[chance.integers(0, len(values), len(values))].mean(0) for _ in range(RESAMPLES)]
    low, high = np.percentile(np.stack(means), (2.5, 97.5), axis=0)
    return low, high


def first_sentence(text: str) -> str:
    """The text up to the end of its first sentence, which no abbreviation ends; the whole of it where there is none."""
    for match in SENTENCE_END.finditer(text):
        if not text[: match.start()].endswith(ABBREVIATIONS):
            return text[: match.end()].strip()
    return text


def first_words(text: str, count: int = FIRST_WORDS) -> str:
    """The text's first words."""
    return " ".join(text.split()[:count])
