"""The sentences that the teacher labels: films, editorials and tweets of VADER, papers of ACLSum, and conversations.

Knows the formats of these packages, and on which side of the split a text is: all sentences of a text are on one side.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from exporters.sources.registry import fetch
from exporters.starter.data import Split, cleaned, ground_truth, normalised, split_of
from exporters.starter.extractive.corpus import free, read_papers
from exporters.starter.packages import ACLSUM, CHITCHAT, VADER

VADER_FILES = {
    "nytEditorialSnippets_GroundTruth.txt": "editorials",
    "movieReviewSnippets_GroundTruth.txt": "films",
    "tweets_GroundTruth.txt": "tweets",
}
"""Product reviews are left out: they are all in small letters, which the teacher cannot read."""

FEWEST_WORDS = 4
MOST_CHARACTERS = 400
CHAT_LINES = 16_000
"""Of 258,000 lines of conversations, evenly spaced: most name nothing."""


@dataclass(frozen=True)
class Line:
    """A sentence, where it is from, and the text of that source to which it belongs."""

    text: str
    source: str
    of: str

    @property
    def side(self) -> Split:
        """The side of the text to which it belongs."""
        return split_of(f"{self.source} {self.of}")


def read_lines(cache: Path) -> list[Line]:
    """Every sentence to be labelled, once, in order. Raises NotFetched."""
    chats = list(_chats(fetch(CHITCHAT, cache)))
    some = chats[:: max(1, len(chats) // CHAT_LINES)]
    return distinct((*_rated(fetch(VADER, cache)), *_papers(fetch(ACLSUM, cache)), *some))


def distinct(lines: Iterable[Line]) -> list[Line]:
    """The sentences of a usable length, equal ones once: the first."""
    found: dict[str, Line] = {}
    for line in lines:
        if len(line.text.split()) >= FEWEST_WORDS and len(line.text) <= MOST_CHARACTERS:
            found.setdefault(normalised(line.text), line)
    return list(found.values())


def _rated(sdist: Path) -> Iterator[Line]:
    """VADER numbers the sentences of each text in order: `12_3` is the third of text 12."""
    for source, content in ground_truth(sdist, VADER_FILES):
        for row in content.decode("utf-8").splitlines():
            number, _, text = row.split("\t")
            yield Line(cleaned(text), source, number.partition("_")[0])


def _papers(wheel: Path) -> Iterator[Line]:
    for split in ("train", "val", "test"):
        for paper in free(read_papers(wheel, split)):
            yield from (Line(text, "papers", paper.name) for text in paper.sentences)


def _chats(wheel: Path) -> Iterator[Line]:
    with zipfile.ZipFile(wheel) as archive:
        conversations = json.loads(archive.read("chitchat_dataset/dataset.json"))
    for name, conversation in conversations.items():
        for turn in conversation["messages"]:
            yield from (Line(" ".join(said["text"].split()), "chats", name) for said in turn)
