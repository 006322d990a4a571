"""The operating system's priority of the threads that run an engine.

Only those yield: the thread that takes requests in and gives answers out has work of microseconds, and an answer that
is ready should not wait behind somebody else's computation.
"""

from __future__ import annotations

import os

LEAST_URGENT = 19


def yield_to_others(niceness: int) -> None:
    """Gives the calling thread, and those it starts, this niceness (0 to 19, which yields most). Linux: no others.

    At 19 it also gets the scheduler's idle policy, where there is one: whatever else wakes up on its core then runs at
    once, where a niceness alone lets the thread finish its slice of milliseconds first.
    """
    if niceness:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    if niceness == LEAST_URGENT and hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
