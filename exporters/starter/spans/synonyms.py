"""Puts other words into questions, so that they have fewer words in common with the sentences that answer them.

Which word may stand for another is read from the embedder's vectors: `began` for `started`, `invasion` for `invaded`.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from exporters.starter.embedders.vectors import Vectors

WORD = re.compile(r"\b[a-z]{4,}\b")
LEAST_OFTEN = 4
"""Times that a word must be met among the questions, so that its vector means something."""

NEAR = 0.62
"""The least cosine of two words that may stand for each other. Set by hand, by looking at 70 words."""

MOST = 4
EXCHANGED = 0.22
"""The share of words that are exchanged where others may stand for them."""


class Synonyms:
    """Words that may stand for each other."""

    def __init__(self, near: dict[str, Sequence[str]]) -> None:
        """Takes for each word those that may stand for it."""
        self._near = near

    @classmethod
    def of(cls, questions: Iterable[str], vectors: Vectors) -> Synonyms:
        """Finds them among the words of these questions."""
        counts = Counter(word for text in questions for word in WORD.findall(text))
        words = [word for word, count in counts.items() if count >= LEAST_OFTEN]
        if not words:
            return cls({})
        found = vectors(words)
        cosines = found @ found.T
        np.fill_diagonal(cosines, 0.0)
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :MOST]
        return cls(
            {
                word: [words[at] for at in row if cosines[place, at] >= NEAR]
                for place, (word, row) in enumerate(zip(words, order.tolist(), strict=True))
            }
        )

    def exchanged(self, question: str, rng: random.Random) -> str:
        """A question with some words exchanged."""

        def other(found: re.Match[str]) -> str:
            near = self._near.get(found[0], ())
            return rng.choice(near) if near and rng.random() < EXCHANGED else found[0]

        return WORD.sub(other, question)
