"""The texts a variant is verified on: the checkpoint's own where it brings some, else the starter's held-out ones.

Classifiers are verified on texts with labels, summarisers on texts with summaries; both may be missing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from exporters.errors import SourceRefused
from exporters.source import SourceFolder
from exporters.starter.data import HELDOUT, read_heldout

OWN_TEXTS = "verification.jsonl"
HELDOUT_NAME = "starter-heldout"
SUMMARIES = HELDOUT.with_name("summaries-heldout.jsonl")
SUMMARIES_OF = {"starter:bart-software": HELDOUT.with_name("software-heldout.jsonl")}
"""The held-out texts of the starters that were taught on texts of their own kind, by location."""


@dataclass(frozen=True)
class LabelledText:
    """A text, and the label people gave it where they did."""

    text: str
    label: str | None = None


@dataclass(frozen=True)
class VerificationSet:
    """Texts to compare a variant with its source on, under the name that the manifest records."""

    name: str
    texts: tuple[LabelledText, ...]

    def known_to(self, labels: tuple[str, ...]) -> VerificationSet:
        """The same texts; their labels in the checkpoint's spelling, or left out when any is none of its labels."""
        spelling = {label.casefold(): label for label in labels}
        given = {t.label.casefold() for t in self.texts if t.label is not None}
        foreign = not given <= set(spelling)
        return VerificationSet(
            self.name,
            tuple(LabelledText(t.text, _spelt(t.label, spelling) if not foreign else None) for t in self.texts),
        )


def verification_set(source: Path, heldout: Path = HELDOUT) -> VerificationSet:
    """The set for a checkpoint's folder. Raises SourceRefused when its own file is malformed or empty."""
    own = source / OWN_TEXTS
    if not own.exists():
        return VerificationSet(HELDOUT_NAME, tuple(LabelledText(s.text, s.label) for s in read_heldout(heldout)))
    texts = tuple(LabelledText(text, label) for text, label in _rows(own, "label"))
    return VerificationSet(OWN_TEXTS, texts)


@dataclass(frozen=True)
class SummarisedText:
    """A text, and the summary people gave it where they did."""

    text: str
    summary: str | None = None


@dataclass(frozen=True)
class SummarySet:
    """Texts to compare a summariser's variant with its source on, under the name that the manifest records."""

    name: str
    texts: tuple[SummarisedText, ...]

    @property
    def summaries(self) -> list[str] | None:
        """The texts' own summaries, in their order; None where any text has none."""
        found = [one.summary for one in self.texts if one.summary is not None]
        return found if len(found) == len(self.texts) else None

    def spread(self, most: int) -> SummarySet:
        """At most so many of the texts, taken at equal distances."""
        count = min(most, len(self.texts))
        return SummarySet(self.name, tuple(self.texts[at * len(self.texts) // count] for at in range(count)))


def summary_set(source: SourceFolder, heldout: Path = SUMMARIES) -> SummarySet:
    """The texts for a summariser: its own, those that its starter was held out from, or the general ones.

    Raises SourceRefused when the file is not there, malformed or empty.
    """
    own = source.path / OWN_TEXTS
    file = own if own.exists() else SUMMARIES_OF.get(source.location, heldout)
    name = OWN_TEXTS if file == own else f"starter {file.stem}"
    if not file.exists():
        raise SourceRefused(f"{source.location}: no texts to verify it on: neither {own.name} in it nor {file.name}")
    return SummarySet(name, tuple(SummarisedText(text, summary) for text, summary in _rows(file, "summary")))


def _rows(file: Path, answer: str) -> list[tuple[str, str | None]]:
    """The text of each line, and its answer where it has one."""
    rows: list[tuple[str, str | None]] = []
    lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # a text may hold other line ends
    for number, line in enumerate(lines if any(lines) else (), start=1):
        try:
            row = json.loads(line)
            given = row.get(answer)
            rows.append((str(row["text"]), None if given is None else str(given)))
        except (ValueError, KeyError, AttributeError):
            raise SourceRefused(f"{file}, line {number}: not an object with a text and perhaps a {answer}") from None
    if not rows:
        raise SourceRefused(f"{file}: no texts in it")
    return rows


def _spelt(label: str | None, spelling: dict[str, str]) -> str | None:
    return None if label is None else spelling[label.casefold()]
