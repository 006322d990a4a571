"""Finds answers in a context by the logits of its tokens, as transformers' pipeline does.

For the same logits, answers, scores and places are those of `QuestionAnsweringPipeline` of transformers 4.57, but for
answers at a score of 0, which that gives where it finds too few. Knows no engine and no tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from deployments.engines.base import Logits
from deployments.replica.answering.reading import ReadContext
from gateway.tasks.answer import AnswerParameters, FoundAnswer

Chances: TypeAlias = NDArray[np.float64]
Span: TypeAlias = tuple[int, int, float]
"""The first and the last token of an answer in its context, and the score."""


def found_answers(
    read: ReadContext, rows: Sequence[Logits], parameters: AnswerParameters, *, no_answer_token: bool
) -> list[FoundAnswer]:
    """The best answers in a context, best first, by the logits (tokens, 2) of each of its windows, perhaps padded.

    Equal answers are one, whose score is the sum of theirs, as in transformers: over several windows it may be over 1.
    `no_answer_token` says that the first token of a window stands for no answer. Without an answer there is one of
    nothing, at a score of 0.
    """
    scores: dict[str, float] = {}
    places: dict[str, tuple[int, int]] = {}
    nothing = []
    for window, logits in zip(read.windows, rows, strict=True):
        first, none = len(read.before), [0] if no_answer_token else []
        tokens = [*none, *range(first, first + window[1] - window[0])]
        starts, ends = (_softmax(logits[tokens, side]) for side in (0, 1))
        nothing.append(float(starts[0] * ends[0]) if none else 0.0)
        for begin, end, score in _best(starts[len(none) :], ends[len(none) :], window[0], parameters):
            place = _place(read, window, begin, end, whole_words=parameters.whole_words)
            answer = read.context[slice(*place)].lower()
            places.setdefault(answer, place)
            scores[answer] = scores.get(answer, 0.0) + score
    found = [FoundAnswer(read.context[slice(*places[one])], score, *places[one]) for one, score in scores.items()]
    if parameters.impossible:
        found.append(FoundAnswer("", min(nothing), 0, 0))
    return sorted(found, key=lambda one: -one.score)[: parameters.top_k] or [FoundAnswer("", 0.0, 0, 0)]


def _softmax(logits: Logits) -> Chances:
    if not logits.size:
        return logits.astype(np.float64)
    powers = np.exp(logits.astype(np.float64) - logits.max())
    chances: Chances = powers / powers.sum()
    return chances


def _best(starts: Chances, ends: Chances, offset: int, parameters: AnswerParameters) -> Iterator[Span]:
    """The likeliest spans of one window, likeliest first; more than are asked for, where some may become equal."""
    tokens = len(starts)
    longest = min(parameters.max_answer_tokens, tokens)
    if not tokens:
        return
    later = np.concatenate([ends, np.zeros(longest - 1)])
    scores = (starts[:, None] * np.lib.stride_tricks.sliding_window_view(later, longest)).ravel()
    most = parameters.top_k * 2 + 10 if parameters.whole_words else parameters.top_k
    some = np.argpartition(-scores, most)[:most] if most < len(scores) else np.arange(len(scores))
    for at in some[np.argsort(-scores[some], kind="stable")].tolist():
        begin, length = divmod(at, longest)
        if scores[at] > 0:
            yield offset + begin, offset + begin + length, float(scores[at])


def _place(read: ReadContext, window: tuple[int, int], begin: int, end: int, *, whole_words: bool) -> tuple[int, int]:
    """The characters of a span, widened to the parts of its first and last word that are in the window."""
    first, last = read.words[begin], read.words[end]
    if whole_words and first is not None and last is not None:
        while begin > window[0] and read.words[begin - 1] == first:
            begin -= 1
        while end + 1 < window[1] and read.words[end + 1] == last:
            end += 1
    return read.places[begin][0], read.places[end][1]
