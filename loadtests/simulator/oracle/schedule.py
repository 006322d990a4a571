"""A feasible schedule, made with all requests known in advance: the lower end of the oracle's bound.

Knows menus, medians and prices of the cores' time. Prices guide the choice of runs; the utility comes from the runs.
Each stretch is scheduled by several heuristics, and the one that looks best a stretch later is kept.
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
"""The batch sizes to try, besides a variant's largest."""
_POTENTIAL_WEIGHT = 0.8
"""The weight of the expected utility of waiting requests when two schedules are compared."""


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run of a schedule on one core, from `begins_s` to `ends_s`."""

    core: int
    variant: Variant
    members: tuple[Offered, ...]
    begins_s: float
    ends_s: float


@dataclass(frozen=True, slots=True)
class _Heuristic:
    """A heuristic: the assumed wait of requests not run now, in runs of the slowest variant, and whether cores idle."""

    patience: float
    waits: bool


_HEURISTICS = (
    _Heuristic(1.0, False),
    _Heuristic(3.0, False),
    _Heuristic(2.0, True),
)

_Waiting = list[tuple[float, int]]
"""(latest end of the run, index in the menus) of waiting requests, sorted."""


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
        """A copy to extend separately; it starts without the original's runs."""
        return replace(self, free_s=self.free_s.copy(), queues=[queue.copy() for queue in self.queues], runs=[])


@dataclass(frozen=True, slots=True)
class _Choice:
    """A run that could begin now; its score is its gain over the best alternative use of its members and core."""

    score: float
    variant: int
    places: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Prospect:
    """The utility of one variant to requests of one length, and the least core-seconds by time left.

    `needs_s` are the durations of runs of 1, 2, ... inputs; `costs_s` the least share in any run that long or shorter.
    """

    utility: float
    needs_s: tuple[float, ...]
    costs_s: tuple[float, ...]

    def gain(self, left_s: float, price: float) -> float:
        """Utility less the price of its core-seconds, with `left_s` seconds left."""
        fitting = bisect_left(self.needs_s, left_s)
        return self.utility - self.costs_s[fitting - 1] * price if fitting else 0.0


def schedule(menus: Menus, variants: Sequence[Variant], cores: int, prices: Prices, stretches: int) -> list[PlannedRun]:
    """A feasible schedule of the menus' requests: runs take their medians, without preemption or shared cores.

    The best of one schedule by each heuristic throughout and, unless `stretches` is 0, one that may change heuristics.
    """
    if not menus.requests:
        return []
    planner = _Planner(menus, variants, cores, prices)
    begin_s, end_s = float(menus.opens_s.min()), float(menus.closes_s.max())
    blank = _State(begin_s, [begin_s] * cores, [[] for _ in variants])
    whole = [planner.extend(blank.copy(), heuristic, end_s) for heuristic in _HEURISTICS]
    return max(*whole, _by_stretches(planner, blank, end_s, stretches), key=lambda state: state.earned).runs


def _by_stretches(planner: _Planner, blank: _State, end_s: float, stretches: int) -> _State:
    """A schedule that may change its heuristic after each stretch."""
    state, runs = blank, list[PlannedRun]()
    stretch_s = (end_s - blank.now_s) / max(stretches, 1)
    for stretch in range(1, stretches + 1):
        until_s = end_s - (stretches - stretch) * stretch_s
        ends = [planner.extend(state.copy(), heuristic, until_s) for heuristic in _HEURISTICS]
        state = max(
            ends, key=lambda end: planner.value(planner.extend(end.copy(), _HEURISTICS[0], until_s + stretch_s))
        )
        runs += state.runs
    return replace(state, runs=runs)


class _Planner:
    """Extends schedules, with all requests known."""

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

    def extend(self, state: _State, heuristic: _Heuristic, until_s: float) -> _State:
        """Extends a schedule up to an instant."""
        while True:
            core = min(range(self._cores), key=state.free_s.__getitem__)
            state.now_s = max(state.now_s, state.free_s[core])
            if state.now_s >= until_s:
                return state
            self._let_come(state)
            choice = self._best(state, heuristic)
            if choice is not None and (choice.score > -1e-9 or not heuristic.waits):
                self._run(state, core, choice)
            else:
                state.now_s = min(self._next_event_s(state, idle=choice is None), until_s)

    def value(self, state: _State) -> float:
        """A schedule's utility so far, plus what waiting requests may earn, less the price of its unfinished runs."""
        waiting = {place for queue in state.queues for _, place in queue}
        potential = sum(self._potential(place, state.now_s) for place in waiting)
        taken = sum(self._cost(state.now_s, max(free_s, state.now_s)) for free_s in state.free_s)
        return state.earned + _POTENTIAL_WEIGHT * potential - taken

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
        """The next arrival or, if there is something to run, the next end of a run, in seconds."""
        instants = [] if idle else [free_s for free_s in state.free_s if free_s > state.now_s]
        if state.come < len(self._requests):
            instants.append(self._requests[state.come].arrived_s)
        return min(instants, default=float("inf"))

    def _best(self, state: _State, heuristic: _Heuristic) -> _Choice | None:
        """The best run to begin now on a free core, if any."""
        later_s = state.now_s + heuristic.patience * self._slowest_s
        potentials: dict[int, float] = {}
        best: _Choice | None = None
        for variant, queue in enumerate(state.queues):
            for size in self._sizes[variant] if queue else ():
                if size < 2 * len(queue):
                    places, seconds = self._urgent(variant, queue, size, state.now_s)
                    score = len(places) * self._utilities[variant] - self._cost(state.now_s, state.now_s + seconds)
                    if places and (best is None or score > best.score):
                        score -= self._potentials(places, later_s, potentials)
                        if best is None or score > best.score:
                            best = _Choice(score, variant, places, seconds)
        return best

    def _urgent(self, variant: int, queue: _Waiting, size: int, now_s: float) -> tuple[tuple[int, ...], float]:
        """The most urgent requests that a run of at most `size` answers in time, and its duration."""
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

    def _potentials(self, places: Sequence[int], at_s: float, known: dict[int, float]) -> float:
        """The gain that these requests could still have if none ran before an instant."""
        for place in places:
            if place not in known:
                known[place] = self._potential(place, at_s)
        return sum([known[place] for place in places])

    def _fill(self, variant: int, waiting: _Waiting) -> tuple[int, ...]:
        """The longest prefix that one run may hold; at least one request."""
        most, held = self._variants[variant].max_batch, 0
        for filled, (_, place) in enumerate(waiting):
            held += self._texts[place]
            if held > most and filled:
                return tuple(place for _, place in waiting[:filled])
        return tuple(place for _, place in waiting)

    def _seconds(self, variant: int, places: Sequence[int]) -> float:
        """The duration of a run of these; a request with more texts than a batch takes several runs in a row."""
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

    def _potential(self, place: int, at_s: float) -> float:
        """The gain that a request could still have if it did not run before an instant."""
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
        """The price of one core from one instant to another."""
        return self._paid_by(ends_s) - self._paid_by(begins_s)

    def _paid_by(self, at_s: float) -> float:
        place = min(max((at_s - self._prices.begin_s) / self._prices.step_s, 0.0), len(self._paid) - 1.0)
        whole = min(int(place), len(self._paid) - 2)
        return self._paid[whole] + (self._paid[whole + 1] - self._paid[whole]) * (place - whole)


def _sizes(most: int) -> tuple[int, ...]:
    """The batch sizes to try, largest first, which prunes the others early."""
    return tuple(sorted({most, *(size for size in _SIZES if size < most)}, reverse=True))
