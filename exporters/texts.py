"""The texts a variant is verified on: the checkpoint's own where it brings some, else the starter's held-out ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from exporters.errors import SourceRefused
from exporters.starter.data import HELDOUT, read_heldout

OWN_TEXTS = "verification.jsonl"
HELDOUT_NAME = "starter-heldout"


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
    texts = []
    for number, line in enumerate(own.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            label = row.get("label")
            texts.append(LabelledText(str(row["text"]), None if label is None else str(label)))
        except (ValueError, KeyError, AttributeError):
            raise SourceRefused(f"{own}, line {number}: not an object with a text and perhaps a label") from None
    if not texts:
        raise SourceRefused(f"{own}: no texts in it")
    return VerificationSet(OWN_TEXTS, tuple(texts))


def _spelt(label: str | None, spelling: dict[str, str]) -> str | None:
    return None if label is None else spelling[label.casefold()]
