"""Measures a variant's agreement with its source: shared parts of every kind's comparison, and golden inputs.

The variant runs as in a replica, in batches of like lengths. The source is passed in as a function, so torch is not
imported. ROUGE-L is computed by the public scorer with its stemmer, as in the literature.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Generic, TypeVar

import numpy as np

from deployments.engines.base import Engine, Logits, padded
from exporters.errors import Difference, VariantRefused
from exporters.plan import Workbench
from exporters.profiling import Advance
from gateway.model.manifest import ChoiceVerification, GoldenInput, SelfTest, TokenVerification

BATCH = 8
WORST = 10
SHOWN_CHARACTERS = 80
CHANCE = 2.0
"""The allowance for chance in a loss, in standard errors. In int8, `bart-software`'s ROUGE-L changes by a standard
deviation of 0.089 a text: it lost 0.018 on one hundred of 300 texts, and gained 0.004 on all of them."""

ODD = "na\u00efve \u2014 caf\u00e9 \U0001f600 \u4f60\u597d\tend\x00."
TOLERANCE = 0.05
QUARTILES = 4

NO_NUMBER = float(np.finfo(np.float32).max)
"""How far a logit counts as off that is no number."""

RunRows = Callable[[list[list[int]]], Logits]
RowTypes = Mapping[tuple[int, ...], Sequence[int]]
"""The token types of rows, by their token ids."""

Encode = Callable[[str], list[int]]
Verified = TypeVar("Verified")


@dataclass(frozen=True)
class Comparison(Generic[Verified]):
    """A verification, the broken floor in words or None, and the worst texts."""

    verification: Verified
    broken: str | None
    differences: tuple[Difference, ...]

    def accepted(self, bench: Workbench) -> Verified:
        """The verification if no floor is broken. Raises VariantRefused otherwise."""
        if self.broken is not None:
            raise VariantRefused(bench.plan.checkpoint, bench.plan.variant, self.broken, self.differences)
        return self.verification


def run_all(rows: list[list[int]], run: RunRows, advance: Advance, at_once: int = BATCH) -> Logits:
    """Logits of every row in order as one array, computed in batches of like lengths."""
    return np.stack(run_rows(rows, run, advance, at_once))


def run_rows(rows: list[list[int]], run: RunRows, advance: Advance, at_once: int = BATCH) -> list[Logits]:
    """Logits of every row in order, computed in batches of like lengths; those of each token without the padding."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: dict[int, Logits] = {}
    for start in range(0, len(order), at_once):
        chosen = order[start : start + at_once]
        for at, logits in zip(chosen, run([rows[i] for i in chosen]), strict=True):
            found[at] = logits[: len(rows[at])] if logits.ndim > 1 else logits
        advance(len(found) / len(rows))
    return [found[i] for i in range(len(rows))]


def batched(engine: Engine, pad_id: int, types: RowTypes | None = None) -> RunRows:
    """A function that runs the engine on rows of unequal length, padded as in a replica, with their token types."""

    def run(rows: list[list[int]]) -> Logits:
        batch = padded(rows, pad_id, None if types is None else [types[tuple(row)] for row in rows])
        return engine.run(batch.token_ids, batch.attention_mask, batch.token_types)

    return run


@dataclass(frozen=True)
class RougeL:
    """ROUGE-L of source and variant against the texts' summaries, and the most that the variant may lose."""

    source: float
    variant: float
    drop_ceiling: float


def rouge_l_lost(source: Sequence[str], variant: Sequence[str], summaries: Sequence[str], drop: float) -> RougeL:
    """Compares the ROUGE-L of two sets of summaries. The ceiling is `drop` plus the allowance for chance.

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
    """The F1 of ROUGE-L, from 0 to 1, of each text against its reference; 1 for equal texts.

    Raises ValueError if there are none, or the numbers differ.
    """
    from rouge_score.rouge_scorer import RougeScorer  # imported at export time only

    scorer = RougeScorer(["rougeL"], use_stemmer=True)

    def score(text: str, reference: str) -> float:
        if text.strip() == reference.strip():
            return 1.0
        return float(scorer.score(reference, text)["rougeL"].fmeasure)

    if not written:
        raise ValueError("no texts to score")
    return [score(text, reference) for text, reference in zip(written, references, strict=True)]


def lost(found: TokenVerification | ChoiceVerification) -> str | None:
    """A sentence if a variant loses too much ROUGE-L, else None; None also without summaries."""
    if found.rouge_l is None or found.source_rouge_l is None:
        return None
    if found.source_rouge_l - found.rouge_l <= found.rouge_l_drop_ceiling:
        return None
    return (
        f"its ROUGE-L is {found.rouge_l:.3f} and the source's {found.source_rouge_l:.3f}, "
        f"a drop over the ceiling of {found.rouge_l_drop_ceiling:.3f}"
    )


def logit_errors(source: Logits, variant: Logits) -> tuple[float, float]:
    """How far a variant's logits are off: the root mean square as a share of the source's spread, and the most.

    The spread is the standard deviation. A logit that is no number is off by `NO_NUMBER`.
    """
    off = np.abs(variant.astype(np.float64) - source)
    off = np.nan_to_num(off, nan=NO_NUMBER, posinf=NO_NUMBER)
    return float(np.sqrt((off**2).mean())) / max(float(source.std()), 1e-9), float(off.max())


def too_far_off(error: float, ceiling: float) -> str | None:
    """A sentence if the logits are off by more than the ceiling, as `logit_errors` has it, else None."""
    if error <= ceiling:
        return None
    return f"its logits are off by {error:.4f} of their standard deviation, over the ceiling of {ceiling:.4f}"


def record_self_test(engine: Engine, encode: Encode, window: int, texts: Sequence[str]) -> SelfTest:
    """Records golden inputs: answers that every replica must reproduce, for texts from the shortest to past the window.

    Each runs alone, which is deterministic. The tolerance is 5 % of the largest logit: another processor with the same
    features rounds differently, but a wrong kernel, graph or tokenizer differs far more.
    """
    golden = tuple(_golden(engine, encode, text) for text in golden_texts(texts, window))
    scale = max(abs(value) for one in golden for value in one.logits)
    return SelfTest(tolerance=TOLERANCE * max(scale, 1e-3), golden=golden)


def golden_texts(texts: Sequence[str], window: int) -> list[str]:
    """The texts at the quartiles of length, one of odd characters, and one longer than the window."""
    ordered = by_length(texts)
    quartiles = [ordered[(len(ordered) - 1) * q // QUARTILES] for q in range(QUARTILES + 1)]
    longest = ordered[-1]
    return [*dict.fromkeys(quartiles), ODD, " ".join([longest] * (1 + window // len(longest.split())))]


def by_length(texts: Sequence[str]) -> list[str]:
    """The distinct texts that are not blank, shortest first."""
    return sorted({text for text in texts if text.strip()} or {ODD}, key=lambda text: (len(text), text))


def _golden(engine: Engine, encode: Encode, text: str) -> GoldenInput:
    ids = encode(text)
    batch = padded([ids], pad_id=0)
    logits = engine.run(batch.token_ids, batch.attention_mask)[0]
    return GoldenInput(text=text, token_ids=tuple(ids), logits=tuple(logits.tolist()))
