"""The documents that the rankers are trained and scored on, split into sentences as this project splits them.

Knows the format of ACLSum (papers with three human summaries each) and which VADER sentences form a text. Knows no
encoders and no rankers.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.replica.sentences import SentenceSpan, split_sentences
from exporters.starter.data import Split, cleaned, ground_truth, split_of

ASPECTS = ("challenge", "approach", "outcome")
SECTIONS = ("abstract", "introduction", "conclusion")
FREE_FROM = 2016
"""The year from which ACL Anthology papers are CC BY 4.0; older ones (CC BY-NC-SA 3.0) are not redistributed."""

_TIGHT = (
    (re.compile(r"\s+([.,;:!?%)\]}])"), r"\1"),
    (re.compile(r"([(\[{])\s+"), r"\1"),
    (re.compile(r"\s+(n't|'s|'re|'ve|'ll|'d|'m)\b"), r"\1"),
)
_GENERAL = {"nytEditorialSnippets_GroundTruth.txt": "editorials", "amazonReviewSnippets_GroundTruth.txt": "reviews"}


@dataclass(frozen=True)
class Document:
    """A text, its sentences, and its human annotations.

    `marks` has three flags per sentence: whether a person marked it for each of `ASPECTS`. Marks and summaries are
    empty for a text without annotations.
    """

    name: str
    title: str
    text: str
    spans: tuple[SentenceSpan, ...]
    marks: tuple[tuple[int, ...], ...] = ()
    summaries: tuple[str, ...] = ()

    @property
    def sentences(self) -> list[str]:
        """The text of each sentence."""
        return [self.text[span.start : span.end] for span in self.spans]

    @property
    def reference(self) -> str:
        """The three summaries, one per line."""
        return "\n".join(self.summaries)


def read_papers(wheel: Path, split: str) -> list[Document]:
    """The papers of one ACLSum split: `train` (100), `val` (50) or `test` (100)."""
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read(f"aclsum/dataset/{split}.jsonl").decode("utf-8").splitlines()
    return [_paper(json.loads(line)) for line in lines]


def read_general(sdist: Path) -> dict[Split, list[Document]]:
    """Editorials and product reviews of 5 to 30 sentences, joined from VADER's sentences; the first sets the side.

    Its files number the sentences of each text in order (`12_3` is the third of text 12).
    """
    sides: dict[Split, list[Document]] = {split: [] for split in Split}
    for source, content in ground_truth(sdist, _GENERAL):
        texts = defaultdict(list)
        for line in content.decode("utf-8").splitlines():
            number, _, sentence = line.split("\t")
            texts[number.partition("_")[0]].append(cleaned(sentence))
        for number, sentences in texts.items():
            if 5 <= len(sentences) <= 30:
                sides[split_of(sentences[0])].append(_joined(f"{source}-{number}", sentences))
    return sides


def free(papers: Iterable[Document]) -> list[Document]:
    """The papers that may be redistributed (CC BY 4.0)."""
    return [paper for paper in papers if published(paper.name) >= FREE_FROM]


def published(name: str) -> int:
    """The year of a paper by its ACL Anthology id, `2020.acl-main.1` or `P06-1001`."""
    year = name.partition(".")[0]
    if year.isdigit():
        return int(year)
    two = int(name[1:3])
    return 1900 + two if two > 60 else 2000 + two


def heldout_rows(papers: Iterable[Document]) -> list[dict[str, str]]:
    """The rows of `summaries-heldout.jsonl`."""
    return [{"name": p.name, "title": p.title, "text": p.text, "summary": p.reference} for p in papers]


def detokenised(sentence: str) -> str:
    """A sentence as printed: no spaces before punctuation, inside brackets or before `'s`."""
    sentence = " ".join(sentence.split())
    for pattern, replacement in _TIGHT:
        sentence = pattern.sub(replacement, sentence)
    return sentence


def _paper(said: dict[str, Any]) -> Document:
    """A paper as running text; each of its sentences gets the marks of the given sentence that it overlaps most."""
    text = ""
    given: list[tuple[SentenceSpan, tuple[int, ...]]] = []
    for section in SECTIONS:
        paragraph = ""
        for index, raw in enumerate(said["sentences"][section]):
            sentence = detokenised(raw)
            if not sentence:
                continue
            before = " " if paragraph else "\n\n" if text else ""
            start = len(text) + len(paragraph) + len(before)
            paragraph += before + sentence
            flags = tuple(int(said["highlights"][aspect][section][index]) for aspect in ASPECTS)
            given.append((SentenceSpan(start, start + len(sentence)), flags))
        text += paragraph
    spans = tuple(split_sentences(text))
    marks = tuple(max(given, key=lambda one: _overlap(one[0], span))[1] for span in spans)
    summaries = tuple(detokenised(said["summary"][aspect]) for aspect in ASPECTS)
    return Document(said["id"], detokenised(said["title"]), text, spans, marks, summaries)


def _joined(name: str, sentences: list[str]) -> Document:
    text = " ".join(sentences)
    return Document(name, "", text, tuple(split_sentences(text)))


def _overlap(one: SentenceSpan, other: SentenceSpan) -> int:
    return min(one.end, other.end) - max(one.start, other.start)
