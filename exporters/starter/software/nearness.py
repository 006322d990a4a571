"""Which texts are too near one that was learnt from to be scored, though no family joins the two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from exporters.starter.software.descriptions import Pair, normalised

RUN = 8
SHARED = 0.3
RULE = f"none is scored that has {SHARED:.0%} of its runs of {RUN} words in any one text learnt from"


def apart(scored: Sequence[Pair], learnt: Sequence[Pair]) -> list[Pair]:
    """Those to score that are far enough from every text learnt from, order kept; linear in the texts' lengths."""
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
