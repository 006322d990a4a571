"""Sentences made of names: labelled ones with other names put in, and written ones that are filled.

Their labels hold by how they are made. They teach that a name is told by what stands around it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from exporters.starter.entities.names import Names
from exporters.starter.taggers.score import Marked, Span

WRITTEN = Path(__file__).with_name("sentences.yaml")
GAP = re.compile(r"\{([A-Z]+)\}")
SWAPPED = ("PER", "LOC", "ORG")
"""Kinds whose names are swapped. Those of MISC are of too many sorts to stand for one another."""


def filled(names: Names, times: int, rng: random.Random) -> list[Marked]:
    """Every written sentence, filled `times` times; those without a gap once."""
    written = msgspec.yaml.decode(WRITTEN.read_bytes(), type=list[str])
    return [_filled(sentence, names, rng) for sentence in written for _ in range(times if GAP.search(sentence) else 1)]


def swapped(one: Marked, names: Names, rng: random.Random) -> Marked:
    """The sentence with other people, places and organisations."""
    parts: list[tuple[str, str | None]] = []
    at = 0
    for start, end, kind in one.spans:
        name = names.draw(kind, rng) if kind in SWAPPED else one.text[start:end]
        parts += [(one.text[at:start], None), (name, kind)]
        at = end
    return joined([*parts, (one.text[at:], None)])


def joined(parts: Sequence[tuple[str, str | None]]) -> Marked:
    """A text of parts, of which those with a kind are entities."""
    text = ""
    spans: list[Span] = []
    for part, kind in parts:
        if kind is not None:
            spans.append((len(text), len(text) + len(part), kind))
        text += part
    return Marked(text, tuple(spans))


def _filled(sentence: str, names: Names, rng: random.Random) -> Marked:
    parts: list[tuple[str, str | None]] = []
    at = 0
    for gap in GAP.finditer(sentence):
        parts += [(sentence[at : gap.start()], None), _name(gap[1], names, rng)]
        at = gap.end()
    return joined([*parts, (sentence[at:], None)])


def _name(gap: str, names: Names, rng: random.Random) -> tuple[str, str]:
    """The name that fills a gap, which is a kind or a sort of MISC, and its kind."""
    if gap in names.listed.others:
        return rng.choice(names.listed.others[gap]), "MISC"
    return names.draw(gap, rng), gap
