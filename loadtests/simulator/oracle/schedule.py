"""A feasible schedule made with every request known beforehand: runs on cores.

Knows menus, medians and prices of the cores' time. Prices only guide it: what it earns, its runs earn. It is made
stretch by stretch: each is tried in several tempers, and the one is kept that stands best a stretch later.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

from loadtests.simulator.oracle.menu import Menus
from loadtests.simulator.oracle.prices import Prices
from loadtests.workload.arrivals import Offered
from loadtests.workload.variants import Variant

_SIZES = (128, 96, 64, 48, 32, 24, 16, 12, 8, 6, 5, 4, 3, 2, 1)
"""The batch sizes that a schedule tries, besides a variant's largest."""
_FAITH = 0.8
"""How much of what waiting requests may hope for counts, where two schedules are compared."""


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run of a schedule, on one core, and when it begins and ends."""

    core: int
    variant: Variant
    members: tuple[Offered, ...]
    begins_s: float
    ends_s: float


@dataclass(frozen=True, slots=True)
class _Temper:
    """How long what does not run now is taken to wait, in runs of the slowest variant; whether a core may idle."""

    patience: float
    waits: bool


_TEMPERS = (
    _Temper(1.0, False),
    _Temper(3.0, False),
    _Temper(2.0, True),
)

_Waiting = list[tuple[float, int]]
"""Requests by their place in the menus, behind the instant by which their run must end; in that order."""


@dataclass(slots=True)
class _State:
    """A schedule so far."""

    now_s: float
    free_s: list[float]
    queues: list[_Waiting]
    come: int = 0
    earned: float = 0.0
    runs: list[PlannedRun] = field(default_factory=list)

    def copy(self) -> _State:
        """A copy to be led elsewhere; the runs so far stay with the original."""
        return replace(self, free_s=self.free_s.copy(), queues=[queue.copy() for queue in self.queues], runs=[])


@dataclass(frozen=True, slots=True)
class _Choice:
    """A run that could begin now, and what it earns beyond what its members and its core could otherwise."""

    score: float
    variant: int
    places: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Prospect:
    """What one variant is worth to requests of one length, and the least core-seconds by the time that is left.

    `needs_s` are the lengths of runs of 1, 2, ... inputs, `costs_s` the least share of any that long or shorter.
    """

    utility: float
    needs_s: tuple[float, ...]
    costs_s: tuple[float, ...]

    def gain(self, left_s: float, price: float) -> float:
        """Its utility less what its core-seconds cost, where so much time is left."""
        fitting = bisect_left(self.needs_s, left_s)
        return self.utility - self.costs_s[fitting - 1] * price if fitting else 0.0


def schedule(menus: Menus, variants: Sequence[Variant], cores: int, prices: Prices, stretches: int) -> list[PlannedRun]:
    """A feasible schedule of the menus' requests: runs take their medians, none is interrupted, none shares a core.

    The best of one in each temper throughout and, unless `stretches` is 0, of one cut into stretches.
    """
    if not menus.requests:
        return []
    planner = _Planner(menus, variants, cores, prices)
    begin_s, end_s = float(menus.opens_s.min()), float(menus.closes_s.max())
    blank = _State(begin_s, [begin_s] * cores, [[] for _ in variants])
    whole = [planner.lead(blank.copy(), temper, end_s) for temper in _TEMPERS]
    return max(*whole, _by_stretches(planner, blank, end_s, stretches), key=lambda state: state.earned).runs


def _by_stretches(planner: _Planner, blank: _State, end_s: float, stretches: int) -> _State:
    """A schedule that may change its temper at the end of each stretch."""
    state, runs = blank, list[PlannedRun]()
    stretch_s = (end_s - blank.now_s) / max(stretches, 1)
    for stretch in range(1, stretches + 1):
        until_s = end_s - (stretches - stretch) * stretch_s
        ends = [planner.lead(state.copy(), temper, until_s) for temper in _TEMPERS]
        state = max(ends, key=lambda end: planner.standing(planner.lead(end.copy(), _TEMPERS[0], until_s + stretch_s)))
        runs += state.runs
    return replace(state, runs=runs)


class _Planner:
    """Makes schedules from what is known beforehand."""

    def __init__(self, menus: Menus, variants: Sequence[Variant], cores: int, prices: Prices) -> None:
        order = sorted(range(len(menus.requests)), key=lambda place: menus.requests[place].arrived_s)
        self._requests = [menus.requests[place] for place in order]
        self._texts = [request.texts for request in self._requests]
        self._tokens = [request.tokens for request in self._requests]
        self._closes_s = [float(menus.closes_s[place]) for place in order]
        self._offers = [[int(v) for v in (menus.costs_s[place] < float("inf")).nonzero()[0]] for place in order]
        cheapest = prices.cheapest(menus)
        self._price = [float(cheapest[place]) * menus.requests[place].texts for place in order]
        self._variants, self._cores, self._prices = variants, cores, prices
        self._utilities = [float(utility) for utility in menus.utilities]
        self._paid = [0.0, *accumulate(float(each) * prices.step_s for each in prices.each)]
        self._slowest_s = max(variant.median_s(1, 1) for variant in variants)
        self._known: dict[tuple[int, int], _Prospect] = {}
        self._prospects = [
            tuple(self._prospect(variant, request.tokens) for variant in offers)
            for request, offers in zip(self._requests, self._offers, strict=True)
        ]
        self._sizes = [_sizes(variant.max_batch) for variant in variants]

    def lead(self, state: _State, temper: _Temper, until_s: float) -> _State:
        """Goes on with a schedule until an instant."""
        while True:
            core = min(range(self._cores), key=state.free_s.__getitem__)
            state.now_s = max(state.now_s, state.free_s[core])
            if state.now_s >= until_s:
                return state
            self._let_come(state)
            choice = self._best(state, temper)
            if choice is not None and (choice.score > -1e-9 or not temper.waits):
                self._run(state, core, choice)
            else:
                state.now_s = min(self._next_event_s(state, idle=choice is None), until_s)

    def standing(self, state: _State) -> float:
        """What a schedule has earned and may hope for: what waits, less what its runs under way still take."""
        waiting = {place for queue in state.queues for _, place in queue}
        hope = sum(self._hope(place, state.now_s) for place in waiting)
        taken = sum(self._cost(state.now_s, max(free_s, state.now_s)) for free_s in state.free_s)
        return state.earned + _FAITH * hope - taken

    def _let_come(self, state: _State) -> None:
        while state.come < len(self._requests) and self._requests[state.come].arrived_s <= state.now_s:
            for variant in self._offers[state.come]:
                insort(state.queues[variant], (self._closes_s[state.come], state.come))
            state.come += 1
        for variant, queue in enumerate(state.queues):
            if queue:
                shortest_s = self._variants[variant].median_s(1, 1)
                del queue[: bisect_left(queue, (state.now_s + shortest_s, -1))]

    def _next_event_s(self, state: _State, idle: bool) -> float:
        """When something changes: the next request comes or, unless there is nothing to run, a run ends."""
        instants = [] if idle else [free_s for free_s in state.free_s if free_s > state.now_s]
        if state.come < len(self._requests):
            instants.append(self._requests[state.come].arrived_s)
        return min(instants, default=float("inf"))

    def _best(self, state: _State, temper: _Temper) -> _Choice | None:
        """The run to begin now on a free core."""
        later_s = state.now_s + temper.patience * self._slowest_s
        hopes: dict[int, float] = {}
        best: _Choice | None = None
        for variant, queue in enumerate(state.queues):
            for size in self._sizes[variant] if queue else ():
                if size < 2 * len(queue):
                    places, seconds = self._urgent(variant, queue, size, state.now_s)
                    score = len(places) * self._utilities[variant] - self._cost(state.now_s, state.now_s + seconds)
                    if places and (best is None or score > best.score):
                        score -= self._hopes(places, later_s, hopes)
                        if best is None or score > best.score:
                            best = _Choice(score, variant, places, seconds)
        return best

    def _urgent(self, variant: int, queue: _Waiting, size: int, now_s: float) -> tuple[tuple[int, ...], float]:
        """At most `size` for one run, the most urgent of those that it does not make late; and how long it takes."""
        lasts_s = self._variants[variant].median_s(min(size, len(queue)), self._tokens[queue[0][1]])
        for _ in range(3):
            first = bisect_left(queue, (now_s + lasts_s, -1))
            places = self._fill(variant, queue[first : first + size])
            if not places:
                break
            seconds = self._seconds(variant, places)
            if now_s + seconds <= self._closes_s[places[0]]:
                return places, seconds
            lasts_s = seconds
        return (), 0.0

    def _hopes(self, places: Sequence[int], at_s: float, known: dict[int, float]) -> float:
        """What these requests might gain if none were run before an instant."""
        for place in places:
            if place not in known:
                known[place] = self._hope(place, at_s)
        return sum([known[place] for place in places])

    def _fill(self, variant: int, waiting: _Waiting) -> tuple[int, ...]:
        """As many of them, from the first on, as one run may hold; at least one."""
        most, held = self._variants[variant].max_batch, 0
        for filled, (_, place) in enumerate(waiting):
            held += self._texts[place]
            if held > most and filled:
                return tuple(place for _, place in waiting[:filled])
        return tuple(place for _, place in waiting)

    def _seconds(self, variant: int, places: Sequence[int]) -> float:
        """How long a run of these takes; a request of more texts than a batch holds takes several runs on end."""
        of = self._variants[variant]
        inputs = sum([self._texts[place] for place in places])
        tokens = max([self._tokens[place] for place in places])
        if inputs <= of.max_batch:
            return of.median_s(inputs, tokens)
        whole, rest = divmod(inputs, of.max_batch)
        return whole * of.median_s(of.max_batch, tokens) + (of.median_s(rest, tokens) if rest else 0.0)

    def _run(self, state: _State, core: int, choice: _Choice) -> None:
        ends_s = state.now_s + choice.seconds
        for place in choice.places:
            for variant in self._offers[place]:
                queue = state.queues[variant]
                at = bisect_left(queue, (self._closes_s[place], place))
                if at < len(queue) and queue[at][1] == place:
                    del queue[at]
        members = tuple(self._requests[place] for place in choice.places)
        state.runs.append(PlannedRun(core, self._variants[choice.variant], members, state.now_s, ends_s))
        state.free_s[core] = ends_s
        state.earned += len(members) * self._utilities[choice.variant]

    def _hope(self, place: int, at_s: float) -> float:
        """What a request might still gain if it were not run before an instant."""
        left_s, price, most = self._closes_s[place] - at_s, self._price[place], 0.0
        for prospect in self._prospects[place]:
            gain = prospect.gain(left_s, price)
            most = max(gain, most)
        return most

    def _prospect(self, variant: int, tokens: int) -> _Prospect:
        try:
            return self._known[variant, tokens]
        except KeyError:
            of = self._variants[variant]
            runs_s = [of.median_s(batch, tokens) for batch in range(1, of.max_batch + 1)]
            shares_s = [run_s / batch for batch, run_s in enumerate(runs_s, 1)]
            made = _Prospect(self._utilities[variant], tuple(accumulate(runs_s, max)), tuple(accumulate(shares_s, min)))
            return self._known.setdefault((variant, tokens), made)

    def _cost(self, begins_s: float, ends_s: float) -> float:
        """What a core costs from one instant to another."""
        return self._paid_by(ends_s) - self._paid_by(begins_s)

    def _paid_by(self, at_s: float) -> float:
        place = min(max((at_s - self._prices.begin_s) / self._prices.step_s, 0.0), len(self._paid) - 1.0)
        whole = min(int(place), len(self._paid) - 2)
        return self._paid[whole] + (self._paid[whole + 1] - self._paid[whole]) * (place - whole)


def _sizes(most: int) -> tuple[int, ...]:
    """The batch sizes to try, the largest first: it leaves little for the others to better."""
    return tuple(sorted({most, *(size for size in _SIZES if size < most)}, reverse=True))
