"""Aligned segments of Debian's package descriptions: synopses, and paragraphs or sentences where both have as many.

A description and its translation belong together by package and by the digest of the English one, so that a translation
of an older text is left out.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments.replica.sentences import split_sentences
from exporters.starter.data import Split
from exporters.starter.software.descriptions import NoDescriptions, Pair, cleaned, described, normalised
from exporters.starter.software.families import families, side_of

PARAGRAPH = "\n .\n"
MOST_WORDS = 60
MOST_RATIO = 2.5
"""Characters of the longer side for each of the shorter, of segments of more than `SHORT` characters. Set by hand."""

SHORT = 20
KEPT = (
    f"synopses, and paragraphs or sentences where both sides have as many; at most {MOST_WORDS} words; no side over "
    f"{MOST_RATIO} times as long as the other; each English segment once, in its most frequent translation"
)
SPLIT_RULE = (
    "families of packages whole to one side, as for the summariser; a scored segment stands in no learnt family"
)


@dataclass(frozen=True)
class Segment:
    """A text and its translation."""

    text: str
    translation: str


def read_segments(lists: Path, target: str) -> dict[Split, list[Segment]]:
    """The segments of each side, in the order of packages' names. Raises NoDescriptions."""
    english = described(lists, "en")
    foreign = {(one.package, one.digest): one for one in described(lists, target)}
    both = [(one, other) for one in english if (other := foreign.get((one.package, one.digest))) is not None]
    if not both:
        raise NoDescriptions(f"no descriptions in {lists} have a translation into {target!r}")
    found = {one.package: aligned(one.text, other.text) for one, other in both}
    members = [Pair(one.package, one.source, cleaned(one.text.partition("\n")[2]), "") for one, _ in both]
    sides: dict[Split, list[Segment]] = {side: [] for side in Split}
    for family in families(members):
        sides[side_of(family)] += [one for member in family for one in found[member.package]]
    learnt = once(sides[Split.TRAIN])
    known = {normalised(one.text) for one in learnt}
    scored = {side: once(one for one in sides[side] if normalised(one.text) not in known) for side in Split}
    return {**scored, Split.TRAIN: learnt}


def aligned(text: str, translation: str) -> list[Segment]:
    """The segments of a description and its translation, synopsis first."""
    (synopsis, _, rest), (other_synopsis, _, other_rest) = (one.partition("\n") for one in (text, translation))
    pairs = [(synopsis, other_synopsis)]
    paragraphs, others = rest.split(PARAGRAPH), other_rest.split(PARAGRAPH)
    if len(paragraphs) == len(others):
        for one, other in zip(paragraphs, others, strict=True):
            pairs += _sentences(cleaned(one), cleaned(other))
    tidied = (Segment(_tidy(one), _tidy(other)) for one, other in pairs)
    return [one for one in tidied if counts(one)]


def _sentences(text: str, translation: str) -> list[tuple[str, str]]:
    """The sentences of two paragraphs if they have as many, else the paragraphs."""
    mine, its = ([one[span.start : span.end] for span in split_sentences(one)] for one in (text, translation))
    return [*zip(mine, its, strict=True)] if len(mine) == len(its) else [(text, translation)]


def _tidy(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def counts(segment: Segment) -> bool:
    """True if a segment has words, is short enough, and its sides are of like lengths and differ."""
    lengths = sorted((len(segment.text), len(segment.translation)))
    words = max(len(segment.text.split()), len(segment.translation.split()))
    alike = lengths[1] <= max(SHORT, MOST_RATIO * lengths[0])
    return 0 < words <= MOST_WORDS and alike and bool(normalised(segment.text)) and segment.text != segment.translation


def once(segments: Iterable[Segment]) -> list[Segment]:
    """Each text once, in its most frequent translation, and in the order of its first appearance."""
    seen: dict[str, dict[str, int]] = {}
    for one in segments:
        translations = seen.setdefault(one.text, {})
        translations[one.translation] = translations.get(one.translation, 0) + 1
    return [Segment(text, max(found, key=found.__getitem__)) for text, found in seen.items()]


def spread(segments: Sequence[Segment], most: int) -> list[Segment]:
    """At most `most` of the segments, evenly spaced."""
    count = min(most, len(segments))
    return [segments[at * len(segments) // count] for at in range(count)]
