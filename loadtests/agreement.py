"""What the served labels of one checkpoint are compared with, and the faults that are found in them.

Pure arithmetic over labels: truth, served, the variant run alone, and if asked for the source's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from exporters.starter.data import Sentence
from exporters.texts import HELDOUT_NAME
from gateway.model.manifest import ClassifierManifest

AGREEMENT_FLOOR = 0.985
TOLERANCE = 0.005
"""The share of sentences that batch-mates may turn: dynamic int8 takes one activation scale for a whole batch."""


@dataclass(frozen=True)
class Unanswered:
    """A sentence that got no label, and why."""

    why: str


@dataclass(frozen=True)
class Right:
    """How many of so many sentences were answered rightly: over HTTP, and by the variant run alone."""

    sentences: int
    served: int
    alone: int

    @property
    def served_share(self) -> float:
        """Accuracy over HTTP; an unanswered sentence counts as wrong."""
        return self.served / self.sentences

    @property
    def alone_share(self) -> float:
        """Accuracy of the variant run alone."""
        return self.alone / self.sentences


@dataclass(frozen=True)
class Agreement:
    """One checkpoint, judged. Shares are from 0 to 1; None where there is nothing to compare with."""

    checkpoint: str
    variant: str
    overall: Right
    by_data_set: dict[str, Right]
    unanswered: dict[str, int]
    verified_accuracy: float | None
    manifest_agreement: float
    alone_agreement: float
    source_agreement: float | None

    @property
    def apart(self) -> int | None:
        """Sentences more (or fewer, negative) answered rightly over HTTP than when the variant was verified."""
        if self.verified_accuracy is None:
            return None
        return self.overall.served - round(self.verified_accuracy * self.overall.sentences)

    @property
    def allowed(self) -> int:
        """The sentences that may lie between the two for the batch-mates' sake."""
        return int(TOLERANCE * self.overall.sentences)

    def faults(self) -> list[str]:
        """What is wrong, in words; nothing where the checkpoint answers over HTTP as it was verified."""
        found = [f"{count} sentences unanswered: {why}" for why, count in self.unanswered.items()]
        if self.apart is not None and abs(self.apart) > self.allowed:
            found.append(f"{self.apart:+d} right answers against its verification, over the {self.allowed} allowed")
        shares = {
            "the variant run alone": self.alone_agreement,
            "its source, by its manifest": self.manifest_agreement,
            "its source, run now": self.source_agreement,
        }
        found += [
            f"{share:.2%} of labels agree with {what}, under {AGREEMENT_FLOOR:.1%}"
            for what, share in shares.items()
            if share is not None and share < AGREEMENT_FLOOR
        ]
        return found


def judge(
    manifest: ClassifierManifest,
    sentences: Sequence[Sentence],
    served: Sequence[str | Unanswered],
    alone: Sequence[str],
    source: Sequence[str] | None,
) -> Agreement:
    """Compares the labels of the sentences, in their order, whatever their capitals."""
    said = [label.casefold() if isinstance(label, str) else None for label in served]
    by_itself = [label.casefold() for label in alone]
    true = [sentence.label.casefold() for sentence in sentences]
    sets = [sentence.source for sentence in sentences]

    def right(where: Sequence[int]) -> Right:
        return Right(len(where), sum(said[i] == true[i] for i in where), sum(by_itself[i] == true[i] for i in where))

    checked = manifest.verification
    comparable = checked.data_set == HELDOUT_NAME and checked.texts == len(sentences)
    return Agreement(
        checkpoint=manifest.checkpoint,
        variant=manifest.variant,
        overall=right(range(len(sentences))),
        by_data_set={name: right([i for i, its in enumerate(sets) if its == name]) for name in dict.fromkeys(sets)},
        unanswered=dict(Counter(one.why for one in served if isinstance(one, Unanswered))),
        verified_accuracy=checked.accuracy if comparable else None,
        manifest_agreement=checked.label_agreement,
        alone_agreement=_equal(said, by_itself),
        source_agreement=None if source is None else _equal(said, [label.casefold() for label in source]),
    )


def _equal(left: Sequence[str | None], right: Sequence[str]) -> float:
    """The share of equal labels among the sentences that were answered; 0 where none was."""
    answered = [one == other for one, other in zip(left, right, strict=True) if one is not None]
    return sum(answered) / len(answered) if answered else 0.0
