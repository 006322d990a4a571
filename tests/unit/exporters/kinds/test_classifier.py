"""Laws of the comparison between a classifier's variant and its source."""

from __future__ import annotations

import numpy as np
import pytest
from small_variants import LABELS

from deployments.engines.base import Logits
from exporters.kinds.classifier import LabelFloors, compare_labels
from exporters.sources.texts import Text, TextSet

SOURCE = np.array([[2, 0], [0, 2], [1, 0], [0, 1]], dtype=np.float32)
FLOORS = LabelFloors(label_agreement=0.75, accuracy_drop=0.3)


def texts(labels: list[str | None]) -> TextSet:
    """A set with one text for each of these labels."""
    return TextSet("set", tuple(Text(f"text {at}", label) for at, label in enumerate(labels)))


UNLABELLED = texts([None] * 4)
LABELLED = texts(["negative", "positive", "negative", "negative"])


def flipped(*rows: int) -> Logits:
    """The source's logits with the labels of these rows swapped."""
    logits = SOURCE.copy()
    logits[list(rows)] = logits[list(rows), ::-1]
    return logits


def test_a_variant_equal_to_its_source_passes_every_floor() -> None:
    """A variant equal to its source passes every floor and shows no differences."""
    found = compare_labels(SOURCE, SOURCE, LABELS, UNLABELLED, LabelFloors(1.0, 0.0))
    assert (found.broken, found.differences, found.verification.label_agreement) == (None, (), 1.0)
    assert found.verification.accuracy is None


def test_a_variant_at_its_floor_passes_and_under_it_does_not() -> None:
    """A variant exactly at its floor passes; one below it does not."""
    assert compare_labels(SOURCE, flipped(0), LABELS, UNLABELLED, FLOORS).broken is None
    under = compare_labels(SOURCE, flipped(0, 3), LABELS, UNLABELLED, FLOORS)
    assert under.broken is not None and "50.00% of 4 labels" in under.broken


def test_accuracy_is_judged_where_the_texts_are_labelled() -> None:
    """Accuracy is judged if the texts have labels: a harmful flip lowers it, a helpful one raises it."""
    better = compare_labels(SOURCE, flipped(3), LABELS, LABELLED, FLOORS)
    assert (better.verification.source_accuracy, better.verification.accuracy, better.broken) == (0.75, 1.0, None)
    worse = compare_labels(SOURCE, flipped(0), LABELS, LABELLED, LabelFloors(0.0, 0.2))
    assert worse.broken is not None and "accuracy is 50.00%" in worse.broken


def test_a_label_that_changed_is_shown_before_a_score_that_moved() -> None:
    """Changed labels are shown before moved scores, each with its text and both answers."""
    variant = flipped(2)
    variant[0] = (9, 0)
    first, second = compare_labels(SOURCE, variant, LABELS, UNLABELLED, FLOORS).differences
    assert (first.text, first.source, first.variant) == (2, "negative 0.731", "positive 0.731")
    assert (second.text, second.source, second.variant) == (0, "negative 0.881", "negative 1.000")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_logit_that_is_no_number_never_passes(value: float) -> None:
    """A logit that is not finite never passes, whatever the floors."""
    variant = SOURCE.copy()
    variant[1, 0] = value
    assert (
        compare_labels(SOURCE, variant, LABELS, UNLABELLED, LabelFloors(0.0, 1.0)).broken
        == "some of its logits are not numbers"
    )
