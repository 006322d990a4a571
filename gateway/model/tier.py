"""The tiers: the promises that checkpoints are offered under."""

from __future__ import annotations

from enum import StrEnum


class Tier(StrEnum):
    """The promise a checkpoint is offered under, lowest first."""

    REALTIME = "realtime"
    BALANCED = "balanced"
    QUALITY = "quality"

    @property
    def rank(self) -> int:
        """The place in the order. A tier satisfies `X-Min-Tier` if its rank is at least that tier's."""
        return _RANKS[self]


_RANKS = {tier: rank for rank, tier in enumerate(Tier)}
