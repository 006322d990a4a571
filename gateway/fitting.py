"""Who of the waiting requests fits where: the rules of the waiting room that need no price."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set

from gateway.next_run import Checkpoint, Choice, Held, fastest, run_s_of


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


def overdue_run(overdue: Sequence[Held], up: Sequence[Checkpoint], *, together: bool) -> Choice | None:
    """The first overdue request that may have one of these, on the fastest; None where nobody may.

    With as many more as fit beside it, where the time is theirs by right; alone where they only have what nobody wants
    just now: who comes next finds the core free sooner, and may have no time to wait for more.
    """
    for held in overdue:
        able = [one for one in up if held.may(one.name)]
        if able:
            chosen = fastest(able, held)
            alike = [one for one in overdue if one.may(chosen.name) and one.alike == held.alike]
            members = within(chosen, alike if together else (held,))
            return Choice(-math.inf, chosen, tuple(members), run_s_of(chosen, members))
    return None
