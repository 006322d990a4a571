"""The rule that says what a free core runs next: which checkpoint, for which of the waiting requests. Pure.

Each run is worth what its members gain in quality, less the price of the core time it takes, less what is lost of
requests that are likely to come while it has the core and cannot wait for it. The best for the most urgent request is
taken, with those that gain by joining it; where even the best bargain is not worth its price, there is more demand than
can be met, and the run that gains most is taken, whoever is in it.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from gateway.congestion import Runner, sizes
from gateway.traffic import until

ALIKE = 1.18
"""Texts are alike in length whose longest has at most so many times the characters of the shortest: as much padding as
the batches of a replica may have."""

LENIENCE = 0.7
"""Under more demand than can be met, this part of what a request costs in the best company must be worth its price: at
one that is reckoned for the mean of all lengths it may yet be."""

PATIENCE = 0.2
"""Where not all can be served, who is due after the crowded time counts by this part: later they are served as well."""

WINDOW = 2 / 3
"""Where not all can be served, runs that several share take at most this part of the median budget: those who come
meanwhile must wait for their end and then be run themselves (half, in Nexus: Shen et al., SOSP 2019)."""


class Checkpoint(Runner, Protocol):
    """A checkpoint as the waiting room sees it."""

    @property
    def name(self) -> str:
        """The checkpoint's."""

    @property
    def threads(self) -> int:
        """Cores that one run keeps busy."""

    @property
    def lanes(self) -> int:
        """How many runs its replicas make at once; 0 while none is up."""

    def reach_s(self, run_s: float, now_s: float) -> float:
        """What a request takes by the 95th percentile, overhead included, in a run expected to take `run_s`."""


@dataclass(slots=True, eq=False)
class Held:
    """A request that waits: its texts, the instant by which it must be answered, and who may answer it.

    `deadline_s` is already earlier by what it wants in hand beyond the 95th percentile. `eligible` are the checkpoints
    that its terms allow, None for all of the task. `place` is the order of arrival.
    """

    place: int
    deadline_s: float
    characters: int
    texts: int = 1
    strict: bool = False
    eligible: frozenset[str] | None = None

    @property
    def alike(self) -> int:
        """Texts of one number are alike in length: padding the shortest of them to the longest wastes little."""
        return _class_of(self.characters)

    def may(self, checkpoint: str) -> bool:
        """Whether that checkpoint may answer it."""
        return self.eligible is None or checkpoint in self.eligible


@dataclass(frozen=True, slots=True)
class Choice:
    """A run that could be next: its checkpoint, members and median time. `gain` orders the choices of one moment."""

    gain: float
    checkpoint: Checkpoint
    members: tuple[Held, ...]
    run_s: float


@dataclass(frozen=True, slots=True)
class Moment:
    """What else is known when a run is chosen.

    The price of a core-second and what the best bargain leaves at it; within what time not all that is due can be done,
    infinite where that is so in the long run; how many more cores are free, and if none is, in how many seconds one
    will be; how many requests are expected at `traffic.HORIZONS_S`, and a sample of budgets.
    """

    now_s: float
    price: float
    worth_left: float
    crowded_s: float
    others_free: float
    next_free_s: float
    expected: Sequence[float]
    budgets_s: Sequence[float]


def next_run(waiting: Sequence[Held], checkpoints: Sequence[Checkpoint], moment: Moment) -> Choice | None:
    """The run to begin now, of requests in order of their deadlines; None where nobody may have any of these.

    Where no checkpoint can be sure to be in time for the most urgent request, it has the fastest, alone.
    """
    best: Choice | None = None
    least_worth = min(checkpoint.worth for checkpoint in checkpoints)
    tolerances_s = _tolerances_s(checkpoints, waiting[0].characters, moment)
    for checkpoint in checkpoints:
        choice = _best_of(waiting, checkpoint, moment, least_worth, tolerances_s)
        if choice is not None and (best is None or choice.gain > best.gain + 1e-12):
            best = choice
    return best or _alone(waiting, checkpoints)


def _best_of(
    waiting: Sequence[Held],
    checkpoint: Checkpoint,
    moment: Moment,
    least_worth: float,
    tolerances_s: Sequence[float],
) -> Choice | None:
    """The best run on one checkpoint: with the most urgent request, or of anybody where not all can be served.

    Of those who are due within the time that is crowded: who can wait for its end is served after it as well.
    """
    able = [held for held in waiting if held.may(checkpoint.name)]
    if not able:
        return None
    if moment.worth_left > 1e-9 or moment.crowded_s <= 0.0:
        if able[0] is not waiting[0]:
            return None
        return _with_the_first(_company(able[0], able, checkpoint), checkpoint, moment, least_worth, tolerances_s)
    best: Choice | None = None
    budgets_s = moment.budgets_s
    longest_s = WINDOW * budgets_s[len(budgets_s) // 2] if budgets_s else math.inf
    for company in _companies(able, checkpoint, moment):
        rooms_s = [held.deadline_s - moment.now_s for held in company]
        for size in sizes(min(checkpoint.max_batch, len(company))):
            run_s = run_s_of(checkpoint, company[:size])
            first = bisect_left(rooms_s, checkpoint.reach_s(run_s, moment.now_s))
            members = company[first : first + size]
            if len(members) < size or rooms_s[first] > moment.crowded_s or (best and run_s > longest_s):
                break
            pressed = bisect_right(rooms_s, moment.crowded_s, first, first + size) - first
            gain = (pressed + PATIENCE * (size - pressed)) * checkpoint.worth - moment.price * run_s
            if best is None or gain > best.gain:
                best = Choice(gain, checkpoint, tuple(members), run_s)
    return best


def _with_the_first(
    company: Sequence[Held],
    checkpoint: Checkpoint,
    moment: Moment,
    least_worth: float,
    tolerances_s: Sequence[float],
) -> Choice | None:
    """The size at which most is gained for each request; of sizes alike in that, the one that costs each the least."""
    best: Choice | None = None
    room_s = company[0].deadline_s - moment.now_s
    for size in sizes(min(checkpoint.max_batch, len(company))):
        members = company[:size]
        run_s = run_s_of(checkpoint, members)
        if checkpoint.reach_s(run_s, moment.now_s) > room_s:
            break
        lost = least_worth * _lost(run_s / checkpoint.threads, moment, tolerances_s)
        gain = checkpoint.worth - (moment.price * run_s + lost) / size
        if (
            best is None
            or gain > best.gain + 1e-9
            or (gain > best.gain - 1e-9 and run_s * len(best.members) < best.run_s * size)
        ):
            best = Choice(gain, checkpoint, tuple(members), run_s)
    return best


def _company(head: Held, able: Sequence[Held], checkpoint: Checkpoint) -> Sequence[Held]:
    """The head, and who may share its run: all of its length, in the order of their deadlines."""
    if checkpoint.max_batch == 1:
        return (head,)
    return [held for held in able if held.alike == head.alike]


def _companies(able: Sequence[Held], checkpoint: Checkpoint, moment: Moment) -> list[list[Held]]:
    """Those of each length that are worth what they cost, in the order of their deadlines."""
    text_s: dict[int, float] = {}
    companies: dict[int, list[Held]] = {}
    for held in able:
        characters = held.characters
        if characters not in text_s:
            text_s[characters] = _least_s(checkpoint, characters)
        if moment.price * LENIENCE * held.texts * text_s[characters] <= checkpoint.worth:
            companies.setdefault(held.alike, []).append(held)
    return list(companies.values())


def _least_s(checkpoint: Checkpoint, characters: int) -> float:
    """The least core-seconds that a text costs in any run: in company, wherever that is cheaper."""
    return min(checkpoint.run_s(size, characters) / size for size in sizes(checkpoint.max_batch))


@lru_cache(maxsize=65536)
def _class_of(characters: int) -> int:
    return round(math.log(max(characters, 1)) / math.log(ALIKE))


def run_s_of(checkpoint: Checkpoint, members: Sequence[Held]) -> float:
    """The median core-seconds of the members' texts on one checkpoint, padded alike, in runs as large as it makes."""
    inputs = sum(held.texts for held in members)
    characters = max(held.characters for held in members)
    whole, rest = divmod(inputs, checkpoint.max_batch)
    return (whole * checkpoint.run_s(checkpoint.max_batch, characters) if whole else 0.0) + (
        checkpoint.run_s(rest, characters) if rest else 0.0
    )


def fastest(able: Sequence[Checkpoint], held: Held) -> Checkpoint:
    """The one that answers this request soonest, of equals the first by name."""
    return min(able, key=lambda one: (run_s_of(one, (held,)) / one.threads, one.name))


def _tolerances_s(checkpoints: Sequence[Checkpoint], characters: int, moment: Moment) -> list[float]:
    """How long requests of the sample's budgets could wait for a core and still be answered by the fastest."""
    fastest_s = min(checkpoint.reach_s(checkpoint.run_s(1, characters), moment.now_s) for checkpoint in checkpoints)
    return [budget_s - fastest_s for budget_s in moment.budgets_s]


def _lost(run_s: float, moment: Moment, tolerances_s: Sequence[float]) -> float:
    """How many of the requests to come are lost because they find this run on the core and cannot wait.

    Where other cores are free, only as many as those cannot take: counted as the share of their time that is in
    demand.
    """
    if not tolerances_s:
        return 0.0
    held_up_s = min(run_s, moment.next_free_s)
    lost = sum(until(moment.expected, held_up_s - t) for t in tolerances_s if t < held_up_s) / len(tolerances_s)
    if lost and moment.others_free > 0:
        demand = until(moment.expected, held_up_s) * run_s / (held_up_s * moment.others_free * 2)
        lost *= min(1.0, demand) ** moment.others_free
    return lost


def _alone(waiting: Sequence[Held], checkpoints: Sequence[Checkpoint]) -> Choice | None:
    """The most urgent request that any of these may answer, on the fastest of them."""
    for held in waiting:
        able = [checkpoint for checkpoint in checkpoints if held.may(checkpoint.name)]
        if able:
            soonest = fastest(able, held)
            return Choice(-math.inf, soonest, (held,), run_s_of(soonest, (held,)))
    return None
