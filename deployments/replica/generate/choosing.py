"""Chooses the next token of a text from the engine's logits: the likeliest, or one that is drawn. Pure numpy.

The rules and their order are those of transformers' `generate`: repetition penalty, least length, temperature, top_k,
top_p. The two penalties of OpenAI's interface come behind the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deployments.engines.base import Logits
from gateway.tasks.generate import GenerateParameters, WritingRules


@dataclass(frozen=True, slots=True)
class Choice:
    """How tokens are chosen for one text: a request's parameters over a checkpoint's own rules."""

    eos_token_ids: tuple[int, ...]
    min_new_tokens: int
    sample: bool
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float

    @classmethod
    def of(cls, given: GenerateParameters, rules: WritingRules) -> Choice:
        """Makes the choice of a request on a checkpoint."""

        def own(value: float | None, usual: float) -> float:
            return usual if value is None else value

        return cls(
            eos_token_ids=rules.eos_token_ids,
            min_new_tokens=given.min_new_tokens,
            sample=rules.sample if given.sample is None else given.sample,
            temperature=own(given.temperature, rules.temperature),
            top_k=rules.top_k if given.top_k is None else given.top_k,
            top_p=own(given.top_p, rules.top_p),
            repetition_penalty=own(given.repetition_penalty, rules.repetition_penalty),
            frequency_penalty=given.frequency_penalty,
            presence_penalty=given.presence_penalty,
        )


class Chooser:
    """Chooses the tokens of one text, one after the other. Not for several threads at once."""

    def __init__(self, choice: Choice, prompt: Sequence[int], chance: np.random.Generator) -> None:
        """Takes the token ids of the prompt, and the source of draws."""
        self._choice = choice
        self._ends = list(choice.eos_token_ids)
        self._seen = {*prompt}
        self._counts: dict[int, int] = {}
        self._written = 0
        self._chance = chance

    def choose(self, logits: Logits) -> int:
        """Takes the logits (vocabulary,) of a step, which stay unchanged, and gives the next token."""
        scores = self.scores(logits)
        token = self._drawn(scores) if self._choice.sample else int(scores.argmax())
        self._counts[token] = self._counts.get(token, 0) + 1
        self._seen.add(token)
        self._written += 1
        return token

    def scores(self, logits: Logits) -> NDArray[np.float64]:
        """The logits (vocabulary,) after penalties, without an end that would come too soon."""
        scores = logits.astype(np.float64)
        self._penalise(scores)
        if self._written < self._choice.min_new_tokens:
            scores[self._ends] = -np.inf
        return scores

    def _penalise(self, scores: NDArray[np.float64]) -> None:
        choice = self._choice
        if choice.repetition_penalty != 1.0:
            seen = np.fromiter(self._seen, dtype=np.int64, count=len(self._seen))
            found = scores[seen]
            scores[seen] = np.where(found < 0, found * choice.repetition_penalty, found / choice.repetition_penalty)
        if choice.frequency_penalty or choice.presence_penalty:
            written = np.fromiter(self._counts, dtype=np.int64, count=len(self._counts))
            counts = np.fromiter(self._counts.values(), dtype=np.float64, count=len(self._counts))
            scores[written] -= counts * choice.frequency_penalty + choice.presence_penalty

    def _drawn(self, scores: NDArray[np.float64]) -> int:
        likely = shaped(scores, self._choice)
        return int(self._chance.choice(len(likely), p=likely))


def shaped(scores: NDArray[np.float64], choice: Choice) -> NDArray[np.float64]:
    """The probabilities (vocabulary,) that tokens of these scores are drawn with."""
    scores = (scores - scores.max()) / choice.temperature  # the likeliest is at 0, however small the divisor
    if 0 < choice.top_k < len(scores):
        least = np.partition(scores, -choice.top_k)[-choice.top_k]
        scores[scores < least] = -np.inf
    likely: NDArray[np.float64] = np.exp(scores)
    likely /= likely.sum()
    if choice.top_p < 1.0:
        order = np.argsort(-likely, kind="stable")
        before = np.cumsum(likely[order]) - likely[order]  # of all tokens that are likelier
        likely[order[1:][before[1:] >= choice.top_p]] = 0.0
        likely /= likely.sum()
    return likely
