"""The inputs of training and scoring: sentences with the teacher's entities by side, made ones, and the base.

Training takes all editorials, other sentences with entities, and some of those without; then copies with other names,
and filled sentences. A part of the rows are two sentences, since served texts have several.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from exporters.starter.command import Ticker
from exporters.starter.data import Split
from exporters.starter.entities.labels import KINDS, agreed, ask, mapped, well_written
from exporters.starter.entities.made import SWAPPED, filled, swapped
from exporters.starter.entities.names import Names, read_names
from exporters.starter.entities.sources import Line, read_lines
from exporters.starter.packages import fetch_minilm
from exporters.starter.taggers.score import Marked
from exporters.starter.vocabulary import full_tokenizer

OUTSIDE, IGNORED = 0, -100
LABELS = ("O", *(f"{part}-{kind}" for kind in KINDS for part in "BI"))
EMPTY = {"films": 2_000, "tweets": 600, "chats": 1_500, "papers": 300}
"""Training sentences of each source in which the teacher finds nothing; of editorials all."""

PAPERS = 900
"""Training sentences of papers with entities, most of which are names of methods."""

COPIES = {"editorials": 1, "films": 1, "tweets": 1, "chats": 1}
"""Copies of a sentence with other names."""

FILLED = 20
"""Times that each written sentence is filled."""

PAIRED = 0.25
"""The share of training rows that are two sentences."""

DEV_EVERY = 4
"""While training, about every fourth sentence of dev is scored."""

SEED = 20140601


@dataclass(frozen=True)
class Material:
    """Sentences for training, those of dev and held out with what the teacher says of them, and the base."""

    train: Sequence[Marked]
    dev: Sequence[Marked]
    heldout: Sequence[tuple[str, Marked]]
    base: Path
    tokenizer: Tokenizer


def prepare(cache: Path, ticker: Ticker, limit: int | None = None) -> Material:
    """Fetches, labels and splits; `limit` thins the sentences to about that many (smoke run).

    Raises NotFetched, CannotBuild.
    """
    base, lines = fetch_minilm(cache), read_lines(cache)
    lines = lines[:: max(1, len(lines) // limit)] if limit else lines
    labels = ask([line.text for line in lines], cache, ticker("teacher"))
    names = read_names(cache, labels.people)
    plain = [mapped(line.text, spans) for line, spans in zip(lines, labels.spans, strict=True)]
    found = agreed([line.text for line in lines], plain)
    rows = [(line, Marked(line.text, tuple(spans))) for line, spans in zip(lines, found, strict=True)]
    usual = [(line, one) for line, one in rows if well_written(one.text, one.spans)]
    taught = [(line, Marked(line.text, tuple(spans))) for line, spans in zip(lines, plain, strict=True)]
    return Material(
        train=training(usual, names, 1 if limit else FILLED),
        dev=[one for line, one in usual if line.side is Split.DEV][::DEV_EVERY],
        heldout=[(line.source, one) for line, one in taught if line.side is Split.HELDOUT],
        base=base,
        tokenizer=full_tokenizer(base),
    )


def heldout_of(cache: Path, ticker: Ticker) -> list[tuple[str, Marked]]:
    """The held-out sentences alone, each with its source and what the teacher says. Raises NotFetched, CannotBuild."""
    lines = [line for line in read_lines(cache) if line.side is Split.HELDOUT]
    labels = ask([line.text for line in lines], cache, ticker("teacher"))
    pairs = zip(lines, labels.spans, strict=True)
    return [(line.source, Marked(line.text, tuple(mapped(line.text, spans)))) for line, spans in pairs]


def training(rows: Sequence[tuple[Line, Marked]], names: Names, times: int) -> list[Marked]:
    """The training rows in order: the teacher's, copies with other names, filled sentences, and pairs of these."""
    rng = random.Random(SEED)
    own = [(line.source, one) for line, one in rows if line.side is Split.TRAIN]
    naming, empty = ([pair for pair in own if bool(pair[1].spans) is named] for named in (True, False))
    papers = [one for source, one in naming if source == "papers"][:PAPERS]
    kept = [one for source, one in naming if source != "papers"] + papers
    for source in dict.fromkeys(source for source, _ in empty):
        some = [one for other, one in empty if other == source]
        kept += rng.sample(some, min(len(some), EMPTY.get(source, len(some))))
    copies = [
        swapped(one, names, rng)
        for source, one in naming
        if any(kind in SWAPPED for _, _, kind in one.spans)
        for _ in range(COPIES.get(source, 0))
    ]
    return paired([*kept, *copies, *filled(names, times, rng)], rng)


def paired(rows: Sequence[Marked], rng: random.Random) -> list[Marked]:
    """The rows in a random order, a share of them joined in twos."""
    order = rng.sample(list(rows), len(rows))
    twos = int(PAIRED * len(order)) // 2 * 2
    pairs = [_two(order[at], order[at + 1]) for at in range(0, twos, 2)]
    return [*pairs, *order[twos:]]


def _two(first: Marked, second: Marked) -> Marked:
    shift = len(first.text) + 1
    moved = tuple((start + shift, end + shift, kind) for start, end, kind in second.spans)
    return Marked(f"{first.text} {second.text}", (*first.spans, *moved))


def labelled(encoding: Encoding, one: Marked) -> list[int]:
    """The label of each token of a text, by its place in `LABELS`; special tokens are `IGNORED`."""
    found = []
    for (start, end), special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True):
        span = next((each for each in one.spans if each[0] <= start and end <= each[1]), None)
        if special:
            found.append(IGNORED)
        elif span is None:
            found.append(OUTSIDE)
        else:
            found.append(LABELS.index(f"{'B' if start == span[0] else 'I'}-{span[2]}"))
    return found
