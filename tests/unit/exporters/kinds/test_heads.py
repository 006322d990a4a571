"""Laws of a classifier's head, and of the comparison between its variant and its source."""

from __future__ import annotations

import numpy as np
import pytest
from small_variants import LABELS

from deployments.engines.base import Logits
from exporters.kinds.heads import Head, LabelFloors, compare_labels, explained, floors_of, read_head
from exporters.sources.texts import Text, TextSet
from gateway.model.manifest import FunctionToApply, Measure, Precision

SOURCE = np.array([[2, 0], [0, 2], [1, 0], [0, 1]], dtype=np.float32)
SENTIMENT = Head(LABELS, "softmax")
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
    found = compare_labels(SOURCE, SOURCE, SENTIMENT, UNLABELLED, LabelFloors(1.0, 0.0))
    assert (found.broken, found.differences, found.verification.label_agreement) == (None, (), 1.0)
    assert found.verification.accuracy is None


def test_a_variant_at_its_floor_passes_and_under_it_does_not() -> None:
    """A variant exactly at its floor passes; one below it does not."""
    assert compare_labels(SOURCE, flipped(0), SENTIMENT, UNLABELLED, FLOORS).broken is None
    under = compare_labels(SOURCE, flipped(0, 3), SENTIMENT, UNLABELLED, FLOORS)
    assert under.broken is not None and "50.00% of 4 labels" in under.broken


def test_accuracy_is_judged_where_the_texts_are_labelled() -> None:
    """Accuracy is judged if the texts have labels: a harmful flip lowers it, a helpful one raises it."""
    better = compare_labels(SOURCE, flipped(3), SENTIMENT, LABELLED, FLOORS)
    assert (better.verification.source_accuracy, better.verification.accuracy, better.broken) == (0.75, 1.0, None)
    worse = compare_labels(SOURCE, flipped(0), SENTIMENT, LABELLED, LabelFloors(0.0, 0.2))
    assert worse.broken is not None and "accuracy is 50.00%" in worse.broken


def test_a_label_that_changed_is_shown_before_a_score_that_moved() -> None:
    """Changed labels are shown before moved scores, each with its text and both answers."""
    variant = flipped(2)
    variant[0] = (9, 0)
    first, second = compare_labels(SOURCE, variant, SENTIMENT, UNLABELLED, FLOORS).differences
    assert (first.text, first.source, first.variant) == (2, "negative 0.731", "positive 0.731")
    assert (second.text, second.source, second.variant) == (0, "negative 0.881", "negative 1.000")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_logit_that_is_no_number_never_passes(value: float) -> None:
    """A logit that is not finite never passes, whatever the floors."""
    variant = SOURCE.copy()
    variant[1, 0] = value
    assert (
        compare_labels(SOURCE, variant, SENTIMENT, UNLABELLED, LabelFloors(0.0, 1.0)).broken
        == "some of its logits are not numbers"
    )


@pytest.mark.parametrize(
    ("config", "function", "measure"),
    [
        ({}, "softmax", "label"),
        ({"num_labels": 3}, "softmax", "label"),
        ({"num_labels": 1}, "sigmoid", "error"),
        ({"id2label": {"1": "b", "0": "a"}}, "softmax", "label"),
        ({"id2label": {"1": "b", "0": "a"}, "problem_type": "regression"}, "none", "error"),
        ({"id2label": {"0": "a"}, "problem_type": "regression"}, "none", "error"),
        ({"id2label": {"0": "a"}, "problem_type": "single_label_classification"}, "sigmoid", "error"),
        ({"id2label": {"0": "a", "1": "b"}, "problem_type": "multi_label_classification"}, "sigmoid", "each_label"),
    ],
)
def test_a_head_is_read_as_transformers_reads_it(
    config: dict[str, object], function: FunctionToApply, measure: Measure
) -> None:
    """The function is the pipeline's, labels are in the order of their numbers, and unnamed ones are LABEL_0, ..."""
    head = read_head(config, "here")
    assert (head.function, head.measure) == (function, measure)
    assert head.labels == (("a", "b")[: len(head.labels)] if "id2label" in config else head.labels)
    assert "id2label" in config or head.labels == tuple(f"LABEL_{at}" for at in range(len(head.labels)))


INDEPENDENT = Head(("first", "second"), "sigmoid")
TAGGED = np.array([[3, -4], [-3, -4], [3, -4], [-3, -4]], dtype=np.float32)
"""Logits of independent labels, the second of which no text has."""


def test_each_independent_label_is_judged_by_itself() -> None:
    """A label that no text has is wrong where a variant's scores of it are, though it is best for no text."""
    within = LabelFloors(0.75, score_difference=0.02)
    assert compare_labels(TAGGED, TAGGED, INDEPENDENT, UNLABELLED, within).broken is None
    swayed = TAGGED + np.array([0, 2], dtype=np.float32)
    found = compare_labels(TAGGED, swayed, INDEPENDENT, UNLABELLED, within)
    assert found.verification.label_agreement == 1.0
    assert found.broken is not None and "the scores of a label are 0.1012 off on average" in found.broken
    assert found.differences[0].source == "second 0.018" and found.differences[0].variant == "second 0.119"
    given = TAGGED.copy()
    given[:3, 1] = 4
    wrong = compare_labels(TAGGED, given, INDEPENDENT, UNLABELLED, within)
    assert wrong.broken is not None and "62.50% of the labels of 4 texts are given or not" in wrong.broken


def test_a_number_is_judged_by_its_error() -> None:
    """Errors count by how far the source's numbers lie apart, and a constant answer explains nothing."""
    numbers = np.array([[1], [2], [3], [4]], dtype=np.float32)
    assert explained(numbers, numbers) == 1.0
    assert explained(numbers, numbers + np.float32(0.1)) == pytest.approx(1 - 0.01 / 1.25)
    assert explained(numbers * 100, numbers * 100 + 10) == pytest.approx(1 - 0.01 / 1.25)
    assert explained(numbers, np.full_like(numbers, 2.5)) == 0.0
    assert explained(np.ones_like(numbers), np.ones_like(numbers) + np.float32(1e-6)) > 0.999
    head = Head(("LABEL_0",), "none")
    found = compare_labels(numbers, numbers + np.float32(0.5), head, UNLABELLED, floors_of(Precision.INT8, None, 0.01))
    assert found.broken is not None and "explain 80.00% of the variance" in found.broken and "0.5" in found.broken
    assert found.differences[0].source == "LABEL_0 1.000" and found.differences[0].variant == "LABEL_0 1.500"


def test_a_floor_that_is_given_holds_for_every_head() -> None:
    """`--floor` replaces the least agreement by any measure, and lets scores be off by the rest."""
    floors = floors_of(Precision.INT8, 0.5, 0.2)
    assert (floors.least("label"), floors.least("each_label"), floors.least("error")) == (0.5, 0.5, 0.5)
    assert (floors.score_difference, floors.accuracy_drop) == (0.5, 0.2)
    assert floors_of(Precision.FP32, None, 0.01).least("error") == 0.999
