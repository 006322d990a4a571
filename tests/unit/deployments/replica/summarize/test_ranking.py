"""A ranker's file is read whole or refused by name, and its weights decide which sentences are chosen."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counted_steps import steps_of

from deployments.replica.sentences import split_sentences
from deployments.replica.summarize.ranking import FEATURES, Floats, Ranker, describe

TEXT = (
    "The bridge fell into the river on Monday. Why did it fall at all that day? It fell. Nobody was hurt there at all."
)


def ranker(width: int = 2, **weights: float) -> Ranker:
    """One view that weighs only the named features."""
    row = np.array([[weights.get(name, 0.0) for name in FEATURES]], dtype=np.float32)
    none = np.zeros((1, width), dtype=np.float32)
    return Ranker(row, none, none, none, spread=0.0, redundancy=0.0)


def apart(count: int) -> Floats:
    """Embeddings at right angles, so that no two repeat one another."""
    return np.eye(count, dtype=np.float32)


def test_facts_are_what_a_reader_sees() -> None:
    """The facts of a sentence are its words, and whether it is a question, a fragment or leans on the one before."""
    facts = describe(TEXT + "\n\nA heading", split_sentences(TEXT + "\n\nA heading"))
    assert facts.words.tolist() == [8, 8, 2, 6, 2]
    assert facts.question.tolist() == [False, True, False, False, False]
    assert facts.fragment.tolist() == [False] * 4 + [True]
    assert facts.dangling.tolist() == [False, False, True, False, False]


def test_the_best_are_chosen_in_the_order_of_the_text() -> None:
    """The best sentences are chosen and put in the order of the text; those too short to read are the last choice."""
    facts = describe(TEXT, split_sentences(TEXT))
    late = ranker(4, progress=1.0)
    assert late.choose(apart(4), facts, 1) == [3]
    assert late.choose(apart(4), facts, 3) == [0, 1, 3]
    assert late.choose(apart(4), facts, 9) == [0, 1, 2, 3]
    assert late.choose(apart(4), facts, 2, max_words=9) == [2, 3]
    assert late.choose(apart(4)[:2], facts, 1, positions=[0, 1]) == [1]
    assert late.choose(apart(4)[:0], facts, 1, positions=[]) == []


def test_what_cannot_be_meant_is_refused() -> None:
    """Arguments of a wrong shape, wrong positions or no sentence at all raise an error that says what is wrong."""
    facts = describe(TEXT, split_sentences(TEXT))
    for embeddings, count, positions in (
        (apart(3), 1, None),
        (apart(4), 0, None),
        (apart(4), 1, [0, 1, 1, 2]),
        (apart(4), 1, [0, 1, 2, 4]),
        (apart(4), 1, [-1, 0, 1, 2]),
        (apart(4)[:3], 1, [0, 1]),
    ):
        with pytest.raises(ValueError, match=r"shape|positions|at least one"):
            ranker(4).choose(embeddings, facts, count, positions=positions)


def test_a_ranker_survives_its_file(tmp_path: Path) -> None:
    """A ranker that is saved and loaded is equal to five digits, and saving it again gives the same bytes."""
    rng = np.random.default_rng(0)
    tables = [rng.normal(size=(3, size)).astype(np.float32) for size in (len(FEATURES), 4, 4, 4)]
    one = Ranker(tables[0], tables[1], tables[2], tables[3], 0.5, 1.0)
    one.save(tmp_path / "a.json")
    again = Ranker.load(tmp_path / "a.json")
    np.testing.assert_allclose(again.own, one.own, rtol=1e-4)
    assert (again.spread, again.redundancy, again.dimensions) == (0.5, 1.0, 4)
    again.save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"features": ["centrality"]},
        {"views": 0},
        {"dimensions": True},
        {"spread": 2},
        {"redundancy": -1},
        {"redundancy": None},
        {"weights": [[1.0]]},
        {"own": [[float("nan")] * 2]},
        {"own": [["1", 2]]},
        {"before": [1.0, 2.0]},
        {"after": None},
    ],
    ids=str,
)
def test_a_malformed_file_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """A field that breaks the schema raises ValueError with the name of the file."""
    path = tmp_path / "ranker.json"
    ranker().save(path)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change), encoding="utf-8")
    with pytest.raises(ValueError, match=r"ranker\.json"):
        Ranker.load(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_what_is_no_ranker_is_refused(tmp_path: Path, content: bytes) -> None:
    """Bytes that are no ranker raise ValueError, and a missing file raises OSError."""
    (tmp_path / "ranker.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"ranker\.json"):
        Ranker.load(tmp_path / "ranker.json")
    with pytest.raises(FileNotFoundError):
        Ranker.load(tmp_path / "none.json")


def test_ten_times_the_sentences_cost_as_many_steps_and_ten_times_the_memory() -> None:
    """Choosing takes as many array steps for ten times the sentences, and memory in proportion."""

    def cost(sentences: int) -> tuple[int, int]:
        text = "A fine day it was in the town by the sea. " * sentences
        facts = describe(text, split_sentences(text))
        vectors = np.random.default_rng(0).normal(size=(sentences, 384)).astype(np.float32)
        one = ranker(384, centrality=1.0)
        steps = steps_of(lambda: one.choose(vectors, facts, 3))
        tracemalloc.start()
        assert len(one.choose(vectors, facts, 3)) == 3
        _, most_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return steps, most_bytes

    (steps, most_bytes), (many_steps, many_bytes) = cost(100), cost(1_000)
    assert many_steps == steps and many_bytes < 11 * most_bytes
