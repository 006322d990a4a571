"""The sentences that the starter checkpoints are trained and scored on.

Knows the VADER ground truth (C.J. Hutto & E. Gilbert, ICWSM 2014): the format of its files, which sentences count,
and the split. Does not know the archive's source (`packages`) or the training.
"""

from __future__ import annotations

import hashlib
import html
import io
import tarfile
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path

from exporters.sources.texts import HELDOUT, Sentence
from exporters.starter.packages import member

NOTICE = HELDOUT.with_name("NOTICE.md")
LABELS = ("negative", "positive")
MIN_RATING = 0.5
SPLIT_RULE = (
    "sha256 of the text (NFKC, casefolded, whitespace folded), first 8 hex digits modulo 100: "
    "0-9 heldout, 10-14 dev, 15-99 train"
)
SOURCES = {
    "movieReviewSnippets_GroundTruth.txt": "movie-reviews",
    "amazonReviewSnippets_GroundTruth.txt": "product-reviews",
    "tweets_GroundTruth.txt": "tweets",
    "nytEditorialSnippets_GroundTruth.txt": "editorials",
}


class Split(StrEnum):
    """The sides of the fixed split."""

    TRAIN = "train"
    DEV = "dev"
    HELDOUT = "heldout"


def normalised(text: str) -> str:
    """The form in which two texts count as equal: NFKC, casefolded, whitespace folded."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def split_of(text: str) -> Split:
    """The side of a text: a pure function of its normalised form, so equal texts are on the same side."""
    bucket = int(hashlib.sha256(normalised(text).encode()).hexdigest()[:8], 16) % 100
    if bucket < 10:
        return Split.HELDOUT
    return Split.DEV if bucket < 15 else Split.TRAIN


def cleaned(text: str) -> str:
    """The text as originally typed: HTML entities decoded, doubled apostrophes as quotes, whitespace folded."""
    return " ".join(html.unescape(text).replace("''", '"').split())


def parse(content: bytes, source: str) -> Iterator[Sentence]:
    """Every rated sentence of one ground-truth file, whatever its rating.

    The files are UTF-8 with CRLF line ends and three tab-separated fields: id, mean rating, text.
    Raises `ValueError` (`UnicodeDecodeError` is one) for any other format, to detect changed files.
    """
    for line in content.decode("utf-8", errors="strict").splitlines():
        _, rating, text = line.split("\t")
        yield Sentence(cleaned(text), LABELS[float(rating) > 0], float(rating), source)


def distinct(sentences: Iterable[Sentence]) -> list[Sentence]:
    """One sentence per normalised text: the first, with the mean of all its ratings."""
    ratings: dict[str, list[float]] = {}
    first: dict[str, Sentence] = {}
    for sentence in sentences:
        key = normalised(sentence.text)
        first.setdefault(key, sentence)
        ratings.setdefault(key, []).append(sentence.rating)
    merged = []
    for key, sentence in first.items():
        mean = sum(ratings[key]) / len(ratings[key])
        merged.append(Sentence(sentence.text, LABELS[mean > 0], mean, sentence.source))
    return merged


def read_rated(sdist: Path) -> list[Sentence]:
    """Every distinct sentence of the VADER sdist, neutral ones included, in the order of `SOURCES` and of the files."""
    return distinct(s for source, content in ground_truth(sdist, SOURCES) for s in parse(content, source))


def ground_truth(sdist: Path, sources: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """The content of each of these ground-truth files, with the name that `sources` gives it."""
    with tarfile.open(sdist, "r:gz") as outer:
        inner = member(outer, "hutto_ICWSM_2014.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(inner), mode="r:gz") as archive:
        for file, source in sources.items():
            yield source, member(archive, file)


def read_lexicon(sdist: Path) -> list[Sentence]:
    """Every word and emoticon of the VADER lexicon, each rated by ten people on its own.

    Its lines are UTF-8, tab-separated: word, mean rating, spread, ratings.
    """
    with tarfile.open(sdist, "r:gz") as outer:
        lines = member(outer, "vader_lexicon.txt").decode("utf-8", errors="strict").splitlines()
    fields = [line.split("\t") for line in lines]
    return distinct(Sentence(word, LABELS[float(mean) > 0], float(mean), "lexicon") for word, mean, *_ in fields)


def decided(sentences: Iterable[Sentence]) -> list[Sentence]:
    """The sentences with a clear enough rating (|rating| >= 0.5) for a label."""
    return [s for s in sentences if abs(s.rating) >= MIN_RATING]


def on_side(sentences: Iterable[Sentence], split: Split) -> list[Sentence]:
    """The sentences of one side of the split, in order."""
    return [s for s in sentences if split_of(s.text) is split]


def heldout_rows(sentences: Iterable[Sentence]) -> list[dict[str, object]]:
    """The rows of `heldout.jsonl`."""
    return [{"text": s.text, "label": s.label, "source": s.source, "rating": round(s.rating, 4)} for s in sentences]
