"""Checkpoints of the catalog that are not served yet: what each waits for, or why it will not come."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class ComingState(StrEnum):
    """What a checkpoint that is not served waits for."""

    WAITING = "waiting"
    """Others are prepared before it."""
    PREPARING = "preparing"
    STARTING = "starting"
    """Its variant is ready; a replica opens and tests it."""
    FAILED = "failed"
    """The gateway serves without it; the next start tries again."""


class Coming(Struct, frozen=True):
    """A checkpoint that is not served yet. `reason` is one sentence for clients, without paths of the host."""

    checkpoint: str
    state: ComingState = ComingState.WAITING
    reason: str = "it is prepared while the gateway serves"

    @property
    def expected(self) -> bool:
        """True if it can still come without a new start."""
        return self.state is not ComingState.FAILED
