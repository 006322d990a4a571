"""Scores extracts: ROUGE against the human summaries, with baselines and confidence intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import pairwise

import numpy as np
from rouge_score.tokenizers import DefaultTokenizer

from exporters.starter.extractive.card import Difference, Figures
from exporters.starter.extractive.corpus import Document
from exporters.starter.rouge import Scores, interval, rouge_scores

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
RESAMPLES = 10_000
SEED = 20240601
_TOKENS = DefaultTokenizer(use_stemmer=True)
Pick = Callable[[Document], Sequence[int]]


def scored(papers: Sequence[Document], pick: Pick) -> Scores:
    """The scores of each paper's extract against its reference, for each of `KINDS`."""
    extracts = ["\n".join(paper.sentences[i] for i in sorted(pick(paper))) for paper in papers]
    return rouge_scores([paper.reference for paper in papers], extracts, KINDS)


def figures(scores: Scores) -> Figures:
    """Means over the papers."""
    return Figures(**{kind: round(float(mean), 2) for kind, mean in zip(KINDS, scores.mean(axis=0), strict=True)})


def difference(scores: Scores, baseline: Scores) -> dict[str, Difference]:
    """The mean gain over a baseline in points, with its 95 % confidence interval by paired bootstrap."""
    gains = scores - baseline
    bounds = zip(KINDS, gains.mean(axis=0), *interval(gains, SEED, RESAMPLES), strict=True)
    return {
        kind: Difference(mean=round(float(mean), 2), low=round(float(low), 2), high=round(float(high), 2))
        for kind, mean, low, high in bounds
    }


def lead(count: int) -> Pick:
    """The lead baseline: the first sentences."""
    return lambda paper: range(min(count, len(paper.spans)))


def chance(count: int, seed: int) -> Pick:
    """The random baseline."""
    rng = np.random.default_rng(seed)
    return lambda paper: rng.choice(len(paper.spans), min(count, len(paper.spans)), replace=False).tolist()


def oracle(count: int) -> Pick:
    """The oracle: about the best extract of whole sentences, chosen greedily by ROUGE-1 + ROUGE-2 of the reference."""

    def pick(paper: Document) -> list[int]:
        wanted, sentences, chosen = _grams(paper.reference), paper.sentences, list[int]()
        for _ in range(min(count, len(sentences))):
            rest = [i for i in range(len(sentences)) if i not in chosen]
            chosen.append(max(rest, key=lambda i: _f1(_sum_of(_grams(sentences[j]) for j in (*chosen, i)), wanted)))
        return chosen

    return pick


def importance(document: Document) -> list[float]:
    """The importance of each sentence: its ROUGE-1 F1 against all others (PEGASUS, Zhang et al., 2020)."""
    words = [_words(_grams(sentence)) for sentence in document.sentences]
    total = _sum_of(words)
    return [_f1(own, total - own) for own in words]


def against_rest(document: Document, chosen: Iterable[int]) -> float:
    """ROUGE-1 F1, from 0 to 1, of chosen sentences against all others, for texts without a summary."""
    inside, sentences = set(chosen), document.sentences
    own = _words(_sum_of(_grams(sentences[i]) for i in inside))
    return _f1(own, _words(_sum_of(_grams(s) for i, s in enumerate(sentences) if i not in inside)))


def _words(grams: Counter[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
    """The unigrams only."""
    return Counter({gram: n for gram, n in grams.items() if len(gram) == 1})


@cache
def _grams(text: str) -> Counter[tuple[str, ...]]:
    """Unigrams and bigrams, stemmed as in the scorer."""
    words = _TOKENS.tokenize(text)
    return Counter([*((word,) for word in words), *pairwise(words)])


def _sum_of(counters: Iterable[Counter[tuple[str, ...]]]) -> Counter[tuple[str, ...]]:
    total: Counter[tuple[str, ...]] = Counter()
    for counter in counters:
        total.update(counter)
    return total


def _f1(one: Counter[tuple[str, ...]], other: Counter[tuple[str, ...]]) -> float:
    """F1 of unigrams plus F1 of bigrams; each is 0 if one side has none."""
    value = 0.0
    for size in (1, 2):
        mine = {gram: n for gram, n in one.items() if len(gram) == size}
        theirs = {gram: n for gram, n in other.items() if len(gram) == size}
        shared = sum(min(n, theirs.get(gram, 0)) for gram, n in mine.items())
        value += 2 * shared / max(sum(mine.values()) + sum(theirs.values()), 1)
    return value
