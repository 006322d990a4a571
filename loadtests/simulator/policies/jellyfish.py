"""Jellyfish: assigns variants to workers and clients to workers, by budgets and rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb

from loadtests.simulator.policies.batching import Profile
from loadtests.simulator.policies.division import CLASSES, Divided, Division
from loadtests.simulator.policies.observed_load import BudgetClasses
from loadtests.simulator.policies.setting import Setting

ENOUGH = 0.99
"""The share of the load that a selection must have capacity for before quality counts."""

HEADROOM = 1.1
"""The multiple of the load that is planned for, so that no worker is full."""

SELECTIONS = 300
"""The most selections to try exhaustively; with more, only neighbours of the current one are tried."""

Selection = tuple[int, ...]
"""The variant of each worker, as an index into the setting's variants (best first)."""


@dataclass(frozen=True)
class Mapped:
    """A selection with its clients: the load it can serve, its mean quality, and the division."""

    selection: Selection
    effectiveness: float
    quality: float
    division: Division


def jellyfish(setting: Setting) -> Divided:
    """Clients mapped to workers that adapt.

    Source: Nigade et al., "Jellyfish: Timely Inference Serving for Dynamic Edge Networks", RTSS 2022.

    Each period decides the variant of each worker and the worker of each client. Clients with the longest budgets go to
    the best variants first, up to the throughput at the largest batch whose run takes half the smallest budget among
    them (the other half is for waiting). The selection with the highest mean quality that has capacity for the load
    wins, or the one with the most capacity if none has enough.

    Simplified: a client is a class of budgets and may be divided between workers, so filling in order replaces the
    dynamic program over clients; all selections are tried where they are few, else those next to the one in force,
    where the paper anneals. Left out: adapting the inputs, since texts have no resolution. A worker is a core, workers
    with the same variant share a queue, planning is free. Requests that would be late even alone are dropped, as in the
    paper; clients that fit nowhere go to the fastest worker, where the paper turns them away.
    """
    planner = _Planner(setting, BudgetClasses(setting, CLASSES))
    return Divided(setting, planner.classes, planner)


class _Planner:
    def __init__(self, setting: Setting, classes: BudgetClasses) -> None:
        self.classes = classes
        self._setting = setting
        profile = Profile(setting)
        self._seconds = [
            [profile.p95_s(variant, batch, setting.tokens) for batch in range(1, variant.max_batch + 1)]
            for variant in setting.variants
        ]
        self._present: Selection = (0,) * setting.cores

    def __call__(self, demand_per_s: Sequence[float]) -> Division:
        mapped = (self._mapped(selection, demand_per_s) for selection in self._selections())
        best = max(mapped, key=lambda one: (min(one.effectiveness, ENOUGH), one.quality))
        self._present = best.selection
        return best.division

    def _selections(self) -> Iterator[Selection]:
        places = range(len(self._setting.variants))
        workers = self._setting.cores
        if comb(len(places) + workers - 1, workers) <= SELECTIONS:
            yield from combinations_with_replacement(places, workers)
            return
        yield self._present
        for worker, place in enumerate(self._present):
            for step in (-1, 1):
                if place + step in places:
                    yield (*self._present[:worker], place + step, *self._present[worker + 1 :])

    def _batch(self, place: int, least_s: float) -> int:
        """The largest batch whose run takes at most half of `least_s`, or 0."""
        fitting = [batch for batch, seconds in enumerate(self._seconds[place], start=1) if 2 * seconds <= least_s]
        return max(fitting, default=0)

    def _mapped(self, selection: Selection, demand_per_s: Sequence[float]) -> Mapped:
        """Fills workers, best variant first, with classes, longest budget first."""
        variants = self._setting.variants
        left = [HEADROOM * per_s for per_s in demand_per_s]
        shares: list[dict[str, float]] = [{} for _ in left]
        quality = 0.0
        for worker in sorted(selection):
            name, taken = variants[worker].name, 0.0
            for kind in reversed(range(len(left))):
                batch = self._batch(worker, self.classes.least_s[kind])
                room = batch / self._seconds[worker][batch - 1] - taken if batch else 0.0
                more = min(left[kind], room)
                if more > 0:
                    left[kind] -= more
                    taken += more
                    shares[kind][name] = shares[kind].get(name, 0.0) + more
            quality += variants[worker].quality * taken
        whole = HEADROOM * sum(demand_per_s)
        cores = Counter(variants[worker].name for worker in selection)
        return Mapped(selection, 1 - sum(left) / whole, quality / whole, Division(cores, tuple(shares)))
