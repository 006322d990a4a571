"""Reads the texts that a variant is verified on: the checkpoint's own if it has any, else the starters' held-out ones.

Classifiers are verified on texts with labels, summarisers on texts with summaries; both may be missing. The held-out
texts are part of the package. Needs no training library.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from exporters.errors import SourceRefused
from exporters.sources.source import SourceFolder

OWN_TEXTS = "verification.jsonl"
HELDOUT_NAME = "starter-heldout"
STARTER = Path(__file__).parents[1] / "starter"
HELDOUT = STARTER / "heldout.jsonl"
SUMMARIES = STARTER / "summaries-heldout.jsonl"
SOFTWARE = STARTER / "software-heldout.jsonl"
PERSONAL = STARTER / "personal-heldout.jsonl"
ENTITIES = STARTER / "entities-heldout.jsonl"
SUMMARIES_OF = {"starter:bart-software": SOFTWARE}
"""The held-out texts of starters that were trained on texts of their own kind, by location."""
TAGGED_OF = {"starter:minilm-entities": ENTITIES}
"""The marked texts of starters that find other things than personal data, by location."""


@dataclass(frozen=True)
class Sentence:
    """A sentence, its mean rating by 20 people (-4 to 4), the label of the rating's sign, and its data set."""

    text: str
    label: str
    rating: float
    source: str


def read_heldout(path: Path = HELDOUT) -> list[Sentence]:
    """The sentences held out from the starter classifiers. Raises FileNotFoundError."""
    return [Sentence(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


@dataclass(frozen=True)
class Text:
    """A text, with a human label, summary or question if it has one."""

    text: str
    answer: str | None = None


@dataclass(frozen=True)
class TextSet:
    """Verification texts, with the name that the manifest records."""

    name: str
    texts: tuple[Text, ...]

    @property
    def answers(self) -> list[str] | None:
        """The labels or summaries in order; None if any text lacks one."""
        found = [one.answer for one in self.texts if one.answer is not None]
        return found if len(found) == len(self.texts) else None

    def known_to(self, labels: tuple[str, ...]) -> TextSet:
        """The texts with labels in the checkpoint's spelling; without labels if any is unknown to it."""
        spelling = {label.casefold(): label for label in labels}
        given = [None if one.answer is None else one.answer.casefold() for one in self.texts]
        foreign = not {label for label in given if label is not None} <= set(spelling)
        spelt = [None if label is None or foreign else spelling[label] for label in given]
        return TextSet(self.name, tuple(Text(one.text, label) for one, label in zip(self.texts, spelt, strict=True)))

    def spread(self, most: int) -> TextSet:
        """At most `most` of the texts, evenly spaced."""
        count = min(most, len(self.texts))
        return TextSet(self.name, tuple(self.texts[at * len(self.texts) // count] for at in range(count)))


def labelled_texts(source: SourceFolder, heldout: Path = HELDOUT) -> TextSet:
    """The texts for a classifier: its own, or the starters' held-out sentences.

    Raises SourceRefused if the file is malformed or empty.
    """
    own = source.path / OWN_TEXTS
    return _read(own, OWN_TEXTS, "label") if own.exists() else _read(heldout, HELDOUT_NAME, "label")


def summarised_texts(source: SourceFolder, heldout: Path = SUMMARIES) -> TextSet:
    """The texts for a summariser: its own, its starter's held-out ones, or the general ones.

    Raises SourceRefused if the file is missing, malformed or empty.
    """
    own = source.path / OWN_TEXTS
    if own.exists():
        return _read(own, OWN_TEXTS, "summary")
    file = SUMMARIES_OF.get(source.location, heldout)
    if not file.exists():
        raise SourceRefused(f"{source.location}: no texts to verify it on: neither {own.name} in it nor {file.name}")
    return read_texts(file)


def translated_texts(source: SourceFolder, heldout: Path = HELDOUT) -> TextSet:
    """The sentences for a translator: its own, each with a `translation` if it has one, or the starters' held-out ones.

    Raises SourceRefused as the others do.
    """
    own = source.path / OWN_TEXTS
    if own.exists():
        return _read(own, OWN_TEXTS, "translation")
    return _read(heldout, HELDOUT_NAME, "translation")


def asked_texts(source: SourceFolder) -> TextSet | None:
    """The checkpoint's own contexts, each with a `question` as its answer if it has one; None without any.

    Raises SourceRefused as the others do.
    """
    own = source.path / OWN_TEXTS
    return _read(own, OWN_TEXTS, "question") if own.exists() else None


def read_texts(file: Path) -> TextSet:
    """The texts of a held-out file, with their summaries if they have any. Raises SourceRefused as the others do."""
    return _read(file, f"starter {file.stem}", "summary")


def general_texts(descriptions: int, documents: int) -> TextSet:
    """So many package descriptions, and documents that are longer than most windows."""
    return together(read_texts(SOFTWARE).spread(descriptions), read_texts(SUMMARIES).spread(documents))


def together(*sets: TextSet) -> TextSet:
    """The texts of several sets as one, by all their names."""
    return TextSet(", ".join(one.name for one in sets), tuple(text for one in sets for text in one.texts))


def _read(file: Path, name: str, answer: str) -> TextSet:
    """The text of each line, with its answer if it has one."""
    texts = []
    lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # texts may contain other line breaks
    for number, line in enumerate(lines if any(lines) else (), start=1):
        try:
            row = json.loads(line)
            given = row.get(answer)
            texts.append(Text(str(row["text"]), None if given is None else str(given)))
        except (ValueError, KeyError, AttributeError):
            raise SourceRefused(f"{file}, line {number}: not an object with a text and perhaps a {answer}") from None
    if not texts:
        raise SourceRefused(f"{file}: no texts in it")
    return TextSet(name, tuple(texts))
