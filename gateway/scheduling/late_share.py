"""How much of an engine's time work is sure of that cannot be in time any more: enough to end, too little to hurt.

Pure: it is told of runs and says whose turn it is. The batcher, the interleaver and the simulator ask the same rule.
"""

from __future__ import annotations

LATE_SHARE = 1 / 20
"""The part of an engine's time that overdue work has while work waits that can be in time.

A late answer is worth something to who still waits for it, and an answer that never comes is a leak: so it is more
than nothing. It is half of the tenth by which goodput may fall under overload; the other half is for all else.
"""


class LateShare:
    """Says when it is the turn of overdue work. One for each engine; its threads share it.

    A credit in seconds: all time given to work in time earns the share, a turn of the overdue costs the rest of its
    own, and once there is credit the overdue are next; never twice in a row, while work waits that can be in time. So
    the oldest of them waits no longer than 1 / share times the longest run of overdue work (and what must be earned
    before), and a run or two. Credit is not saved up while none is overdue: those that become so after a quiet hour
    have no claim to more.
    """

    def __init__(self, share: float = LATE_SHARE, *, earned_s: float = 0.0) -> None:
        """`earned_s` is what must have been earned before a turn: its length, where that is known beforehand."""
        self._share = share
        self._earned_s = earned_s
        self._credit_s = 0.0

    @property
    def turn(self) -> bool:
        """Whether overdue work goes next, should both kinds wait."""
        return self._credit_s > self._earned_s

    def ran(self, engine_s: float, *, overdue: bool, contested: bool) -> None:
        """Books a run: for whom it was, and whether work of the other kind waited when it was chosen.

        What the overdue have of an engine that nobody else wants costs them nothing.
        """
        if not overdue:
            earned_s = self._credit_s + self._share * engine_s
            self._credit_s = earned_s if contested else min(earned_s, 0.0)
        elif contested:
            self._credit_s = min(self._credit_s - (1 - self._share) * engine_s, 0.0)
