"""Laws of what the PyTorch engine adds to a batch."""

from __future__ import annotations

import numpy as np

from deployments.engines.torch import before_first


def test_the_question_is_what_stands_before_the_first_separator() -> None:
    """Tokens before the first separator are marked, whatever follows; of a row without one, none."""
    rows = np.asarray([[0, 7, 8, 2, 2, 9, 2], [0, 2, 2, 5, 2, 1, 1], [0, 7, 8, 9, 5, 5, 5], [2, 7, 2, 7, 2, 7, 2]])
    marked = before_first(rows, 2)
    assert marked.tolist() == [[1, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0], [0] * 7, [0] * 7]
    assert marked.dtype == np.int64
