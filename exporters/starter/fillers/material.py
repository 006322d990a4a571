"""The texts that the filler learns from and is scored on: four kinds, each with its own fixed split.

Knows where each kind comes from. Does not know masks or the model.
"""

from __future__ import annotations

import hashlib
import json
import random
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from deployments.replica.sentences import split_sentences
from exporters.sources.registry import fetch
from exporters.starter.data import Split, cleaned, on_side, read_rated
from exporters.starter.extractive.corpus import free, read_papers
from exporters.starter.packages import ACLSUM, CHITCHAT, VADER
from exporters.starter.software.descriptions import fetch_lists, pairs, read_packages, releases
from exporters.starter.software.families import split
from exporters.starter.training import encode

KINDS = ("chat", "reviews", "editorials", "papers", "software")
VADER_KINDS = {"movie-reviews": "reviews", "product-reviews": "reviews", "editorials": "editorials"}
PAPER_SIDES = {Split.TRAIN: "train", Split.DEV: "val", Split.HELDOUT: "test"}
SEED = 20140601
LEAST_WORDS = 5
"""Shorter turns and sentences say too little for a word of theirs to be guessed."""

MOST_WORDS = 40
"""Longer ones are not scored: they are lists more often than sentences."""

MOST_TOKENS = 64
"""Tokens of a text that are learnt from: most masks are in one sentence."""

TOKENS = {"chat": 1_000_000, "software": 700_000}
"""The most tokens of a kind that are learnt from, so that the plentiful kinds do not drown the others."""

SPLIT_RULE = (
    "chat: sha256 of the conversation's id, first 8 hex digits modulo 100: 0-3 heldout, 4-5 dev, 6-99 train; "
    "reviews and editorials: as for the starter classifiers; papers: ACLSum's own, of 2016 and later; "
    "software: as for bart-software"
)


@dataclass(frozen=True)
class Text:
    """A text and the kind of text that it is."""

    kind: str
    text: str


@dataclass(frozen=True)
class Texts:
    """The texts of each side of the split, and the Debian releases whose descriptions are among them."""

    sides: dict[Split, list[Text]]
    releases: tuple[str, ...]


def read_texts(cache: Path, limit: int | None = None) -> Texts:
    """Fetches, reads and splits every kind; `limit` is the most texts of each kind and side (smoke run).

    Raises `CannotBuild` or `NotFetched` if a source is not available.
    """
    rated, papers = read_rated(fetch(VADER, cache)), fetch(ACLSUM, cache)
    chats = read_chats(fetch(CHITCHAT, cache))
    lists = fetch_lists(cache / "lists")
    described = split(pairs(read_packages(lists)))
    sides = {}
    for side in Split:
        kinds = (
            [Text("chat", turn) for conversation in chats[side] for turn in conversation],
            [Text(VADER_KINDS[s.source], s.text) for s in on_side(rated, side) if s.source in VADER_KINDS],
            [Text("papers", one) for paper in free(read_papers(papers, PAPER_SIDES[side])) for one in paper.sentences],
            [Text("software", pair.text) for pair in described[side]],
        )
        sides[side] = [text for texts in kinds for text in texts[:limit]]
    return Texts(sides, releases(lists))


def learnable(texts: Sequence[Text], tokenizer: Tokenizer) -> dict[str, list[list[int]]]:
    """The token ids of the texts to learn from: of each kind as many, drawn by a fixed seed, as `TOKENS` allows."""
    rows: dict[str, list[list[int]]] = {kind: [] for kind in KINDS}
    for kind in KINDS:
        own = encode(tokenizer, [text.text for text in texts if text.kind == kind], MOST_TOKENS)
        random.Random(SEED).shuffle(own)
        left = TOKENS.get(kind, sum(map(len, own)))
        for row in own:
            if left < len(row):
                break
            rows[kind].append(row)
            left -= len(row)
    return rows


def read_chats(wheel: Path) -> dict[Split, list[list[str]]]:
    """The conversations of each side, each as its turns of at least a few words."""
    with zipfile.ZipFile(wheel) as archive:
        said = json.loads(archive.read("chitchat_dataset/dataset.json"))
    sides: dict[Split, list[list[str]]] = {split: [] for split in Split}
    for name, conversation in said.items():
        turns = (cleaned(" ".join(one["text"] for one in turn)) for turn in conversation["messages"])
        sides[side_of(name)].append([turn for turn in turns if len(turn.split()) >= LEAST_WORDS])
    return sides


def side_of(name: str) -> Split:
    """The side of a conversation: a function of its id."""
    bucket = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % 100
    if bucket > 5:
        return Split.TRAIN
    return Split.HELDOUT if bucket < 4 else Split.DEV


def sentences(texts: Iterable[Text], most: int) -> list[Text]:
    """Up to `most` sentences of each kind, of a usual length and each once, drawn by a fixed seed."""
    drawn = []
    every = dict.fromkeys(_split(texts))
    for kind in KINDS:
        own = [text for text in every if text.kind == kind]
        random.Random(SEED).shuffle(own)
        drawn += own[:most]
    return drawn


def _split(texts: Iterable[Text]) -> Iterator[Text]:
    for text in texts:
        for span in split_sentences(text.text):
            sentence = text.text[span.start : span.end]
            if LEAST_WORDS <= len(sentence.split()) <= MOST_WORDS:
                yield Text(text.kind, sentence)
