"""How an embedder answers `/answer`: by the sentence of the context that is nearest to the question.

Scores are shares of 1 among the sentences of the context. They are fitted where a question has one right sentence.
Neither question nor context leaves this module but as tokens and in the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from deployments.engines.base import Logits
from deployments.replica.batched import Reading, encoded_all, input_report
from deployments.replica.classify import applied
from deployments.replica.embedding import OpenEmbedder, TextReader, Vectors, cosines
from deployments.replica.sentences import SentenceSpan, split_sentences
from deployments.replica.tokens import Encoded
from gateway.model.messages import Failure, InputReport, Work, parameters_of
from gateway.tasks.answer import AnswerParameters, FoundAnswer

MOST_SENTENCES = 1_024
"""Sentences of all contexts of a request. Set by hand: 64 runs of an engine, of 16 each."""

TEMPERATURE = 0.062
"""What cosines are divided by before the softmax.

It is fitted, as are the next two, by `python -m exporters.starter.answers`: on 600 synopses of Debian's packages, each
among the first sentences about eight packages of one section, over both starter embedders together.
"""

MIDDLE, SLOPE = 0.482, 12.0
"""The sigmoid of the nearest sentence's cosine: the chance that the context has an answer, 0.5 at `MIDDLE`.

In the fit, half of the contexts had the sentence that answers, and half were without it.
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: its context, and the places of that context's sentences."""

    context: str
    sentences: Sequence[SentenceSpan]


@dataclass(frozen=True, slots=True)
class _Asking:
    """The questions of a request, and how answers are looked for."""

    parameters: AnswerParameters
    questions: Sequence[Asked]


class BySentence(Reading[_Asking]):
    """Answers with sentences by the cosine of their vectors with the question's."""

    def __init__(self, reader: TextReader) -> None:
        self._reader = reader

    def encode(self, work: Work) -> tuple[_Asking, list[Encoded]] | Failure:
        """Tokenises each question and then the sentences of its context, each cut to the window.

        TOO_LONG if the contexts of a request have too many sentences.
        """
        parameters = parameters_of(work, AnswerParameters)
        rows: list[Encoded] = []
        contexts = [text[at:] for text, at in zip(work.inputs, parameters.second_at, strict=True)]
        questions = [Asked(context, split_sentences(context)) for context in contexts]
        sentences = [len(one.sentences) for one in questions]
        if sum(sentences) > MOST_SENTENCES:
            return Failure.too_many(sentences, MOST_SENTENCES, "sentences")
        for text, at, asked in zip(work.inputs, parameters.second_at, questions, strict=True):
            read = encoded_all([text[:at], *_texts(asked)], self._reader.encode)
            if isinstance(read, Failure):
                return read
            rows += read
        return _Asking(parameters, questions), rows

    def outputs(self, asked: _Asking, logits: Sequence[Logits]) -> tuple[object, ...]:
        """The best sentences of each context."""
        rows = iter(logits)
        found = []
        for one in asked.questions:
            question, *sentences = (row.astype(np.float64) for row in islice(rows, 1 + len(one.sentences)))
            near = np.asarray(cosines(question, np.stack(sentences)) if sentences else [])
            found.append(answers(one, near, asked.parameters))
        return tuple(found)

    def report(self, asked: _Asking, encoded: Sequence[Encoded]) -> InputReport:
        """What was read of questions and sentences; each context is taken whole, as one window."""
        read = input_report(encoded)
        return InputReport(read.tokens, read.kept, read.truncated, len(asked.questions))


def answers(asked: Asked, near: Vectors, parameters: AnswerParameters) -> list[FoundAnswer]:
    """The sentences that are nearest to the question, best first, by the cosine of each (`near`).

    With `impossible`, that there is no answer has its place among them by its score, and all scores make 1. Without a
    sentence the answer is nothing, at a score of 0.
    """
    found = [
        FoundAnswer(asked.context[span.start : span.end], score, span.start, span.end)
        for span, score in zip(asked.sentences, scores_of(near, impossible=parameters.impossible), strict=True)
    ]
    if parameters.impossible or not found:
        rest = 1.0 - chance_of_an_answer(near) if parameters.impossible else 0.0
        found.append(FoundAnswer("", rest, 0, 0))
    return sorted(found, key=lambda one: -one.score)[: parameters.top_k]


def scores_of(near: Vectors, *, impossible: bool) -> list[float]:
    """Shares of 1 by the cosines of sentences with a question, or of the chance that the context has an answer."""
    if not near.size:
        return []
    whole = chance_of_an_answer(near) if impossible else 1.0
    return [share * whole for share in applied("softmax", near / TEMPERATURE)]


def chance_of_an_answer(near: Vectors) -> float:
    """The chance that one of these sentences answers the question, by the nearest; 0 for none."""
    return applied("sigmoid", SLOPE * (near.max(keepdims=True) - MIDDLE))[0] if near.size else 0.0


def _texts(asked: Asked) -> list[str]:
    return [asked.context[span.start : span.end] for span in asked.sentences]


def _of_embedder(variant: OpenEmbedder) -> BySentence:
    return BySentence(variant.reader)


READINGS = {"embedder": _of_embedder}
