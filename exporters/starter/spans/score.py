"""Scores answers of a few words beside answers by sentences: SQuAD's F1 and exact match, and the right sentence."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from deployments.replica.answering.reading import QuestionReader
from deployments.replica.answering.spans import found_answers
from deployments.replica.tokens import TOKENIZER_FILE
from exporters.kinds.answerer import runner
from exporters.kinds.original import load_original
from exporters.starter.answers.__main__ import EMBEDDERS, near
from exporters.starter.answers.material import Asked, questions
from exporters.starter.embedders.vectors import vectors_of
from exporters.starter.spans.card import Score
from exporters.verification import run_rows
from gateway.tasks.answer import AnswerParameters, FoundAnswer

ARTICLES = re.compile(r"\b(?:a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def answers_by(whole: Path, asked: Sequence[tuple[str, str]], top_k: int = 1) -> list[list[FoundAnswer]]:
    """What a merged checkpoint answers each question with its context, made as it is served."""
    original = load_original(whole, whole.name, "AutoModelForQuestionAnswering", "an answerer")
    reader = QuestionReader.open(whole / TOKENIZER_FILE, original.window, types=original.takes_types)
    parameters = AnswerParameters(top_k=top_k)
    reads = [reader.read(question, context, parameters) for question, context in asked]
    encoded = [row for read in reads for row in reader.encoded(read)]
    types = {tuple(one.token_ids): list(one.token_types) for one in encoded}
    logits = iter(run_rows([one.token_ids for one in encoded], runner(original, types), lambda share: None))
    return [
        found_answers(read, list(islice(logits, len(read.windows))), parameters, no_answer_token=True) for read in reads
    ]


def measure(whole: Path, name: str, cache: Path, most: int) -> tuple[int, dict[str, Score]]:
    """How many questions of Disfl-QA have an answer, and the scores on them: the checkpoint's, and each embedder's.

    Raises NotFetched, CannotBuild.
    """
    asked = [one for one in questions(cache, most) if one.right]
    found = [best[0] for best in answers_by(whole, [(one.question, context_of(one.sentences)) for one in asked])]
    places = [sentence_at(one.sentences, best.start) for one, best in zip(asked, found, strict=True)]
    scores = {name: score(asked, [best.answer for best in found], places)}
    for embedder in EMBEDDERS:
        nearest = near(asked, vectors_of(embedder, cache)).argmax(axis=1).tolist()
        said = [one.sentences[place] for one, place in zip(asked, nearest, strict=True)]
        scores[embedder] = score(asked, said, nearest)
    return len(asked), scores


def context_of(sentences: Sequence[str]) -> str:
    """The context of these sentences."""
    return " ".join(sentences)


def sentence_at(sentences: Sequence[str], place: int) -> int:
    """The sentence that has a character of the context."""
    ends = np.cumsum([len(one) + 1 for one in sentences])
    return int(np.searchsorted(ends, place, side="right"))


def score(asked: Sequence[Asked], answers: Sequence[str], sentences: Sequence[int]) -> Score:
    """The score of answers, each with the place of its sentence."""
    rows = list(zip(asked, answers, sentences, strict=True))
    return Score(
        f1=round(float(np.mean([f1(said, one.answer) for one, said, _ in rows])), 4),
        exact=round(float(np.mean([_words(said) == _words(one.answer) for one, said, _ in rows])), 4),
        sentence=round(float(np.mean([place in one.right for one, _, place in rows])), 4),
    )


def f1(said: str, meant: str) -> float:
    """The harmonic mean of precision and recall of an answer's words, as SQuAD counts them."""
    ours, theirs = Counter(_words(said)), Counter(_words(meant))
    both = (ours & theirs).total()
    return 2 * both / (ours.total() + theirs.total()) if both else 0.0


def _words(text: str) -> list[str]:
    """Words in small letters, without punctuation and articles."""
    return ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split()
