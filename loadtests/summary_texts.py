"""The texts that summaries are measured on, with the summaries that people gave them: held out, and of two kinds."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec
from msgspec import Struct

from exporters.starter.software.heldout import HELDOUT as SOFTWARE
from exporters.texts import SUMMARIES as PAPERS
from loadtests.summary_errors import NoTexts


class Kind(StrEnum):
    """What a text is: a scientific paper's introduction, or a package's description."""

    PAPERS = "papers"
    SOFTWARE = "software"


@dataclass(frozen=True)
class HeldoutText:
    """A text and the summary to compare with."""

    kind: Kind
    text: str
    reference: str

    @property
    def domain(self) -> str | None:
        """What the client says of it, as `parameters.domain`."""
        return "software" if self.kind is Kind.SOFTWARE else None


@dataclass(frozen=True)
class TextFiles:
    """Where the texts of both kinds lie, as JSON lines with `text` and `summary`."""

    papers: Path = PAPERS
    software: Path = SOFTWARE


SHIPPED = TextFiles()
"""Those that travel with the code."""


def mixed_texts(count: int, seed: int, files: TextFiles) -> list[HeldoutText]:
    """So many texts in a mixed order, half of each kind; of a kind with too few, all of them over and over.

    Equal seeds, equal texts. Raises NoTexts.
    """
    chance = random.Random(seed)
    papers = _drawn(Kind.PAPERS, files.papers, count - count // 2, chance)
    software = _drawn(Kind.SOFTWARE, files.software, count // 2, chance)
    return chance.sample([*papers, *software], count)


def longest_papers(count: int, files: TextFiles) -> list[HeldoutText]:
    """The papers' introductions with the most characters, the longest first. Raises NoTexts."""
    return sorted(_read(Kind.PAPERS, files.papers), key=lambda one: len(one.text), reverse=True)[:count]


def summarize_body(text: HeldoutText) -> bytes:
    """The body of `POST /summarize` for one text, as an ordinary client writes it."""
    parameters = {"parameters": {"domain": text.domain}} if text.domain else {}
    return json.dumps({"inputs": text.text, **parameters}, ensure_ascii=False).encode()


def _drawn(kind: Kind, path: Path, count: int, chance: random.Random) -> list[HeldoutText]:
    texts = _read(kind, path)
    found: list[HeldoutText] = []
    while len(found) < count:
        found += chance.sample(texts, min(len(texts), count - len(found)))
    return found


class _Row(Struct):
    text: str
    summary: str


def _read(kind: Kind, path: Path) -> list[HeldoutText]:
    try:
        rows = [msgspec.json.decode(line, type=_Row) for line in path.read_bytes().split(b"\n") if line]
    except FileNotFoundError:
        raise NoTexts(f"{path}: the held-out texts are missing") from None
    except msgspec.DecodeError as error:
        raise NoTexts(f"{path}: not lines with a text and a summary: {error}") from None
    if not rows:
        raise NoTexts(f"{path}: it holds no text")
    return [HeldoutText(kind, row.text, row.summary) for row in rows]
