"""Processor time used by watched processes, by this process, and by everything else on the machine."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import psutil

BUSY_CEILING = 0.10
"""The share of the machine that other processes may use before a report warns of noise."""


@dataclass(frozen=True)
class Use:
    """Processor time: of each watched group in shares of one core, of other processes in shares of the machine."""

    shares: dict[str, float]
    others: float


class Watch:
    """Measures the processor time of named groups of processes from its construction on."""

    def __init__(self, groups: Mapping[str, Sequence[psutil.Process]] | None = None) -> None:
        self._groups = dict(groups or {})
        self._own = [psutil.Process()]
        psutil.cpu_percent()  # the next call counts from here
        self._began_s = perf_counter()
        self._before = {name: cpu_seconds(group) for name, group in self._groups.items()}
        self._own_before = cpu_seconds(self._own)

    def use(self) -> Use:
        """Usage since construction. `others` excludes the groups and this process."""
        cores, lasted_s = psutil.cpu_count() or 1, perf_counter() - self._began_s
        busy = psutil.cpu_percent() / 100 * cores
        shares = {name: (cpu_seconds(group) - self._before[name]) / lasted_s for name, group in self._groups.items()}
        own = (cpu_seconds(self._own) - self._own_before) / lasted_s
        return Use(shares, max(0.0, busy - own - sum(shares.values())) / cores)


def at_rest(groups: Mapping[str, Sequence[psutil.Process]], seconds: float) -> Use:
    """The groups' usage without load. Blocks for `seconds`."""
    watch = Watch(groups)
    threading.Event().wait(seconds)
    return watch.use()


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """Processor seconds that these processes have used since their start; ended ones count 0."""
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def not_quiet(others: float) -> list[str]:
    """A caution if other processes used more of the machine than `BUSY_CEILING`; else empty."""
    if others <= BUSY_CEILING:
        return []
    return [f"the machine was not quiet: {others:.0%} of it was busy with something else"]
