"""Who of the waiting requests fits where: the rules of the waiting room that look at one of them alone."""

from __future__ import annotations

from collections.abc import Sequence, Set

from gateway.next_run import Checkpoint, Held


def may_have(held: Held, checkpoints: Set[str]) -> bool:
    """Whether the request may be answered by one of these, by name."""
    return bool(checkpoints if held.eligible is None else held.eligible & checkpoints)


def within(checkpoint: Checkpoint, members: Sequence[Held]) -> Sequence[Held]:
    """As many of them, from the first on, as have room in one run of the checkpoint; the first in any case."""
    texts = 0
    for count, held in enumerate(members):
        texts += held.texts
        if count and texts > checkpoint.max_batch:
            return members[:count]
    return members
