"""From a package's description to the text and the one-line summary that are learnt from, and which ones count."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from exporters.starter.software.archive import Package

MIN_CHARS = 120
MIN_WORDS, MAX_WORDS = 2, 24
KEPT = (
    f"descriptions of at least {MIN_CHARS} characters with a synopsis of {MIN_WORDS} to {MAX_WORDS} words, "
    "no transitional or dummy packages"
)
BULLET = re.compile(r"^(?:[-*+o•·–]|\d{1,2}[.)])\s+")
TRANSITIONAL = re.compile(r"\b(?:transitional|dummy|empty)\b", re.IGNORECASE)
LETTERS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Pair:
    """A text and its summary, as people wrote them, with the package they describe and its source."""

    package: str
    source: str
    text: str
    summary: str


def cleaned(description: str) -> str:
    """A long description as one running text.

    The paragraph marks (` .`), line breaks, indentation and bullets of the control file go; casing and wording stay.
    """
    lines = (line.strip() for line in unicodedata.normalize("NFC", description).splitlines())
    return " ".join(" ".join(BULLET.sub("", line) for line in lines if line != ".").split())


def pairs(packages: Iterable[Package]) -> list[Pair]:
    """What counts of the packages, one pair for each distinct text: the first one's, in the order given."""
    found: dict[str, Pair] = {}
    for package in packages:
        text, summary = cleaned(package.description), " ".join(package.synopsis.split())
        if counts(text, summary):
            found.setdefault(normalised(text), Pair(package.name, package.source, text, summary))
    return list(found.values())


def counts(text: str, summary: str) -> bool:
    """Whether a text is long enough to be worth a summary, and the summary one that the text could lead to."""
    in_range = MIN_WORDS <= len(summary.split()) <= MAX_WORDS
    return len(text) >= MIN_CHARS and in_range and not TRANSITIONAL.search(f"{summary} {text[:200]}")


def normalised(text: str) -> str:
    """The form under which two texts count as the same: their words alone, casefolded; figures and marks do not count.

    So the descriptions of `gcc-11` and `gcc-12` are one.
    """
    return " ".join(LETTERS.findall(unicodedata.normalize("NFKC", text).casefold()))
