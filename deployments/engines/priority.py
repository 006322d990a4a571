"""The operating system's priority of the threads that run an engine.

Only those yield: the thread that takes requests in and gives answers out has work of microseconds, and an answer that
is ready should not wait behind somebody else's computation.
"""

from __future__ import annotations

import os


def yield_to_others(niceness: int) -> None:
    """Gives the calling thread, and those it starts, this niceness (0 to 19, which yields most). Linux: no others."""
    if niceness:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
