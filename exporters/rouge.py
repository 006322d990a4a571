"""ROUGE-L as the summarisation papers count it: the public scorer, with its stemmer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from gateway.model.manifest import ChoiceVerification, TokenVerification

CHANCE = 2.0
"""Standard errors by which chance may add to a loss. What int8 changes of `bart-software`'s texts spreads by 0.089 of
ROUGE-L a text: it lost 0.018 on one hundred of 300 texts, and gained 0.004 on all of them."""


@dataclass(frozen=True)
class RougeL:
    """What source and variant reach against the texts' own summaries, and the most that the variant may lose."""

    source: float
    variant: float
    drop_ceiling: float


def rouge_l_lost(source: Sequence[str], variant: Sequence[str], summaries: Sequence[str], drop: float) -> RougeL:
    """Compares two writers of the same texts. The ceiling is `drop` and what chance may add to it.

    Raises ValueError as `rouge_l` does.
    """
    best, own = rouge_l(source, summaries), rouge_l(variant, summaries)
    losses = [one - other for one, other in zip(best, own, strict=True)]
    error = stdev(losses) / math.sqrt(len(losses)) if len(losses) > 1 else 0.0
    return RougeL(fmean(best), fmean(own), min(1.0, drop + CHANCE * error))


def mean_rouge_l(written: Sequence[str], references: Sequence[str]) -> float:
    """The mean of `rouge_l`."""
    return fmean(rouge_l(written, references))


def rouge_l(written: Sequence[str], references: Sequence[str]) -> list[float]:
    """The F1 of ROUGE-L, from 0 to 1, of each text against its reference; 1 for two that are the same.

    Raises ValueError where there are none, or not as many of both.
    """
    from rouge_score.rouge_scorer import RougeScorer  # export time only, as the exporters' other libraries

    scorer = RougeScorer(["rougeL"], use_stemmer=True)

    def score(text: str, reference: str) -> float:
        if text.strip() == reference.strip():
            return 1.0
        return float(scorer.score(reference, text)["rougeL"].fmeasure)

    if not written:
        raise ValueError("no texts to score")
    return [score(text, reference) for text, reference in zip(written, references, strict=True)]


def lost(found: TokenVerification | ChoiceVerification) -> str | None:
    """Says it when a variant loses more ROUGE-L than it may; None also where the texts bear no summaries."""
    if found.rouge_l is None or found.source_rouge_l is None:
        return None
    if found.source_rouge_l - found.rouge_l <= found.rouge_l_drop_ceiling:
        return None
    return (
        f"its ROUGE-L is {found.rouge_l:.3f} and the source's {found.source_rouge_l:.3f}, "
        f"a drop over the ceiling of {found.rouge_l_drop_ceiling:.3f}"
    )
