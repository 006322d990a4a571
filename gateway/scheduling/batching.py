"""The batching rule: which checkpoint a free core runs next, and for which queued requests. Pure functions.

A batch gains the utility of its members. It costs the price of its core time, and the utility of future requests that
are lost because it holds the core. The rule takes the batch of highest gain among those with the most urgent request.
Under overload, when even the best batch is not worth its price, it takes the batch of highest gain with any requests.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache

from gateway.forecasting.forecaster import ServedCheckpoint
from gateway.model.request import RequestShape
from gateway.scheduling.price import sizes

LENGTH_RATIO = 1.18
"""Largest ratio of tokens between two texts of one length bucket: so little padding wastes less than it saves."""

SHORTEST = 16
"""Texts of fewer tokens than this share a length bucket: the engine takes as long for them. In tokens."""

LENIENCE = 0.7
"""Under overload a request is left out if this share of its cheapest cost, at the price, exceeds its utility.

Below 1 because the price is for texts of mean length. Set by hand.
"""

BATCH_BUDGET_SHARE = 2 / 3
"""Under overload, longest time of a shared batch, as a share of the median budget.

A request that arrives during a batch must wait for its end and then run too. Nexus takes half (Shen et al., SOSP 2019);
in simulation, larger batches than two thirds starved requests that arrived meanwhile (docs/performance.md).
"""


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """A request that waits for a batch.

    `deadline_s` is the client's deadline minus what the request needs beyond the 95th percentile. `tokens` is the mean
    length of its texts by each tokenizer of the task. `eligible` names the checkpoints that its terms allow; None means
    all of the task. `place` is its number in order of arrival. `last_s` is the latest start of a batch that still meets
    the true deadline. After it a strict request is given up; a best-effort request is late and goes behind the others.
    `length_bucket` is the number of its length bucket: padding the shortest text of a bucket to its longest wastes
    little. `shape` is its shape, where checkpoints whose texts share steps have to know.
    """

    place: int
    deadline_s: float
    tokens: tuple[int, ...]
    texts: int = 1
    strict: bool = False
    eligible: frozenset[str] | None = None
    last_s: float = math.inf
    shape: RequestShape | None = None
    length_bucket: int = field(init=False)

    def __post_init__(self) -> None:
        self.length_bucket = _length_bucket(self.tokens[0])

    def may(self, checkpoint: str) -> bool:
        """True if that checkpoint may answer the request."""
        return self.eligible is None or checkpoint in self.eligible


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """A batch that could start now, with its median time in core-seconds; the highest `gain` is best."""

    gain: float
    checkpoint: ServedCheckpoint
    members: tuple[QueuedRequest, ...]
    run_s: float


@dataclass(frozen=True, slots=True)
class SchedulingContext:
    """What the batching rule knows besides the queue and the checkpoints.

    `price` is in points of quality per core-second, and `utility_left` is what the best use of a core-second leaves
    after it. `crowded` is set while more arrives than can be served.
    `others` counts the further cores, and `next_free_s` is the time until one of them is free. `rate` is in arrivals
    per second, each of which takes `least_cost_s` core-seconds at the least; `budgets_s` is a sample of budgets.
    """

    now_s: float
    price: float
    utility_left: float
    crowded: bool
    others: int
    next_free_s: float
    rate: float
    least_cost_s: float
    budgets_s: Sequence[float]


def next_batch(
    waiting: Sequence[QueuedRequest], checkpoints: Sequence[ServedCheckpoint], context: SchedulingContext
) -> PlannedBatch | None:
    """Chooses the batch to start now from requests in order of deadline; None if no checkpoint may answer any.

    A request whose deadline no checkpoint is sure to meet lets the others go first. If there is no other, the most
    urgent runs alone on the fastest.
    """
    least_utility = min(checkpoint.utility for checkpoint in checkpoints)
    crowded = context.utility_left <= 1e-9 and context.crowded  # then a batch may be led by any request
    for first in range(1 if crowded else len(waiting)):
        best: PlannedBatch | None = None
        left = waiting[first:] if first else waiting
        tolerances_s = _tolerances_s(checkpoints, left[0], context)
        for checkpoint in checkpoints:
            batch = _best_of(left, checkpoint, context, least_utility, tolerances_s)
            if batch is not None and (best is None or batch.gain > best.gain + 1e-12):
                best = batch
        if best is not None:
            return best
    return _alone(waiting, checkpoints)


def _best_of(
    waiting: Sequence[QueuedRequest],
    checkpoint: ServedCheckpoint,
    context: SchedulingContext,
    least_utility: float,
    tolerances_s: Sequence[float],
) -> PlannedBatch | None:
    """The best batch on one checkpoint: with the most urgent request, or under overload of any requests."""
    name = checkpoint.name
    able = [queued for queued in waiting if queued.eligible is None or name in queued.eligible]
    if not able:
        return None
    if context.utility_left > 1e-9 or not context.crowded:
        if able[0] is not waiting[0]:
            return None
        return _with_most_urgent(
            _group_with(able[0], able, checkpoint), checkpoint, context, least_utility, tolerances_s
        )
    best: PlannedBatch | None = None
    budgets_s = context.budgets_s
    longest_s = BATCH_BUDGET_SHARE * budgets_s[len(budgets_s) // 2] if budgets_s else math.inf
    for group in _groups(able, checkpoint, context):
        remaining_s = [queued.deadline_s - context.now_s for queued in group]
        for size in sizes(min(checkpoint.max_batch, len(group))):
            run_s = run_s_of(checkpoint, group[:size])
            first = bisect_left(remaining_s, checkpoint.reach_s(run_s, context.now_s))
            members = group[first : first + size]
            if len(members) < size or (best and run_s > longest_s):
                break
            gain = size * checkpoint.utility - context.price * run_s
            if best is None or gain > best.gain:
                best = PlannedBatch(gain, checkpoint, tuple(members), run_s)
    return best


def _with_most_urgent(
    group: Sequence[QueuedRequest],
    checkpoint: ServedCheckpoint,
    context: SchedulingContext,
    least_utility: float,
    tolerances_s: Sequence[float],
) -> PlannedBatch | None:
    """The batch with the most urgent request that gains most per request; on a tie the one with the least core time."""
    count, best_gain, best_s = 0, -math.inf, 0.0
    remaining_s = group[0].deadline_s - context.now_s
    texts = tokens = at = 0
    for size in sizes(min(checkpoint.max_batch, len(group))):
        while at < size:
            queued = group[at]
            texts += queued.texts
            if queued.tokens[checkpoint.tokenizer] > tokens:
                tokens = queued.tokens[checkpoint.tokenizer]
            at += 1
        run_s = texts_s(checkpoint, texts, tokens)
        if checkpoint.reach_s(run_s, context.now_s) > remaining_s:
            break
        lost = least_utility * _lost(run_s / checkpoint.threads, context, tolerances_s)
        gain = checkpoint.utility - (context.price * run_s + lost) / size
        if not count or gain > best_gain + 1e-9 or (gain > best_gain - 1e-9 and run_s * count < best_s * size):
            count, best_gain, best_s = size, gain, run_s
    return PlannedBatch(best_gain, checkpoint, tuple(group[:count]), best_s) if count else None


def _group_with(
    head: QueuedRequest, able: Sequence[QueuedRequest], checkpoint: ServedCheckpoint
) -> Sequence[QueuedRequest]:
    """Returns the head and the requests that may share its batch: those of its length bucket, in order of deadline.

    Where texts share steps a batch is one request, which others join: then each is answered when it ends.
    """
    if checkpoint.max_batch == 1 or checkpoint.joins is not None:
        return (head,)
    return [queued for queued in able if queued.length_bucket == head.length_bucket]


def _groups(
    able: Sequence[QueuedRequest], checkpoint: ServedCheckpoint, context: SchedulingContext
) -> list[list[QueuedRequest]]:
    """Returns the requests worth their cost at the price, by length bucket, each group in order of deadline."""
    text_s: dict[int, float] = {}
    groups: dict[int, list[QueuedRequest]] = {}
    for queued in able:
        tokens = queued.tokens[checkpoint.tokenizer]
        if tokens not in text_s:
            text_s[tokens] = _least_s(checkpoint, tokens)
        if context.price * LENIENCE * queued.texts * text_s[tokens] <= checkpoint.utility:
            groups.setdefault(queued.length_bucket, []).append(queued)
    if checkpoint.joins is not None:
        return [[queued] for group in groups.values() for queued in group]
    return list(groups.values())


def _least_s(checkpoint: ServedCheckpoint, tokens: int) -> float:
    """The fewest core-seconds that one text costs at any batch size."""
    return min(checkpoint.run_s(size, tokens) / size for size in sizes(checkpoint.max_batch))


@lru_cache(maxsize=65536)
def _length_bucket(tokens: int) -> int:
    return round(math.log(max(tokens, SHORTEST)) / math.log(LENGTH_RATIO))


def run_s_of(checkpoint: ServedCheckpoint, members: Sequence[QueuedRequest]) -> float:
    """Median core-seconds of the members' texts on one checkpoint, padded to the longest, in full batches."""
    place = checkpoint.tokenizer
    if checkpoint.joins is not None and len(members) == 1 and (shape := members[0].shape) is not None:
        return checkpoint.joined_s(shape, 0)
    if len(members) == 1:
        return texts_s(checkpoint, members[0].texts, members[0].tokens[place])
    inputs = sum([queued.texts for queued in members])
    return texts_s(checkpoint, inputs, max([queued.tokens[place] for queued in members]))


def texts_s(checkpoint: ServedCheckpoint, inputs: int, tokens: int) -> float:
    """Median core-seconds of so many texts of one length on one checkpoint, in full batches."""
    if inputs <= checkpoint.max_batch:
        return checkpoint.run_s(inputs, tokens)
    whole, rest = divmod(inputs, checkpoint.max_batch)
    return (whole * checkpoint.run_s(checkpoint.max_batch, tokens) if whole else 0.0) + (
        checkpoint.run_s(rest, tokens) if rest else 0.0
    )


def fastest(able: Sequence[ServedCheckpoint], queued: QueuedRequest) -> ServedCheckpoint:
    """The checkpoint that answers this request soonest; among equals the first by name."""
    return min(able, key=lambda one: (run_s_of(one, (queued,)) / one.threads, one.name))


def _tolerances_s(
    checkpoints: Sequence[ServedCheckpoint], like: QueuedRequest, context: SchedulingContext
) -> list[float]:
    """For each sampled budget, how long a request as long as `like` could wait for a core and be in time; ascending."""
    fastest_s = min([one.reach_s(one.run_s(1, like.tokens[one.tokenizer]), context.now_s) for one in checkpoints])
    return [max(budget_s - fastest_s, 0.0) for budget_s in context.budgets_s]


def _lost(run_s: float, context: SchedulingContext, tolerances_s: Sequence[float]) -> float:
    """Expected number of future requests that miss their deadline because this batch holds the core.

    Until another core is free, all that come wait. From then on they wait for the other cores, and those are lost that
    wait longer than they can: exp(-2 (1 - rho) n t / s) of the waits on n cores, busy for a share rho of the time with
    runs of equal length s, exceed t (Kingman's approximation for heavy traffic), and rho ** (sqrt(2 n + 2) - 1) wait at
    all (Sakasegawa, "An approximation formula", Annals of the Institute of Statistical Mathematics 29, 1977).
    """
    lost_s = 0.0
    for tolerance_s in tolerances_s:
        if tolerance_s >= run_s:
            break
        blocked_s = max(min(run_s, context.next_free_s) - tolerance_s, 0.0)
        shared_s = run_s - tolerance_s - blocked_s
        lost_s += blocked_s + (shared_s * _waits(tolerance_s, context) if shared_s > 0.0 else 0.0)
    return context.rate * lost_s / len(tolerances_s) if lost_s else 0.0


def _waits(longer_than_s: float, context: SchedulingContext) -> float:
    """The share of arrivals that wait longer than this for one of the other cores."""
    others, run_s = context.others, context.least_cost_s
    busy = context.rate * run_s / others if others else 1.0
    if busy >= 1.0:
        return 1.0
    if busy <= 0.0:
        return 0.0
    return float(busy ** (math.sqrt(2 * others + 2) - 1) * math.exp(-2 * (1 - busy) * others * longer_than_s / run_s))


def _alone(waiting: Sequence[QueuedRequest], checkpoints: Sequence[ServedCheckpoint]) -> PlannedBatch | None:
    """The most urgent request that any of these checkpoints may answer, alone on the fastest."""
    for queued in waiting:
        able = [checkpoint for checkpoint in checkpoints if queued.may(checkpoint.name)]
        if able:
            soonest = fastest(able, queued)
            return PlannedBatch(-math.inf, soonest, (queued,), run_s_of(soonest, (queued,)))
    return None


def may_have(queued: QueuedRequest, checkpoints: Set[str]) -> bool:
    """True if one of these checkpoints, by name, may answer the request."""
    return bool(checkpoints if queued.eligible is None else queued.eligible & checkpoints)


def within(checkpoint: ServedCheckpoint, members: Sequence[QueuedRequest]) -> Sequence[QueuedRequest]:
    """The first members that fit one batch of the checkpoint; always at least one."""
    texts = 0
    for count, queued in enumerate(members):
        texts += queued.texts
        if count and texts > checkpoint.max_batch:
            return members[:count]
    return members


def late_batch(late: Sequence[QueuedRequest], up: Sequence[ServedCheckpoint], *, together: bool) -> PlannedBatch | None:
    """The first late request that one of these checkpoints may answer, on the fastest; None if there is none.

    With `together` set, requests of the same length bucket join. Alone it leaves the core free sooner for requests that
    still can be in time.
    """
    for queued in late:
        able = [one for one in up if queued.may(one.name)]
        if able:
            chosen = fastest(able, queued)
            same_bucket = [one for one in late if one.may(chosen.name) and one.length_bucket == queued.length_bucket]
            members = within(chosen, same_bucket if together and chosen.joins is None else (queued,))
            return PlannedBatch(-math.inf, chosen, tuple(members), run_s_of(chosen, members))
    return None
