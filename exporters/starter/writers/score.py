"""Scores what a checkpoint answers to plain questions: right if an accepted answer is in its first sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

QUESTIONS = Path(__file__).with_name("questions.jsonl")
SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")


@dataclass(frozen=True)
class Question:
    """A question with every answer that is accepted, each of one or several whole words."""

    text: str
    answers: tuple[str, ...]


def read_questions(file: Path) -> list[Question]:
    """The questions of a file. Raises KeyError for a line without a text or answers."""
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return [Question(row["text"], tuple(row["answers"])) for row in rows]


def is_right(question: Question, reply: str) -> bool:
    """True if the reply's first sentence has an accepted answer, as whole words in any case."""
    first = SENTENCE_END.split(reply.strip(), maxsplit=1)[0]
    return any(re.search(rf"(?<![\w.]){re.escape(one)}(?!\w)", first, re.IGNORECASE) for one in question.answers)


def answered(questions: Sequence[Question], replies: Sequence[str]) -> int:
    """How many of the replies are right."""
    return sum(is_right(question, reply) for question, reply in zip(questions, replies, strict=True))
