"""Laws of the comparison between a variant and its source."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_variants import LABELS

from deployments.engines.base import Logits
from exporters.errors import SourceRefused
from exporters.texts import LabelledText, VerificationSet, verification_set
from exporters.verify import Floors, compare, run_all

SOURCE = np.array([[2, 0], [0, 2], [1, 0], [0, 1]], dtype=np.float32)
FLOORS = Floors(label_agreement=0.75, accuracy_drop=0.3)


def texts(labels: list[str | None]) -> VerificationSet:
    """As many texts as labels."""
    return VerificationSet("set", tuple(LabelledText(f"text {at}", label) for at, label in enumerate(labels)))


UNLABELLED = texts([None] * 4)
LABELLED = texts(["negative", "positive", "negative", "negative"])


def flipped(*rows: int) -> Logits:
    """The source's logits with the labels of some rows the other way round."""
    logits = SOURCE.copy()
    logits[list(rows)] = logits[list(rows), ::-1]
    return logits


def test_a_variant_equal_to_its_source_passes_every_floor() -> None:
    """Nothing differs, so there is nothing to show."""
    found = compare(SOURCE, SOURCE, LABELS, UNLABELLED, Floors(1.0, 0.0))
    assert (found.broken, found.differences, found.verification.label_agreement) == (None, (), 1.0)
    assert found.verification.accuracy is None


def test_a_variant_at_its_floor_passes_and_under_it_does_not() -> None:
    """The floor itself is good enough."""
    assert compare(SOURCE, flipped(0), LABELS, UNLABELLED, FLOORS).broken is None
    under = compare(SOURCE, flipped(0, 3), LABELS, UNLABELLED, FLOORS)
    assert under.broken is not None and "50.00% of 4 labels" in under.broken


def test_accuracy_is_judged_where_the_texts_are_labelled() -> None:
    """A flip that hurts costs accuracy, one that helps does not."""
    better = compare(SOURCE, flipped(3), LABELS, LABELLED, FLOORS)
    assert (better.verification.source_accuracy, better.verification.accuracy, better.broken) == (0.75, 1.0, None)
    worse = compare(SOURCE, flipped(0), LABELS, LABELLED, Floors(0.0, 0.2))
    assert worse.broken is not None and "accuracy is 50.00%" in worse.broken


def test_a_label_that_changed_is_shown_before_a_score_that_moved() -> None:
    """The rows say which text, and what both said of it."""
    variant = flipped(2)
    variant[0] = (9, 0)
    first, second = compare(SOURCE, variant, LABELS, UNLABELLED, FLOORS).differences
    assert (first.text, first.source, first.variant) == (2, "negative 0.731", "positive 0.731")
    assert (second.text, second.source, second.variant) == (0, "negative 0.881", "negative 1.000")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_logit_that_is_no_number_never_passes(value: float) -> None:
    """Whatever the floors."""
    variant = SOURCE.copy()
    variant[1, 0] = value
    assert compare(SOURCE, variant, LABELS, UNLABELLED, Floors(0.0, 1.0)).broken == "some of its logits are not numbers"


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=40))
def test_rows_run_in_batches_of_alike_lengths_come_back_in_order(rows: list[list[int]]) -> None:
    """Whatever the batching, an answer stands at its text's place."""

    def run(batch: list[list[int]]) -> Logits:
        return np.array([[len(row), sum(row)] for row in batch], dtype=np.float32)

    logits = run_all(rows, run, lambda _: None)
    assert logits.tolist() == [[len(row), sum(row)] for row in rows]


def test_labels_are_matched_whatever_their_case() -> None:
    """NEGATIVE and negative are one label; the checkpoint's spelling is taken."""
    known = LABELLED.known_to(("NEGATIVE", "POSITIVE"))
    assert known.texts[0].label == "NEGATIVE"


def test_labels_of_another_kind_are_left_out() -> None:
    """Texts labelled by sentiment still serve a checkpoint for topics: agreement is counted, accuracy is not."""
    assert all(text.label is None for text in LABELLED.known_to(("sports", "business")).texts)


def test_a_checkpoint_s_own_texts_win(tmp_path: Path) -> None:
    """With labels or without; a line that is none is named by its number."""
    own = tmp_path / "verification.jsonl"
    own.write_text(json.dumps({"text": "a"}) + "\n" + json.dumps({"text": "b", "label": "positive"}) + "\n")
    assert verification_set(tmp_path).texts == (LabelledText("a"), LabelledText("b", "positive"))
    own.write_text('{"text": "a"}\n["b"]\n')
    with pytest.raises(SourceRefused, match="line 2"):
        verification_set(tmp_path)
    own.write_text("")
    with pytest.raises(SourceRefused, match="no texts"):
        verification_set(tmp_path)
