"""What a classifier's head means: its labels, the function that makes scores of its logits, and the proof of a variant.

Labels and function are those of transformers' `text-classification` pipeline on the same checkpoint. A variant is
proven by what its head is for: one label of several by the best one, independent labels each by itself, and numbers by
their error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deployments.engines.base import Logits
from deployments.replica.classify import applied
from exporters.errors import Difference, SourceRefused
from exporters.sources.texts import TextSet
from exporters.verification import WORST, Comparison
from gateway.model.manifest import FunctionToApply, Measure, Precision, Verification

LIBRARY_LABELS = 2
"""Labels of a checkpoint that says nothing of them, as transformers has it."""

SHOWN = 8
"""Most labels that a sentence lists."""

STILL = 1e-3
"""A number that varies by less than this share of its size counts as varying so much: rounding is no error."""


@dataclass(frozen=True)
class Head:
    """A classifier's labels in the order of its logits, and the function that its scores are made with."""

    labels: tuple[str, ...]
    function: FunctionToApply

    @property
    def measure(self) -> Measure:
        """How a variant is compared with its source."""
        if self.function == "softmax":
            return "label"
        return "each_label" if self.function == "sigmoid" and len(self.labels) > 1 else "error"


@dataclass(frozen=True)
class LabelFloors:
    """What a variant has to reach: the least agreement by the head's measure, and the most that it may lose.

    `explained` is the least agreement of a head that is measured by its error. `score_difference` is the most that the
    scores of one of several independent labels may be off on average.
    """

    label_agreement: float
    accuracy_drop: float = 0.01
    explained: float = 0.98
    score_difference: float = 0.02

    def least(self, measure: Measure) -> float:
        """The least agreement by a measure."""
        return self.explained if measure == "error" else self.label_agreement


FLOORS = {
    Precision.FP32: LabelFloors(0.999, explained=0.999, score_difference=0.001),
    Precision.BF16: LabelFloors(0.995, explained=0.99, score_difference=0.01),
    Precision.INT8: LabelFloors(0.985, explained=0.98, score_difference=0.02),
    Precision.INT8_WEIGHTS: LabelFloors(0.99, explained=0.99, score_difference=0.01),
}
"""In bf16 the starters agree in 99.8 % of labels. With one number of distilbert-sentiment's logits as its output, int8
explains 99.8 % of it and int8 weights 99.99 %; with four independent labels made of it, scores are off by up to 0.0067
and 0.0015 on average."""


def read_head(config: Mapping[str, Any], location: str) -> Head:
    """The head that a config.json describes. Raises SourceRefused if its labels are not one for each logit."""
    table = config.get("id2label")
    if table is None:
        count = config.get("num_labels")
        labels = tuple(f"LABEL_{at}" for at in range(LIBRARY_LABELS if count is None else int(count)))
    else:
        labels = _labels(table, location)
    return Head(labels, _function(config.get("problem_type"), len(labels)))


def _function(problem_type: object, labels: int) -> FunctionToApply:
    """The function that transformers' pipeline applies."""
    if problem_type == "regression":
        return "none"
    return "sigmoid" if problem_type == "multi_label_classification" or labels == 1 else "softmax"


def _labels(table: object, location: str) -> tuple[str, ...]:
    """The labels of an `id2label`, which must have one distinct name for each of 0, 1, 2, ..."""
    where = f"{location}: the id2label of its config.json"
    if not isinstance(table, Mapping) or not table:
        raise SourceRefused(f"{where} is no object that has a label for each number")
    strange = next((key for key in table if not key.isdecimal()), None)
    if strange is not None:
        raise SourceRefused(f"{where} has the key {strange!r}, which is no number; it must have labels by number")
    numbers = sorted(map(int, table))
    if numbers != list(range(len(table))):
        shown = ", ".join(map(str, numbers[:SHOWN])) + (", ..." if len(numbers) > SHOWN else "")
        raise SourceRefused(f"{where} numbers its labels {shown}; they must be numbered from 0 without a gap")
    named = {number: table[key] for key, number in sorted(((key, int(key)) for key in table), key=lambda one: one[1])}
    blank = next((number for number, name in named.items() if not isinstance(name, str | int | float)), None)
    if blank is not None:
        raise SourceRefused(f"{where} has no text for label {blank}")
    first: dict[str, int] = {}
    for number, name in named.items():
        if first.setdefault(str(name), number) != number:
            raise SourceRefused(f"{where} calls two labels {str(name)!r}, {first[str(name)]} and {number}")
    return tuple(first)


def floors_of(precision: Precision, floor: float | None, drop: float) -> LabelFloors:
    """The floors: `floor` if given, else the precision's own."""
    usual = FLOORS[precision]
    if floor is None:
        return LabelFloors(usual.label_agreement, drop, usual.explained, usual.score_difference)
    return LabelFloors(floor, drop, floor, max(usual.score_difference, 1 - floor))


def compare_labels(
    source: Logits, variant: Logits, head: Head, texts: TextSet, floors: LabelFloors
) -> Comparison[Verification]:
    """Compares the variant's logits with the source's by the head's measure, and both with the texts' labels if any."""
    meant, said = scores_of(source, head), scores_of(variant, head)
    apart = np.abs(np.asarray(variant, np.float64) - source)
    measure = head.measure
    several = measure == "each_label"
    verification = Verification(
        texts=len(texts.texts),
        data_set=texts.name,
        measure=measure,
        label_agreement=_agreement(source, variant, measure),
        label_agreement_floor=floors.least(measure),
        largest_logit_difference=float(np.nan_to_num(apart, nan=np.inf, posinf=np.inf).max()),
        score_difference=_largest(np.abs(said - meant).mean(axis=0)) if several else None,
        score_difference_ceiling=floors.score_difference if several else None,
        accuracy=_accuracy(variant, head, texts),
        source_accuracy=_accuracy(source, head, texts),
        accuracy_drop_ceiling=floors.accuracy_drop,
    )
    return Comparison(verification, _broken(verification), _worst(meant, said, head))


def scores_of(logits: Logits, head: Head) -> Logits:
    """The scores of every row of logits."""
    return np.asarray([applied(head.function, row) for row in logits])


def explained(source: Logits, variant: Logits) -> float:
    """The share of the variance of the source's numbers that the variant's explain, from 0 to 1; of several the least.

    It is one less the mean square of the errors by the variance: an error counts by how far the numbers lie apart.
    """
    meant, said = np.asarray(source, np.float64), np.asarray(variant, np.float64)
    least = (STILL * np.abs(meant).max(axis=0)) ** 2
    variance = np.maximum(meant.var(axis=0), np.maximum(least, np.finfo(np.float64).tiny))
    share = 1 - ((said - meant) ** 2).mean(axis=0) / variance
    return float(np.clip(np.nan_to_num(share, nan=0.0).min(), 0.0, 1.0))


def _agreement(source: Logits, variant: Logits, measure: Measure) -> float:
    match measure:
        case "label":
            return float((variant.argmax(axis=1) == source.argmax(axis=1)).mean())
        case "each_label":
            return float(((variant > 0) == (source > 0)).mean())  # a sigmoid is over one half where its logit is over 0
        case "error":
            return explained(source, variant)


def _largest(differences: Logits) -> float:
    return float(np.nan_to_num(differences, nan=1.0).max())


def _accuracy(logits: Logits, head: Head, texts: TextSet) -> float | None:
    """The share of labelled texts that get their label; None if no text has one, or none is the best by design."""
    true = np.asarray([head.labels.index(one.answer) if one.answer is not None else -1 for one in texts.texts])
    if head.measure != "label" or not (true >= 0).any():
        return None
    return float((logits.argmax(axis=1) == true)[true >= 0].mean())


def _broken(found: Verification) -> str | None:
    if not np.isfinite(found.largest_logit_difference):
        return "some of its logits are not numbers"
    if found.label_agreement < found.label_agreement_floor:
        return f"{_agreeing(found)}, under the floor of {found.label_agreement_floor:.2%}"
    off, ceiling = found.score_difference, found.score_difference_ceiling
    if off is not None and ceiling is not None and off > ceiling:
        return f"the scores of a label are {off:.4f} off on average, over the ceiling of {ceiling:.4f}"
    if found.accuracy is not None and found.source_accuracy is not None:
        drop = found.source_accuracy - found.accuracy
        if drop > found.accuracy_drop_ceiling:
            return (
                f"its accuracy is {found.accuracy:.2%} and the source's {found.source_accuracy:.2%}, "
                f"a drop over the ceiling of {found.accuracy_drop_ceiling:.2%}"
            )
    return None


def _agreeing(found: Verification) -> str:
    """An agreement in words."""
    match found.measure:
        case "label":
            return f"{found.label_agreement:.2%} of {found.texts} labels agree with the source"
        case "each_label":
            return f"{found.label_agreement:.2%} of the labels of {found.texts} texts are given or not as by the source"
        case "error":
            return (
                f"its numbers explain {found.label_agreement:.2%} of the variance of the source's on {found.texts} "
                f"texts, from which they differ by up to {found.largest_logit_difference:.3g}"
            )


def _worst(meant: Logits, said: Logits, head: Head) -> tuple[Difference, ...]:
    """The worst texts: those with another label than the source's first, then by difference of scores."""
    at = _told(meant, said, head)
    flipped = at[0] != at[1]
    apart = np.abs(meant - said).max(axis=1)
    order = sorted(range(len(meant)), key=lambda i: (not flipped[i], -apart[i]))[:WORST]
    return tuple(
        Difference(i, _answer(meant[i], at[0][i], head), _answer(said[i], at[1][i], head))
        for i in order
        if apart[i] > 0
    )


def _told(meant: Logits, said: Logits, head: Head) -> tuple[Logits, Logits]:
    """The label that each text's difference is shown by: the best one of each, or the one whose scores differ most."""
    if head.measure == "label":
        return meant.argmax(axis=1), said.argmax(axis=1)
    furthest = np.abs(meant - said).argmax(axis=1)
    return furthest, furthest


def _answer(scores: Logits, at: int, head: Head) -> str:
    """A label with its score."""
    return f"{head.labels[at]} {scores[at]:.3f}"
