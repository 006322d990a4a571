"""Proves that what was exported answers as its checkpoint at shapes that requests have: lengths, batches, padding.

A graph is traced with one example. Some architectures leave its length or its batch in the graph, or let padding reach
an answer, and then verification texts of a few like lengths may see nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from deployments.engines.base import Logits, guarded
from exporters.errors import ExportFailed
from gateway.model.messages import Failure

LENGTHS = (5, 7, 16, 33, 64, 130)
"""Tokens of short and middling rows, even and odd, below and above the lengths that exports are traced with."""

LONGEST = 1024
"""Most tokens of a row that is tried: attention of a checkpoint takes memory by their square."""

NEAR, EXACT = 1e-3, 1e-4
"""How far a logit may be off: a share of how far the checkpoint's logits lie apart, and a share of the largest of them.

In fp32 the starters' are off by 1e-6. Set by hand: a thousandth of what texts make of a logit changes no answer."""

RunRows = Callable[[list[list[int]]], Logits | Sequence[Logits]]
"""Gives the logits of each row of a batch."""

Cut = Callable[[int], Sequence[int]]
"""A text's token ids, cut to at most so many as the checkpoint cuts them."""


def batches_of(cut: Cut, window: int) -> list[list[list[int]]]:
    """Batches of every kind: rows alone, of one length, and of unlike lengths up to the window."""
    rows = {len(row): row for length in (*LENGTHS, LONGEST) if (row := list(cut(min(length, window))))}
    lengths = sorted(rows)
    few = [rows[length] for length in lengths if length <= LENGTHS[3]]
    alone = [[rows[length]] for length in lengths]
    return [*alone, [rows[lengths[0]]] * 3, few, few[::-1], [rows[lengths[-1]], rows[lengths[0]]]]


def prove_shapes(family: str, batches: Sequence[Sequence[list[int]]], ask: RunRows, run: RunRows) -> None:
    """Compares every row of every batch with the checkpoint's answer to that row alone. Raises ExportFailed.

    `ask` runs the checkpoint, `run` what was made of it, in fp32 both. Logits are those of a row (labels,) or of each
    of its tokens (tokens, labels).
    """
    rows = {tuple(row): row for batch in batches for row in batch}
    meant = {key: _ran(family, [row], ask, "the checkpoint itself")[0] for key, row in rows.items()}
    every = np.concatenate([one.reshape(-1, one.shape[-1]) for one in meant.values()])
    allowed = NEAR * np.ptp(every, axis=0).max() + EXACT * np.abs(every).max()
    for batch in batches:
        said = _ran(family, list(batch), run, "what was exported")
        off = max(_off(meant[tuple(row)], logits) for row, logits in zip(batch, said, strict=True))
        if off > allowed:
            raise ExportFailed(
                f"{family} cannot be served as it is exported: for {_described(batch)} a logit is {off:.3g} off from "
                f"the checkpoint's own, over the {allowed:.3g} that rounding may explain"
            )


def _off(expected: Logits, said: Logits) -> float:
    """The largest difference of a row's logits; those of padding do not count."""
    return float(np.nan_to_num(np.abs(said[: len(expected)] - expected), nan=np.inf).max())


def _ran(family: str, batch: list[list[int]], run: RunRows, who: str) -> Logits | Sequence[Logits]:
    """The logits of a batch. Raises ExportFailed if there are none."""
    found = guarded(lambda: run(batch))
    if isinstance(found, Failure):
        raise ExportFailed(f"{family}: {who} fails for {_described(batch)}: {found.detail}")
    if len(found) != len(batch):
        raise ExportFailed(f"{family}: {who} gives {len(found)} answers for {_described(batch)}")
    return found


def _described(batch: Sequence[Sequence[int]]) -> str:
    lengths = [len(row) for row in batch]
    if len(lengths) == 1:
        return f"a text of {lengths[0]} tokens"
    return f"a batch of {len(lengths)} texts of {', '.join(map(str, lengths))} tokens"
