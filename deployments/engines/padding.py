"""From token ids of unequal length to the rectangle an engine takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deployments.engines.port import TokenIds


@dataclass(frozen=True)
class PaddedBatch:
    """Token ids and their mask, both (batch, longest); the mask is 0 where a row was filled up on its right."""

    token_ids: TokenIds
    attention_mask: TokenIds


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> PaddedBatch:
    """The rows as one batch, no longer than its longest row."""
    longest = max(map(len, rows))
    token_ids = np.full((len(rows), longest), pad_id, dtype=np.int64)
    attention_mask = np.zeros((len(rows), longest), dtype=np.int64)
    for at, row in enumerate(rows):
        token_ids[at, : len(row)] = row
        attention_mask[at, : len(row)] = 1
    return PaddedBatch(token_ids, attention_mask)
