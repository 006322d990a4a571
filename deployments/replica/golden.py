"""Checks that a checkpoint which writes still writes its golden texts, before it serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from deployments.replica.variant import VariantRejected, checked_ids
from gateway.model.manifest import GoldenSummary

WRITTEN_AGAIN = 0.5
"""The share of the golden tokens that must be written again before the first that differs.

On the machine that made the variant, every token is equal. Other processors with the same features round the last bits
differently, int8 activations carry that on, and one near tie changes all later tokens. A wrong graph, cache or kernel
already differs at the first tokens."""

Write = Callable[[Sequence[int]], tuple[int, ...]]
"""Writes the first tokens after a golden text's token ids, greedily."""


def check_written(
    checkpoint: str, self_test: Sequence[GoldenSummary], encode: Callable[[str], list[int]], write: Write
) -> None:
    """Checks that golden texts give their token ids and enough of their golden tokens.

    Raises VariantRejected for other token ids, or if less than `WRITTEN_AGAIN` of the golden tokens is written again.
    """
    found = []
    for at, golden in enumerate(self_test):
        ids = encode(golden.text)
        checked_ids(checkpoint, at, golden.token_ids, ids)
        found.append(write(ids))
    same = sum(_matching_tokens(one, written) for one, written in zip(self_test, found, strict=True))
    if same < WRITTEN_AGAIN * sum(len(one.written) for one in self_test):
        at = min(range(len(found)), key=lambda i: _matching_tokens(self_test[i], found[i]))
        what, expected = f"golden text {at}, tokens written", str(self_test[at].written)
        raise VariantRejected(checkpoint, what, expected, str(found[at]))


def _matching_tokens(golden: GoldenSummary, written: tuple[int, ...]) -> int:
    """Counts the golden tokens that were written again before the first that differs."""
    pairs = zip(golden.written, written, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(golden.written), len(written)))
