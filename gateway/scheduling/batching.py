"""The rule that forms the next batch for a free core: which checkpoint, for which of the queued requests. Pure.

Each batch is worth what its members gain in quality, less the price of the core time it takes, less what is lost of
requests that are likely to come while it has the core and cannot wait for it. The best for the most urgent request is
taken, with those that gain by joining it. Where even the best bargain is not worth its price, there is more demand than
can be met, and the batch that gains most is taken, whoever is in it.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import lru_cache

from gateway.forecasting.forecaster import ServedCheckpoint
from gateway.scheduling.arrivals import until
from gateway.scheduling.price import sizes

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


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """A request that waits: its texts, the instant by which it must be answered, and who may answer it.

    `deadline_s` is already earlier by what it wants in hand beyond the 95th percentile. `eligible` are the checkpoints
    that its terms allow, None for all of the task. `place` is the order of arrival. `last_s` is the latest instant at
    which its batch can begin and it yet be in time, by its true deadline; after it a strict one waits in vain, and best
    effort behind the others.
    """

    place: int
    deadline_s: float
    characters: int
    texts: int = 1
    strict: bool = False
    eligible: frozenset[str] | None = None
    last_s: float = math.inf

    @property
    def length_bucket(self) -> int:
        """Texts of one number are alike in length: padding the shortest of them to the longest wastes little."""
        return _class_of(self.characters)

    def may(self, checkpoint: str) -> bool:
        """Whether that checkpoint may answer it."""
        return self.eligible is None or checkpoint in self.eligible


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """A run that could be next: its checkpoint, members and median time. `gain` orders the choices of one moment."""

    gain: float
    checkpoint: ServedCheckpoint
    members: tuple[QueuedRequest, ...]
    run_s: float


@dataclass(frozen=True, slots=True)
class SchedulingContext:
    """What else is known when a run is chosen.

    The price of a core-second and what the best bargain leaves at it; within what time not all that is due can be done,
    infinite where that is so in the long run; how many more cores are free, and if none is, in how many seconds one
    will be; how many requests are expected at `traffic.HORIZONS_S`, and a sample of budgets.
    """

    now_s: float
    price: float
    utility_left: float
    crowded_s: float
    others_free: float
    next_free_s: float
    expected: Sequence[float]
    budgets_s: Sequence[float]


def next_batch(
    waiting: Sequence[QueuedRequest], checkpoints: Sequence[ServedCheckpoint], context: SchedulingContext
) -> PlannedBatch | None:
    """The run to begin now, of requests in order of their deadlines; None where nobody may have any of these.

    Where no checkpoint can be sure to be in time for the most urgent request, it has the fastest, alone.
    """
    best: PlannedBatch | None = None
    least_utility = min(checkpoint.utility for checkpoint in checkpoints)
    tolerances_s = _tolerances_s(checkpoints, waiting[0].characters, context)
    for checkpoint in checkpoints:
        choice = _best_of(waiting, checkpoint, context, least_utility, tolerances_s)
        if choice is not None and (best is None or choice.gain > best.gain + 1e-12):
            best = choice
    return best or _alone(waiting, checkpoints)


def _best_of(
    waiting: Sequence[QueuedRequest],
    checkpoint: ServedCheckpoint,
    context: SchedulingContext,
    least_utility: float,
    tolerances_s: Sequence[float],
) -> PlannedBatch | None:
    """The best run on one checkpoint: with the most urgent request, or of anybody where not all can be served.

    Of those who are due within the time that is crowded: who can wait for its end is served after it as well.
    """
    able = [held for held in waiting if held.may(checkpoint.name)]
    if not able:
        return None
    if context.utility_left > 1e-9 or context.crowded_s <= 0.0:
        if able[0] is not waiting[0]:
            return None
        return _with_the_first(_company(able[0], able, checkpoint), checkpoint, context, least_utility, tolerances_s)
    best: PlannedBatch | None = None
    budgets_s = context.budgets_s
    longest_s = WINDOW * budgets_s[len(budgets_s) // 2] if budgets_s else math.inf
    for company in _companies(able, checkpoint, context):
        rooms_s = [held.deadline_s - context.now_s for held in company]
        for size in sizes(min(checkpoint.max_batch, len(company))):
            run_s = run_s_of(checkpoint, company[:size])
            first = bisect_left(rooms_s, checkpoint.reach_s(run_s, context.now_s))
            members = company[first : first + size]
            if len(members) < size or rooms_s[first] > context.crowded_s or (best and run_s > longest_s):
                break
            pressed = bisect_right(rooms_s, context.crowded_s, first, first + size) - first
            gain = (pressed + PATIENCE * (size - pressed)) * checkpoint.utility - context.price * run_s
            if best is None or gain > best.gain:
                best = PlannedBatch(gain, checkpoint, tuple(members), run_s)
    return best


def _with_the_first(
    company: Sequence[QueuedRequest],
    checkpoint: ServedCheckpoint,
    context: SchedulingContext,
    least_utility: float,
    tolerances_s: Sequence[float],
) -> PlannedBatch | None:
    """The size at which most is gained for each request; of sizes alike in that, the one that costs each the least."""
    best: PlannedBatch | None = None
    room_s = company[0].deadline_s - context.now_s
    for size in sizes(min(checkpoint.max_batch, len(company))):
        members = company[:size]
        run_s = run_s_of(checkpoint, members)
        if checkpoint.reach_s(run_s, context.now_s) > room_s:
            break
        lost = least_utility * _lost(run_s / checkpoint.threads, context, tolerances_s)
        gain = checkpoint.utility - (context.price * run_s + lost) / size
        if (
            best is None
            or gain > best.gain + 1e-9
            or (gain > best.gain - 1e-9 and run_s * len(best.members) < best.run_s * size)
        ):
            best = PlannedBatch(gain, checkpoint, tuple(members), run_s)
    return best


def _company(
    head: QueuedRequest, able: Sequence[QueuedRequest], checkpoint: ServedCheckpoint
) -> Sequence[QueuedRequest]:
    """The head, and who may share its run: all of its length, in the order of their deadlines."""
    if checkpoint.max_batch == 1:
        return (head,)
    return [held for held in able if held.length_bucket == head.length_bucket]


def _companies(
    able: Sequence[QueuedRequest], checkpoint: ServedCheckpoint, context: SchedulingContext
) -> list[list[QueuedRequest]]:
    """Those of each length that are worth what they cost, in the order of their deadlines."""
    text_s: dict[int, float] = {}
    companies: dict[int, list[QueuedRequest]] = {}
    for held in able:
        characters = held.characters
        if characters not in text_s:
            text_s[characters] = _least_s(checkpoint, characters)
        if context.price * LENIENCE * held.texts * text_s[characters] <= checkpoint.utility:
            companies.setdefault(held.length_bucket, []).append(held)
    return list(companies.values())


def _least_s(checkpoint: ServedCheckpoint, characters: int) -> float:
    """The least core-seconds that a text costs in any run: in company, wherever that is cheaper."""
    return min(checkpoint.run_s(size, characters) / size for size in sizes(checkpoint.max_batch))


@lru_cache(maxsize=65536)
def _class_of(characters: int) -> int:
    return round(math.log(max(characters, 1)) / math.log(ALIKE))


def run_s_of(checkpoint: ServedCheckpoint, members: Sequence[QueuedRequest]) -> float:
    """The median core-seconds of the members' texts on one checkpoint, padded alike, in runs as large as it makes."""
    inputs = sum(held.texts for held in members)
    characters = max(held.characters for held in members)
    whole, rest = divmod(inputs, checkpoint.max_batch)
    return (whole * checkpoint.run_s(checkpoint.max_batch, characters) if whole else 0.0) + (
        checkpoint.run_s(rest, characters) if rest else 0.0
    )


def fastest(able: Sequence[ServedCheckpoint], held: QueuedRequest) -> ServedCheckpoint:
    """The one that answers this request soonest, of equals the first by name."""
    return min(able, key=lambda one: (run_s_of(one, (held,)) / one.threads, one.name))


def _tolerances_s(checkpoints: Sequence[ServedCheckpoint], characters: int, context: SchedulingContext) -> list[float]:
    """How long requests of the sample's budgets could wait for a core and still be answered by the fastest."""
    fastest_s = min(checkpoint.reach_s(checkpoint.run_s(1, characters), context.now_s) for checkpoint in checkpoints)
    return [budget_s - fastest_s for budget_s in context.budgets_s]


def _lost(run_s: float, context: SchedulingContext, tolerances_s: Sequence[float]) -> float:
    """How many of the requests to come are lost because they find this run on the core and cannot wait.

    Where other cores are free, only as many as those cannot take: counted as the share of their time that is in
    demand.
    """
    if not tolerances_s:
        return 0.0
    held_up_s = min(run_s, context.next_free_s)
    lost = sum(until(context.expected, held_up_s - t) for t in tolerances_s if t < held_up_s) / len(tolerances_s)
    if lost and context.others_free > 0:
        demand = until(context.expected, held_up_s) * run_s / (held_up_s * context.others_free * 2)
        lost *= min(1.0, demand) ** context.others_free
    return lost


def _alone(waiting: Sequence[QueuedRequest], checkpoints: Sequence[ServedCheckpoint]) -> PlannedBatch | None:
    """The most urgent request that any of these may answer, on the fastest of them."""
    for held in waiting:
        able = [checkpoint for checkpoint in checkpoints if held.may(checkpoint.name)]
        if able:
            soonest = fastest(able, held)
            return PlannedBatch(-math.inf, soonest, (held,), run_s_of(soonest, (held,)))
    return None


def may_have(held: QueuedRequest, checkpoints: Set[str]) -> bool:
    """Whether the request may be answered by one of these, by name."""
    return bool(checkpoints if held.eligible is None else held.eligible & checkpoints)


def within(checkpoint: ServedCheckpoint, members: Sequence[QueuedRequest]) -> Sequence[QueuedRequest]:
    """As many of them, from the first on, as have room in one run of the checkpoint; the first in any case."""
    texts = 0
    for count, held in enumerate(members):
        texts += held.texts
        if count and texts > checkpoint.max_batch:
            return members[:count]
    return members


def late_batch(
    overdue: Sequence[QueuedRequest], up: Sequence[ServedCheckpoint], *, together: bool
) -> PlannedBatch | None:
    """The first overdue request that may have one of these, on the fastest; None where nobody may.

    With as many more as fit beside it, where the time is theirs by right; alone where they only have what nobody wants
    just now: who comes next finds the core free sooner, and may have no time to wait for more.
    """
    for held in overdue:
        able = [one for one in up if held.may(one.name)]
        if able:
            chosen = fastest(able, held)
            length_bucket = [one for one in overdue if one.may(chosen.name) and one.length_bucket == held.length_bucket]
            members = within(chosen, length_bucket if together else (held,))
            return PlannedBatch(-math.inf, chosen, tuple(members), run_s_of(chosen, members))
    return None
