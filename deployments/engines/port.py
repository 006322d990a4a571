"""The port every engine implements: a padded batch of token ids in, logits out."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

TokenIds: TypeAlias = NDArray[np.int64]
Logits: TypeAlias = NDArray[np.float32]


class Engine(Protocol):
    """Runs one variant. Blocking: call it on the engine's thread, never on the replica's loop."""

    def run(self, token_ids: TokenIds, attention_mask: TokenIds) -> Logits:
        """Logits (batch, labels) for token ids and mask, both (batch, tokens). Raises whatever the library raises."""
