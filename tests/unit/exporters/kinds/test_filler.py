"""Laws of a filler's verification, on logits made by hand: what counts as the same word, and what breaks a floor."""

from __future__ import annotations

import numpy as np
import pytest

from deployments.engines.base import Logits
from exporters.kinds.filler import FLOORS, FillFloors, compare_words, floors_of
from gateway.model.manifest import Precision

LOOSE = FillFloors(0.0, 100.0)


def likely(*words: int) -> list[Logits]:
    """Logits (vocabulary,) of texts with these likeliest words."""
    return list(np.eye(6, dtype=np.float32)[list(words)] * 4)


SOURCE = likely(0, 1, 2, 3)


def test_a_variant_like_its_source_breaks_nothing() -> None:
    """Equal logits have equal words, whatever the precision."""
    for floors in FLOORS.values():
        compared = compare_words(SOURCE, SOURCE, "by hand", floors)
        assert compared.broken is None and not compared.differences
        found = compared.verification
        assert (found.texts, found.same_word, found.logit_error, found.data_set) == (4, 1.0, 0.0, "by hand")


def test_words_are_compared_by_the_likeliest() -> None:
    """Only the likeliest word of each text counts; texts that differ are shown."""
    compared = compare_words(SOURCE, likely(0, 1, 5, 3), "by hand", LOOSE)
    assert compared.verification.same_word == 0.75 and compared.verification.largest_logit_difference == 4
    assert [(one.text, one.source, one.variant) for one in compared.differences] == [(2, "token 2", "token 5")]
    doubled = compare_words(SOURCE, [logits * 2 for logits in SOURCE], "by hand", LOOSE)
    assert doubled.verification.same_word == 1.0 and doubled.verification.logit_error > 0.5


def test_each_floor_is_told_in_words() -> None:
    """Too few equal words, and logits too far off, are each a reason to refuse."""
    broken = compare_words(SOURCE, likely(0, 1, 5, 3), "by hand", FillFloors(0.9, 100.0)).broken
    assert broken is not None and "75.00% of 4 texts have the source's likeliest word" in broken
    broken = compare_words(SOURCE, [logits * 2 for logits in SOURCE], "by hand", FillFloors(0.9, 0.1)).broken
    assert broken is not None and "its logits are off by" in broken


@pytest.mark.parametrize("strange", [np.nan, -np.inf])
def test_what_is_no_number_breaks_a_floor(strange: float) -> None:
    """A logit that is not a number is never within a ceiling, though the words may agree."""
    said = [logits.copy() for logits in SOURCE]
    said[0][5] = strange
    assert compare_words(SOURCE, said, "by hand", floors_of(Precision.INT8, 0.1)).broken is not None


def test_a_floor_of_ones_own_replaces_the_precision_s() -> None:
    """A floor that is given holds for words, and lets logits be off by as much as it allows words to."""
    assert floors_of(Precision.INT8, None) == FLOORS[Precision.INT8]
    assert floors_of(Precision.FP32, 0.75) == FillFloors(0.75, 0.25)
