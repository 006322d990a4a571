"""The tiers: the promises that checkpoints are offered under."""

from __future__ import annotations

from enum import StrEnum


class Tier(StrEnum):
    """The promise a checkpoint is offered under, from the least to the most."""

    REALTIME = "realtime"
    BALANCED = "balanced"
    QUALITY = "quality"

    @property
    def rank(self) -> int:
        """The place in the order: a tier satisfies `X-Min-Tier` when its rank is not below that one's."""
        return _RANKS[self]


_RANKS = {tier: rank for rank, tier in enumerate(Tier)}
