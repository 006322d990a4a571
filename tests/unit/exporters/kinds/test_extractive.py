"""Laws of comparing the sentences that an extractive variant chooses with those that its source chooses."""

from __future__ import annotations

import numpy as np
import pytest

from deployments.replica.summarize.ranking import FEATURES, Floats, Ranker
from exporters.kinds.extractive import (
    FLOORS,
    MOST_SENTENCES,
    ChoiceFloors,
    compare_choice,
    floors_of,
    split_texts,
    vectors_of,
)
from exporters.sources.texts import Text, TextSet
from gateway.model.manifest import Precision

SENTENCES = ("The first has quite a few words.", "The second has quite a few words.", "The third has words to say too.")
TEXT = " ".join(SENTENCES)
ZEROS = np.zeros((1, 2), dtype=np.float32)
RANKER = Ranker(
    np.zeros((1, len(FEATURES)), dtype=np.float32), np.array([[1, 0]], dtype=np.float32), ZEROS, ZEROS, 0.0, 0.0
)
FIRST, SECOND = (
    np.array(rows, dtype=np.float32) for rows in ([[1, 0], [0, 1], [-1, 0.5]], [[0, 1], [1, 0.1], [-1, 0.5]])
)


def texts(*summaries: str | None) -> TextSet:
    """A set with one copy of the text for each summary."""
    return TextSet("set", tuple(Text(TEXT, summary) for summary in summaries))


def test_a_text_is_cut_as_a_replica_cuts_it() -> None:
    """A text is cut into sentences as in a replica; one without sentences is left out with its summary."""
    found = split_texts(TextSet("set", (Text(" \n ", "none"), Text(TEXT, "one"))))
    assert [one.sentences for one in found.texts] == [SENTENCES] and found.summaries == ["one"]
    long = split_texts(TextSet("set", (Text(" ".join([TEXT] * 100)),)))
    assert len(long.texts[0].sentences) == MOST_SENTENCES and long.summaries is None


def test_vectors_come_back_to_their_texts() -> None:
    """Vectors are returned by text, however sentences were batched."""

    def run(rows: list[list[int]]) -> Floats:
        return np.array([[sum(row), len(row)] for row in rows], dtype=np.float32)

    split = split_texts(texts(None, None))
    found = vectors_of(split, lambda sentence: [len(sentence)] * len(sentence.split()), run, lambda share: None)
    expected = [[len(one) * len(one.split()), len(one.split())] for one in SENTENCES]
    assert [vectors.tolist() for vectors in found] == [expected, expected]


def test_equal_vectors_choose_alike() -> None:
    """Equal vectors choose equal sentences and show no differences."""
    found = compare_choice([FIRST], [FIRST], split_texts(texts(None)), RANKER, 3, ChoiceFloors(1.0))
    checked = found.verification
    assert (found.broken, found.differences) == (None, ())
    assert (checked.same_choice, checked.rouge_l) == (1.0, None)
    assert checked.least_cosine == pytest.approx(1.0)


def test_another_choice_is_told_by_the_sentences() -> None:
    """A difference shows the sentence that only the source chose and the one that only the variant chose."""
    found = compare_choice(
        [FIRST, FIRST], [FIRST, SECOND], split_texts(texts(None, None)), RANKER, 3, ChoiceFloors(0.6)
    )
    assert found.broken is not None and "50.00% of the sentences" in found.broken
    (difference,) = found.differences
    assert (difference.text, difference.source, difference.variant) == (1, SENTENCES[0], SENTENCES[1])
    assert found.verification.least_cosine < 0.2


def test_summaries_are_the_measure_where_the_texts_bear_them() -> None:
    """If texts have summaries, a choice that loses too much ROUGE-L against them is refused."""
    split = split_texts(texts(SENTENCES[0], SENTENCES[0]))
    found = compare_choice([FIRST] * 2, [SECOND] * 2, split, RANKER, 3, ChoiceFloors(0.0, 0.01))
    assert found.broken is not None and "the source's 1.000" in found.broken


def test_vectors_that_are_no_numbers_never_pass() -> None:
    """Vectors that are not finite never pass, whatever the floors."""
    broken = FIRST.copy()
    broken[0, 0] = np.nan
    found = compare_choice([FIRST], [broken], split_texts(texts(None)), RANKER, 3, ChoiceFloors(0.0, 1.0))
    assert found.broken == "some of its vectors are not numbers"


def test_a_floor_that_was_asked_for_counts() -> None:
    """A requested floor replaces that of the precision."""
    assert floors_of(Precision.INT8, None, 0.01) == FLOORS[Precision.INT8]
    assert floors_of(Precision.INT8, 0.5, 0.02) == ChoiceFloors(0.5, 0.02)
