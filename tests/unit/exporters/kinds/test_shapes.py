"""Laws of the proof that what was exported answers as its checkpoint at the shapes that requests have."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from deployments.engines.base import Logits
from exporters.errors import ExportFailed
from exporters.kinds.shapes import LONGEST, batches_of, prove_shapes

WINDOW = 64
Rows = list[list[int]]


def cut(tokens: int) -> list[int]:
    """A long text, cut to so many tokens."""
    return [1, *range(10, 8 + tokens), 2]


def right(rows: Rows) -> Logits:
    """Logits of each row by itself."""
    return np.array([[sum(row), -len(row)] for row in rows], dtype=np.float32)


def padding_counts(rows: Rows) -> Logits:
    """Logits that the longest row of a batch has a part in."""
    return right(rows) + np.float32(10) * np.float32(max(map(len, rows)) - np.array([[len(row)] for row in rows]))


def one_length_alone(rows: Rows) -> Logits:
    """Logits of a graph with a length left in it."""
    return right([row[:8] for row in rows])


def one_row_alone(rows: Rows) -> Logits:
    """Logits of a graph with a batch of one left in it."""
    return right(rows[:1])


def failing(rows: Rows) -> Logits:
    """A graph that runs for one length only."""
    if len(rows[0]) != 5:
        raise RuntimeError("shapes")
    return right(rows)


def blank(rows: Rows) -> Logits:
    """Logits that are no numbers."""
    return right(rows) * np.float32("nan")


def test_batches_have_every_length_alone_and_unlike_lengths_together() -> None:
    """Rows run alone at every length up to the window, and short and long ones share a batch, in either order."""
    batches = batches_of(cut, WINDOW)
    shapes = [tuple(len(row) for row in batch) for batch in batches]
    assert shapes == [(5,), (7,), (16,), (33,), (64,), (5,) * 3, (5, 7, 16, 33), (33, 16, 7, 5), (64, 5)]
    assert max(len(row) for batch in batches_of(cut, 8192) for row in batch) == LONGEST
    assert batches_of(cut, 3)[0] == [cut(3)]


def test_what_answers_row_by_row_passes() -> None:
    """What gives each row the checkpoint's answer passes, rounding included."""
    prove_shapes("bert", batches_of(cut, WINDOW), right, lambda rows: right(rows) * np.float32(1 + 1e-5))


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (padding_counts, r"bert cannot be served as it is exported: for a batch of 4 texts of 5, 7, 16, 33 tokens"),
        (one_length_alone, r"bert cannot be served as it is exported: for a text of 16 tokens a logit is \S+ off"),
        (one_row_alone, r"what was exported gives 1 answers for a batch of 3 texts of 5, 5, 5 tokens"),
        (failing, r"what was exported fails for a text of 7 tokens: RuntimeError"),
        (blank, r"a logit is \S+ off"),
    ],
)
def test_what_is_wrong_at_a_shape_is_named_with_it(run: Callable[[Rows], Logits], said: str) -> None:
    """A graph that is wrong, fails or answers too little at a shape is refused by its family and that shape."""
    with pytest.raises(ExportFailed, match=said):
        prove_shapes("bert", batches_of(cut, WINDOW), right, run)


def test_a_checkpoint_that_fails_itself_is_called_so() -> None:
    """Where the checkpoint itself cannot answer a length, the sentence does not blame the export."""
    with pytest.raises(ExportFailed, match="bert: the checkpoint itself fails for a text of 7 tokens: RuntimeError"):
        prove_shapes("bert", batches_of(cut, WINDOW), failing, right)
