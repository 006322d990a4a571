"""Laws of vectors: lengths, cosines, and what a batch may change."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import numpy as np
import pytest
from fake_embedders import WORDS, SummingEngine, replica
from hypothesis import given
from hypothesis import strategies as st

from deployments.replica.embedding import cosines, unit_length, written
from gateway.model.messages import Answer, Parameters, Work
from gateway.tasks.embed import EmbedParameters
from gateway.tasks.similarity import SimilarityParameters

numbers = st.floats(-1e6, 1e6, width=32).filter(lambda value: value == 0 or abs(value) > 1e-3)
vectors = st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=6)
texts = st.lists(st.lists(st.sampled_from(WORDS[4:]), min_size=1, max_size=12).map(" ".join), min_size=1, max_size=12)


async def _outputs(task: str, inputs: list[list[str]], parameters: Parameters) -> list[tuple[object, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        made = replica(Path(folder), SummingEngine())
        made.start()
        batch = [Work(task, tuple(one), parameters, 60.0, False, "r") for one in inputs]
        answers = await made.handle(batch)
        await made.stop(60)
    assert all(isinstance(one, Answer) for one in answers)
    return [one.outputs for one in answers if isinstance(one, Answer)]


@given(vectors)
def test_a_normalised_vector_has_length_1_and_its_direction(rows: list[list[float]]) -> None:
    """Normalised vectors have length 1 and point as before; a vector of zeros stays one."""
    given_rows = np.asarray(rows, dtype=np.float64)
    unit = unit_length(given_rows)
    for before, after in zip(given_rows, unit, strict=True):
        length = np.linalg.norm(before)
        assert np.linalg.norm(after) == pytest.approx(float(length > 0))
        assert after * length == pytest.approx(before, rel=1e-9, abs=1e-9)


@given(vectors, vectors)
def test_a_cosine_is_a_cosine(one: list[list[float]], others: list[list[float]]) -> None:
    """Cosines lie between -1 and 1, do not depend on lengths, and a vector's with itself is 1."""
    first, rest = np.asarray(one[0], dtype=np.float64), np.asarray(others, dtype=np.float64)
    found = cosines(first, rest)
    assert len(found) == len(others) and all(-1 <= score <= 1 for score in found)
    assert cosines(3 * first, 7 * rest) == pytest.approx(found, abs=1e-6)
    if np.any(first):
        assert cosines(first, first[None]) == [1.0]


@given(vectors)
def test_what_is_written_is_as_exact_as_fp32(rows: list[list[float]]) -> None:
    """Rounding moves a number by no more than 5e-8."""
    unit = unit_length(np.asarray(rows, dtype=np.float64))
    assert np.abs(np.asarray(written(unit)) - unit).max() <= 5.1e-8


@given(texts)
def test_a_request_gets_in_a_batch_what_it_gets_alone(several: list[str]) -> None:
    """Padding and companions change no vector beyond rounding, and every vector has length 1."""
    parameters = EmbedParameters(normalize=True)
    (together,) = asyncio.run(_outputs("embed", [several], parameters))
    among = asyncio.run(_outputs("embed", [[one] for one in several], parameters))
    assert np.asarray(together) == pytest.approx(np.asarray([one[0] for one in among]), abs=1e-6)
    assert np.linalg.norm(np.asarray(together), axis=1) == pytest.approx(1.0, abs=1e-6)


@given(texts)
def test_similarity_is_symmetric(several: list[str]) -> None:
    """A text is as similar to another as that one is to it."""
    pairs = [[several[0], other] for other in several]
    there = asyncio.run(_outputs("similarity", pairs, SimilarityParameters()))
    back = asyncio.run(_outputs("similarity", [pair[::-1] for pair in pairs], SimilarityParameters()))
    assert np.asarray(there) == pytest.approx(np.asarray(back), abs=1e-6)
