"""Finds what a summary claims that can be looked up in its source: names, numbers and negations.

This is no judgement of truth: a summary may say false things with the source's own words. It finds what was invented.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
NEGATION = re.compile(r"\b(?:no|not|never|none|nobody|nothing|neither|nor|without|cannot)\b|n['’]t\b", re.IGNORECASE)
SENTENCE_START = re.compile(r"(?:^|[.!?:]\s+|\n\s*)[\"'“‘(]*([^\W\d_]+)")


@dataclass(frozen=True)
class Claims:
    """How many claims a summary makes, and those that its source does not have."""

    made: int
    missing: tuple[str, ...]


def claims_of(summary: str, source: str) -> Claims:
    """The names, numbers and negations of a summary, looked up in its source.

    A name is a word with a capital that does not begin a sentence, or one of several capitals; it stands in the source
    if the word does, in any case. A negation stands there if the source has any.
    """
    known = {word.casefold() for word in WORD.findall(source)}
    numbers = set(NUMBER.findall(source))
    openers = {match.start(1) for match in SENTENCE_START.finditer(summary)}
    names = [match.group() for match in WORD.finditer(summary) if _is_name(match, openers)]
    missing = [name for name in names if not _parts(name) <= known and name.casefold() not in known]
    counted = NUMBER.findall(summary)
    missing += [number for number in counted if number not in numbers]
    negations = NEGATION.findall(summary)
    missing += negations if not NEGATION.search(source) else []
    return Claims(len(names) + len(counted) + len(negations), tuple(missing))


def _is_name(word: re.Match[str], openers: set[int]) -> bool:
    text = word.group()
    capitals = sum(letter.isupper() for letter in text)
    return capitals > 1 or (text[0].isupper() and len(text) > 1 and word.start() not in openers)


def _parts(name: str) -> set[str]:
    """The words of a name that hyphens join, or that ends in 's."""
    return {part.casefold() for part in re.split(r"['’]s$|-", name) if part}
