"""Laws of the parts of every comparison: rows in batches, and ROUGE-L."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.engines.base import Logits
from exporters.verification import mean_rouge_l, run_all


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=40))
def test_rows_run_in_batches_of_alike_lengths_come_back_in_order(rows: list[list[int]]) -> None:
    """Rows that run in batches by length come back in their original order."""

    def run(batch: list[list[int]]) -> Logits:
        return np.array([[len(row), sum(row)] for row in batch], dtype=np.float32)

    logits = run_all(rows, run, lambda _: None)
    assert logits.tolist() == [[len(row), sum(row)] for row in rows]


def test_rouge_l_counts_stems_in_order() -> None:
    """ROUGE-L is the F1 of the longest common subsequence of word stems; two empty texts are equal."""
    assert mean_rouge_l(["the cats sat"], ["the cat sat"]) == 1.0
    assert mean_rouge_l(["a b"], ["b a"]) == pytest.approx(0.5)
    assert mean_rouge_l(["", "a"], ["", "b"]) == 0.5
    with pytest.raises(ValueError, match="no texts"):
        mean_rouge_l([], [])
