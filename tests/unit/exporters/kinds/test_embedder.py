"""Laws of verifying embedders: which floor a variant breaks, and what a search finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.engines.base import Logits
from exporters.kinds.embedder import (
    FLOORS,
    Said,
    Searched,
    compare_vectors,
    floors_of,
    mean_reciprocal_rank,
    said_of,
)
from gateway.model.manifest import Precision

COUNT, DIMENSIONS = 30, 16
PAIRED = Searched("by hand", [f"text {at}" for at in range(COUNT)], [f"query {at}" for at in range(COUNT)], [])
ALONE = replace(PAIRED, queries=None)


def source(texts: Searched = PAIRED) -> Logits:
    """Vectors of random directions and lengths; a query lies near its text."""
    chance = np.random.default_rng(1)
    own = chance.normal(size=(COUNT, DIMENSIONS))
    near = own + 0.3 * chance.normal(size=(COUNT, DIMENSIONS))
    found: Logits = (np.concatenate([own, near]) if texts.queries else own).astype(np.float32)
    return found


def said(vectors: Logits, moved: float = 0.0) -> Said:
    """What a variant gives: these vectors, and some of them moved a little among others."""
    places = tuple(range(0, len(vectors), 3))
    alone = vectors[list(places)]
    return Said(vectors, places, alone, alone + np.float32(moved) * np.roll(alone, 1, axis=1))


def shifted(vectors: Logits, by: float, seed: int = 2) -> Logits:
    """The vectors with noise of this size relative to their own."""
    noise = np.random.default_rng(seed).normal(size=vectors.shape)
    found: Logits = (vectors + by * noise).astype(np.float32)
    return found


@pytest.mark.parametrize("texts", [PAIRED, ALONE])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
@pytest.mark.parametrize("times", [1.0, 0.5])
def test_equal_directions_pass(texts: Searched, precision: Precision, times: float) -> None:
    """Vectors of the same directions reach every floor, whatever their lengths."""
    vectors = source(texts)
    found = compare_vectors(vectors, said(np.float32(times) * vectors), texts, FLOORS[precision])
    assert found.broken is None and found.differences == ()
    assert found.verification.neighbours == 1.0 and found.verification.least_cosine == pytest.approx(1)
    assert (found.verification.reciprocal_rank is None) == (texts.queries is None)


def test_a_small_shift_passes_in_int8_and_not_in_fp32() -> None:
    """What int8 moves is within its floors, and under those of fp32, which must be exact."""
    vectors = source()
    given_vectors = said(shifted(vectors, 0.05))
    assert compare_vectors(vectors, given_vectors, PAIRED, FLOORS[Precision.INT8]).broken is None
    assert "has a cosine of 0.9" in str(compare_vectors(vectors, given_vectors, PAIRED, FLOORS[Precision.FP32]).broken)


def test_one_wrong_vector_breaks_the_floor_of_cosines() -> None:
    """A single text with another vector is enough to refuse a variant."""
    vectors = source()
    wrong = vectors.copy()
    wrong[7] = -wrong[7]
    found = compare_vectors(vectors, said(wrong), PAIRED, FLOORS[Precision.INT8])
    assert found.verification.least_cosine == pytest.approx(-1) and "has a cosine of -1.0" in str(found.broken)


def test_a_vector_that_is_no_number_is_refused() -> None:
    """A vector with NaN or infinity is told as such."""
    vectors = source()
    for odd in (np.nan, np.inf):
        wrong = vectors.copy()
        wrong[0, 0] = odd
        found = compare_vectors(vectors, replace(said(vectors), vectors=wrong), PAIRED, FLOORS[Precision.INT8])
        assert found.broken == "some of its vectors are not numbers"


def test_searches_that_find_other_texts_break_their_floor() -> None:
    """A variant whose searches find other texts is refused, with the worst ones shown by what each found."""
    vectors = source()
    loose = replace(FLOORS[Precision.INT8], least_cosine=-1.0)
    found = compare_vectors(vectors, said(shifted(vectors, 2.0)), PAIRED, loose)
    assert "have the source's nearest neighbour, under the floor of 95.00%" in str(found.broken)
    first = found.differences[0]
    assert first.source == f"text {first.text}" != first.variant


def test_a_loss_of_rank_breaks_its_ceiling() -> None:
    """A variant that finds texts later than its source by more than the ceiling is refused, with both figures."""
    vectors = source()
    loose = replace(FLOORS[Precision.INT8], least_cosine=-1.0, neighbours=0.0)
    found = compare_vectors(vectors, said(shifted(vectors, 2.0)), PAIRED, loose)
    assert "a drop over the ceiling of 0.010" in str(found.broken)


def test_a_vector_that_padding_moves_is_refused() -> None:
    """A text whose vector depends on what it is padded to is refused, though every batch of like lengths is right."""
    vectors = source()
    found = compare_vectors(vectors, said(vectors, moved=1.0), PAIRED, replace(FLOORS[Precision.INT8], least_cosine=-1))
    assert found.verification.moved > 0.05 and "among texts of other lengths" in str(found.broken)


def test_a_neighbour_that_is_as_near_counts_as_the_same() -> None:
    """Where two texts are equally near, a variant may find either: which is chance."""
    texts = Searched("by hand", ["one", "its twin", "other"], None, [])
    vectors = np.asarray([[1, 0.01, 0], [1, 0.012, 0], [1, 0, 0.011]], dtype=np.float32)
    turned = np.asarray([[1, 0.01, 0], [1, 0.015, 0], [1, 0, 0.001]], dtype=np.float32)
    found = compare_vectors(vectors, said(turned), texts, FLOORS[Precision.INT8])
    assert found.verification.neighbours == 1.0


@given(st.integers(1, 12), st.integers(0, 11))
def test_the_reciprocal_rank_counts_what_is_nearer(count: int, better: int) -> None:
    """With k other texts nearer than its own, a query counts 1 / (k + 1); a tie does not count against it."""
    better = min(better, count - 1)
    cosines = np.zeros((count, count))
    np.fill_diagonal(cosines, 0.5)
    for row in range(count):
        others = [at for at in range(count) if at != row]
        cosines[row, others[:better]] = 0.7
        cosines[row, others[better:]] = 0.5
    assert mean_reciprocal_rank(cosines) == pytest.approx(1 / (1 + better))


def test_texts_are_run_alike_alone_and_among_unlike_ones() -> None:
    """Every row is run in batches, some alone and in batches of short and long ones; each gives its own vector."""
    rows = [[at] * (1 + at) for at in range(40)]
    batches: list[list[int]] = []

    def run(of: list[list[int]]) -> Logits:
        batches.append([len(row) for row in of])
        return np.asarray([[row[0]] for row in of], dtype=np.float32)

    found = said_of(rows, run, lambda share: None)
    assert found.vectors[:, 0].tolist() == list(range(40))
    assert found.alone[:, 0].tolist() == found.unlike[:, 0].tolist() == list(found.places)
    assert [1] in [[len(one)] for one in batches] and any(max(one) > 4 * min(one) for one in batches)


@pytest.mark.parametrize(("floor", "least"), [(None, 0.95), (0.5, 0.5)])
def test_a_given_floor_replaces_that_of_neighbours(floor: float | None, least: float) -> None:
    """`--floor` is the least share of equal neighbours, and `drop` the most loss of rank."""
    found = floors_of(Precision.INT8, floor, 0.03)
    assert (found.neighbours, found.drop, found.moved) == (least, 0.03, 0.05)
