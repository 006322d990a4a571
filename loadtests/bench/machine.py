"""How much processor time is used, and by whom: the watched processes, this one, and everything else on the machine."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import psutil

BUSY_CEILING = 0.10
"""The share of the machine that may be busy with something else before figures must be read with care."""


@dataclass(frozen=True)
class Use:
    """Processor time over a while: of each watched group as a share of one core, of the rest as one of the machine."""

    shares: dict[str, float]
    others: float


class Watch:
    """Watches groups of processes, by name, from when it is made."""

    def __init__(self, groups: Mapping[str, Sequence[psutil.Process]] | None = None) -> None:
        self._groups = dict(groups or {})
        self._mine = [psutil.Process()]
        psutil.cpu_percent()  # the next call counts from here
        self._began_s = perf_counter()
        self._before = {name: cpu_seconds(group) for name, group in self._groups.items()}
        self._mine_before = cpu_seconds(self._mine)

    def use(self) -> Use:
        """What was used since the watch was made. `others` leaves out the groups and this process."""
        cores, lasted_s = psutil.cpu_count() or 1, perf_counter() - self._began_s
        busy = psutil.cpu_percent() / 100 * cores
        shares = {name: (cpu_seconds(group) - self._before[name]) / lasted_s for name, group in self._groups.items()}
        own = (cpu_seconds(self._mine) - self._mine_before) / lasted_s
        return Use(shares, max(0.0, busy - own - sum(shares.values())) / cores)


def at_rest(groups: Mapping[str, Sequence[psutil.Process]], seconds: float) -> Use:
    """What the groups use while nobody sends them anything. Blocks for `seconds`."""
    watch = Watch(groups)
    threading.Event().wait(seconds)
    return watch.use()


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """Processor time that these processes have used since they started; those that are gone count nothing."""
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def not_quiet(others: float) -> list[str]:
    """A caution if the machine was busy with something else for more than the ceiling; else nothing."""
    if others <= BUSY_CEILING:
        return []
    return [f"the machine was not quiet: {others:.0%} of it was busy with something else"]
