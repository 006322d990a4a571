"""The split into train, dev and held-out texts, by families of similar packages.

Two packages are in one family if they share their source, the stem of their name, the opening words of their
description, or a relative. The hash of its name assigns a whole family to one side, so that no held-out text has a
sibling in the training texts. Scored texts are also far from every training text of another family.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from exporters.starter.data import Split
from exporters.starter.software.descriptions import Pair, normalised

RUN = 8
SHARED = 0.3
RULE = f"none is scored that has {SHARED:.0%} of its runs of {RUN} words in any one text learnt from"
OPENING_WORDS = 8
LARGE = 60
A_FAMILY_AT_MOST = 3
SPLIT_RULE = (
    f"families (same source, name stem or first {OPENING_WORDS} words, transitively) whole to one side: sha256 of the "
    f"family's first package name, first 8 hex digits modulo 100: 0-3 heldout, 4-5 dev, 6-99 train; families of more "
    f"than {LARGE} to train; at most {A_FAMILY_AT_MOST} of a family learnt from, one of a family scored; {RULE}"
)
PREFIXES = re.compile(r"^(?:lib|python3?-|ruby-|node-|golang-|php-|r-cran-|r-bioc-|elpa-|fonts-|librust-|libghc-)+")
SUFFIXES = re.compile(
    r"(?:[-.]?(?:dev|doc|docs|dbg|data|common|bin|tools|utils|examples|prof|perl|java|cil|cross|static|plugins?|tests?"
    r"|gtk|qt|gui|cli|server|client|daemon|runtime|headers|modules|base|core|full|extra|nox|x11)|[-.]?\d[\w.+~]*)+$"
)


def stem(name: str) -> str:
    """A package name without its variant parts: `libfoo2`, `libfoo-dev` and `python3-foo` give `foo`."""
    without = SUFFIXES.sub("", PREFIXES.sub("", name))
    return without if len(without) > 2 else name


def families(found: Sequence[Pair]) -> list[list[Pair]]:
    """The pairs in families, each sorted by package name; the first name is the family's."""
    relatives = _Relatives(len(found))
    seen: dict[str, int] = {}
    for at, pair in enumerate(found):
        opening = " ".join(normalised(pair.text).split()[:OPENING_WORDS])
        for key in (f"source {pair.source}", f"stem {stem(pair.package)}", f"opening {opening}"):
            relatives.join(at, seen.setdefault(key, at))
    grouped: dict[int, list[Pair]] = {}
    for at, pair in enumerate(found):
        grouped.setdefault(relatives.root(at), []).append(pair)
    return sorted((sorted(group, key=lambda p: p.package) for group in grouped.values()), key=lambda g: g[0].package)


def side_of(family: Sequence[Pair]) -> Split:
    """The side of a family: a function of its first name; a very large one is always for training."""
    bucket = _hash(family[0].package) % 100
    if len(family) > LARGE or bucket > 5:
        return Split.TRAIN
    return Split.HELDOUT if bucket < 4 else Split.DEV


def split(found: Sequence[Pair]) -> dict[Split, list[Pair]]:
    """The pairs of each side, ordered by the hash of their names: a few of a training family, one of a scored one.

    Scored texts are far from every training text.
    """
    sides: dict[Split, list[Pair]] = {side: [] for side in Split}
    for family in families(found):
        side = side_of(family)
        sides[side] += _mixed(family)[: A_FAMILY_AT_MOST if side is Split.TRAIN else 1]
    learnt = _mixed(sides[Split.TRAIN])
    scored = {side: apart(_mixed(sides[side]), learnt) for side in (Split.DEV, Split.HELDOUT)}
    return {Split.TRAIN: learnt, **scored}


def _mixed(group: Iterable[Pair]) -> list[Pair]:
    return sorted(group, key=lambda pair: (_hash(pair.package), pair.package))


def _hash(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)


def apart(scored: Sequence[Pair], learnt: Sequence[Pair]) -> list[Pair]:
    """The scored pairs that are far enough from every training text, in order; linear in the texts' lengths."""
    runs = [_runs(pair.text) for pair in scored]
    holders: dict[tuple[str, ...], list[int]] = {}
    for at, own in enumerate(runs):
        for run in own:
            holders.setdefault(run, []).append(at)
    nearest = [0] * len(scored)
    for pair in learnt:
        shared = Counter(at for run in _runs(pair.text) for at in holders.get(run, ()))
        for at, count in shared.items():
            nearest[at] = max(nearest[at], count)
    return [pair for pair, own, near in zip(scored, runs, nearest, strict=True) if near < SHARED * max(1, len(own))]


def _runs(text: str) -> set[tuple[str, ...]]:
    words = normalised(text).split()
    return {tuple(words[at : at + RUN]) for at in range(len(words) - RUN + 1)}


class _Relatives:
    """A disjoint-set forest over row indices, for transitive relations."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, at: int) -> int:
        while self._parent[at] != at:
            self._parent[at] = self._parent[self._parent[at]]
            at = self._parent[at]
        return at

    def join(self, one: int, other: int) -> None:
        a, b = self.root(one), self.root(other)
        self._parent[max(a, b)] = min(a, b)
