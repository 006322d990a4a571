"""The share of an engine's time that late work gets: enough to finish, too little to hurt work that can be in time.

Pure. Callers report each run; the scheduler, the batcher, time slicing and the simulator use this one rule.
"""

from __future__ import annotations

LATE_SHARE = 1 / 20
"""Share of an engine's time for late work while work waits that can be in time.

A late answer still has some value, and an answer that never comes is a leak, so it is more than zero. It is half of the
tenth by which goodput may fall under overload; the other half is for everything else.
"""


class LateShare:
    """Says when late work goes next. One for each engine, shared by its threads.

    A credit in seconds: time given to timely work earns the share, and a run of late work costs the rest of its own
    time. Late work goes next once there is credit, and never twice in a row while timely work waits. So the oldest late
    work waits at most 1 / share times the longest late run (plus what must be earned first), and a run or two. Credit
    is not saved while no late work waits: a quiet hour earns no claim.
    """

    def __init__(self, share: float = LATE_SHARE, *, earned_s: float = 0.0) -> None:
        """`earned_s` is the credit needed before late work goes next: the length of its run, if known beforehand."""
        self._share = share
        self._earned_s = earned_s
        self._credit_s = 0.0

    @property
    def turn(self) -> bool:
        """True if late work goes next when both kinds wait."""
        return self._credit_s > self._earned_s

    def ran(self, engine_s: float, *, late: bool, contested: bool) -> None:
        """Books a run of `engine_s` seconds; `contested` says that work of the other kind waited when it was chosen.

        Late work on an engine that nothing else wants costs nothing.
        """
        if not late:
            earned_s = self._credit_s + self._share * engine_s
            self._credit_s = earned_s if contested else min(earned_s, 0.0)
        elif contested:
            self._credit_s = min(self._credit_s - (1 - self._share) * engine_s, 0.0)
