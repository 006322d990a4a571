"""How often a checkpoint is right, overall and on each data set, with how far chance may have moved the figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification

from exporters.starter.batches import encode
from exporters.starter.data import LABELS, SOURCES, Sentence
from exporters.starter.fit import logits_of
from exporters.starter.manifest import Score
from exporters.starter.vocabulary import MAX_TOKENS


def answers(folder: Path, sentences: Sequence[Sentence]) -> list[str]:
    """The label a saved checkpoint gives each sentence: its files as shipped, computed in fp32."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    logits = logits_of(model, encode(tokenizer, [s.text for s in sentences], MAX_TOKENS))
    return [LABELS[i] for i in logits.argmax(1).tolist()]


def score(sentences: Sequence[Sentence], given: Sequence[str]) -> Score:
    """Accuracy with its 95 % Wilson interval. Raises `ValueError` for no sentences: there is no such figure."""
    n = len(sentences)
    if n == 0:
        raise ValueError("no sentences to score")
    right = sum(s.label == answer for s, answer in zip(sentences, given, strict=True))
    low, high = wilson(right, n)
    return Score(sentences=n, accuracy=round(right / n, 4), low=round(low, 4), high=round(high, 4))


def by_source(sentences: Sequence[Sentence], given: Sequence[str]) -> dict[str, Score]:
    """The score on each data set that has a sentence here, in the fixed order of the data sets."""
    scores = {}
    for source in SOURCES.values():
        pairs = [(s, a) for s, a in zip(sentences, given, strict=True) if s.source == source]
        if pairs:
            scores[source] = score([s for s, _ in pairs], [a for _, a in pairs])
    return scores


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The interval that holds the true share 95 times in 100 (Wilson, 1927)."""
    share = right / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return centre - half, centre + half
