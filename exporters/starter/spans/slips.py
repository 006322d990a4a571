"""Slips of the tongue: questions whose asker begins with something else and corrects it, as people do who speak.

What is said first is of the same text, so that the words before the correction lead astray and those after it count.
"""

from __future__ import annotations

import random
import re

NAMED = re.compile(r"\b[A-Z0-9][\w.'’-]*(?: (?:of |the )?[A-Z0-9][\w.'’-]*)*")
CORRECTIONS = (
    *("no", "no wait", "no sorry", "no I mean", "no I meant", "I mean", "or I mean", "sorry", "sorry I mean", "rather"),
    *("or rather", "er", "uh", "um no", "wait", "wait no", "or no", "actually", "or actually", "make that", "not that"),
    *("scratch that", "excuse me", "let me say", "well", "hmm", "or uh", "er no"),
)
PAUSES = ("uh", "um", "er", "like", "well")


def slipped(question: str, other: str, context: str, rng: random.Random) -> str:
    """A question with a slip: a pause, a wrong name, wrong words, or the beginning of another question."""
    correction, draw = rng.choice(CORRECTIONS), rng.random()
    words = question.split(" ")
    if draw < 0.1:
        at = rng.randrange(1, len(words) + 1) if len(words) > 1 else 0
        return " ".join([*words[:at], rng.choice(PAUSES), *words[at:]])
    if draw < 0.5:
        begun = other.rstrip("?").split(" ")
        return " ".join([*begun[: rng.randint(1, min(7, len(begun)))], correction, _small(question, rng)])
    names = [*NAMED.finditer(question, len(words[0]))]
    wrong = [one[0] for one in NAMED.finditer(context) if one[0] not in question] or [other.split(" ")[-1].rstrip("?")]
    if names and draw < 0.85:
        found = rng.choice(names)
        return f"{question[: found.start()]}{rng.choice(wrong)} {correction} {question[found.start() :]}"
    at = rng.randrange(1, len(words)) if len(words) > 1 else 0
    others = other.rstrip("?").split(" ")
    start = rng.randrange(len(others))
    return " ".join([*words[:at], *others[start : start + rng.randint(1, 3)], correction, *words[at:]])


def _small(question: str, rng: random.Random) -> str:
    return question[:1].lower() + question[1:] if rng.random() < 0.8 else question
