"""Scores a tagger on texts whose entities were marked by hand: what it finds exactly, and what redaction covers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Span: TypeAlias = tuple[int, int, str]
"""The first character of an entity, the one after its last, and its kind."""


@dataclass(frozen=True)
class Marked:
    """A text with its entities in order."""

    text: str
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Found:
    """How well entities were found, from 0 to 1.

    Precision and recall count those with the right kind from the first character to the last. `covered` is the share of
    the characters of entities that are within something found, of whatever kind: what redaction takes out. `spoilt` is
    the share of other characters that it takes out too.
    """

    precision: float
    recall: float
    covered: float
    spoilt: float

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def read_marked(file: Path) -> list[Marked]:
    """The texts of a file with their entities, which each line lists in order. Raises ValueError for one not there."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        spans: list[Span] = []
        at = 0
        for part, kind in row["entities"]:
            at = row["text"].index(part, at)
            spans.append((at, at + len(part), kind))
            at += len(part)
        found.append(Marked(row["text"], tuple(spans)))
    return found


def scored(marked: Sequence[Marked], found: Sequence[Sequence[Span]]) -> Found:
    """Compares what was found in each text with what is marked."""
    right = sum(len({*one.spans} & {*spans}) for one, spans in zip(marked, found, strict=True))
    wanted, given = sum(len(one.spans) for one in marked), sum(map(len, found))
    own = [_characters(one.spans) for one in marked]
    taken = [_characters(spans) for spans in found]
    inside, characters = sum(map(len, own)), sum(len(one.text) for one in marked)
    both = sum(len(one & other) for one, other in zip(own, taken, strict=True))
    return Found(
        precision=right / given if given else 0.0,
        recall=right / wanted if wanted else 0.0,
        covered=both / inside if inside else 0.0,
        spoilt=(sum(map(len, taken)) - both) / max(characters - inside, 1),
    )


def _characters(spans: Sequence[Span]) -> set[int]:
    return {at for start, end, _ in spans for at in range(start, end)}
