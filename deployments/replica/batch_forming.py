"""The rule that forms a replica's next batch: earliest deadline first, alike lengths together, the lost fall out.

Pure: it knows entries, limits and medians, and neither an event loop nor an engine. The replica's batcher and the
simulator call the same function. Whose turn it is between work in time and overdue work, `overdue` says.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

HOLDING_PRICE = 0.1
"""What a second of a held engine is priced at, in seconds: a batch must save that much more, or it stays smaller.

Whoever comes during a run waits for its end, so a long run that saves a few percent costs more than it brings.
"""

WORTH_PASSING = 1.1
"""How many times the work a batch must do in a second for the most urgent to be passed over, where some will be late.

Below that, the order of deadlines costs less than the tenth of its goodput that a gateway may lose under overload.
"""

_SHARE_WEIGHT = 0.1
"""Weight of the newest batch in the moving average by which `Backlog` amortises."""


class MedianTimes(Protocol):
    """What the rule asks of a latency profile."""

    def median_s(self, batch: int, tokens: int) -> float:
        """The median service time in seconds of one run of `batch` inputs padded to `tokens` tokens."""


@dataclass(frozen=True)
class RememberedMedians:
    """A latency profile that interpolates each (batch, tokens) only once. Grows to the number of distinct pairs."""

    profile: MedianTimes
    _known: dict[tuple[int, int], float] = field(default_factory=dict, repr=False, compare=False)

    def median_s(self, batch: int, tokens: int) -> float:
        """The profile's median, remembered."""
        try:
            return self._known[batch, tokens]
        except KeyError:
            return self._known.setdefault((batch, tokens), self.profile.median_s(batch, tokens))


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """One input in a replica's queue. `deadline` and `enqueued_at` are seconds on one monotonic clock.

    `sequence` is the order of arrival and unique in the queue. `alone` marks an entry whose batch failed: it
    takes no companions, so that the culprit can be told from its batch-mates. `run` numbers the run that it was sent
    for.
    """

    sequence: int
    tokens: int
    deadline: float
    strict: bool
    enqueued_at: float
    alone: bool = False
    run: int = 0


Entry = TypeVar("Entry", bound=Waiting)
_sequence: Callable[[Waiting], int] = attrgetter("sequence")
_deadline: Callable[[Waiting], float] = attrgetter("deadline")


@dataclass(frozen=True)
class BatchLimits:
    """What a batch may grow to: inputs, padded tokens, and the share of those that may be padding.

    A single input longer than `max_batch_tokens` still runs, without companions.
    """

    max_batch: int
    max_batch_tokens: int
    max_padding_waste: float

    def admits(self, size: int, longest: int, real: int) -> bool:
        """Whether `size` inputs of `real` tokens in all, padded to `longest`, make a batch within the limits."""
        padded = size * longest
        within = size <= self.max_batch and padded <= self.max_batch_tokens
        return within and padded - real <= self.max_padding_waste * padded


@dataclass(frozen=True)
class FormedBatch(Generic[Entry]):
    """The batch to run now, its head first, and the strict entries that are lost, in order of arrival.

    `median_s` is the profile's time for the batch as padded, `alone_s` the sum for its entries one by one. `overdue`
    is of its head; `contested` says that entries of the other kind waited too. `OverdueShare` wants to know both.
    `yielding_s` is the time, one by one, of the overdue that go on waiting.
    """

    entries: tuple[Entry, ...] = ()
    expired: tuple[Entry, ...] = ()
    median_s: float = 0.0
    alone_s: float = 0.0
    overdue: bool = False
    contested: bool = False
    yielding_s: float = 0.0

    @property
    def efficiency(self) -> float:
        """How many seconds of its entries' work one by one a second of this batch does; 0 where it is empty."""
        return self.alone_s / self.median_s if self.entries else 0.0


def of_next_run(waiting: Collection[Entry], idle: int) -> Collection[Entry]:
    """What the next batch is formed of: all that wait; where a thread is idle for each run sent, the first run alone.

    Who sent two runs counts on two cores. Two that became one would end as one, and be followed by two at one instant,
    which became one again: a core would stand idle for as long as there is a rush.
    """
    runs = {entry.run for entry in waiting}
    if not 1 < len(runs) <= idle:
        return waiting
    first = next(iter(waiting)).run
    return [entry for entry in waiting if entry.run == first]


def form_batch(
    waiting: Iterable[Entry],
    now: float,
    limits: BatchLimits,
    profile: MedianTimes,
    *,
    overdue_turn: bool = False,
    threads: int = 1,
) -> FormedBatch[Entry]:
    """The next batch out of `waiting`, whose order does not matter. What is in neither list goes on waiting.

    An entry is late when it would miss its deadline even if it ran alone right now, by the profile's median.
    Late strict entries expire: lost work is never run. Late best-effort entries are overdue: they yield to all that
    can be in time, unless it is their turn (`OverdueShare` says when). The head is the earliest deadline of those in
    time, or the oldest of the overdue; companions join as `_grown` says. Only where not all can be in time, however
    well the engine's `threads` are used, may the most urgent be passed over: see `_for_the_patient`.
    """
    timely: list[Entry] = []
    overdue: list[Entry] = []
    expired: list[Entry] = []
    alone_s: dict[int, float] = {}
    for entry in waiting:
        tokens = entry.tokens
        if tokens not in alone_s:
            alone_s[tokens] = profile.median_s(1, tokens)
        if now + alone_s[tokens] <= entry.deadline:
            timely.append(entry)
        else:
            (expired if entry.strict else overdue).append(entry)
    for entries in (timely, overdue, expired):
        entries.sort(key=_sequence)
    timely.sort(key=_deadline)  # stable: of equals the earlier
    if not timely and not overdue:
        return FormedBatch(expired=tuple(expired))
    theirs = bool(overdue) and (overdue_turn or not timely)
    if theirs:
        batch = _grown(overdue, timely, now, limits, profile)
    else:
        batch = _grown(timely, overdue, now, limits, profile)
        batch = _for_the_patient(batch, timely, now, limits, profile, threads) or batch
    members = set(batch.entries)
    yielding_s = sum(alone_s[entry.tokens] for entry in overdue if entry not in members)
    contested = bool(timely and overdue)
    return replace(batch, expired=tuple(expired), overdue=theirs, contested=contested, yielding_s=yielding_s)


def _for_the_patient(
    urgent: FormedBatch[Entry],
    timely: list[Entry],
    now: float,
    limits: BatchLimits,
    profile: MedianTimes,
    threads: int,
) -> FormedBatch[Entry] | None:
    """The batch of those who can wait for a full one, where it does much more in its time and some must be late anyway.

    Under overload whoever is most urgent has no time for company. Served one by one, each at the last moment, fewer
    are served in all: so some are given up that others may be in time (as Nexus drops early: Shen et al., SOSP 2019).
    """
    if len(urgent.entries) == len(timely):
        return None
    full = _grown(timely, [], -math.inf, limits, profile)  # as if it were long ago, and nobody pressed
    patient = timely[bisect_left(timely, now + full.median_s, key=_deadline) :]
    if not patient or full.efficiency <= WORTH_PASSING * urgent.efficiency:
        return None
    batch = _grown(patient, [], now, limits, profile)
    if batch.efficiency <= WORTH_PASSING * urgent.efficiency:
        return None
    ends_s = accumulate(profile.median_s(1, entry.tokens) / (batch.efficiency * threads) for entry in timely)
    return batch if any(now + end_s > entry.deadline for end_s, entry in zip(ends_s, timely, strict=True)) else None


def _grown(
    ranked: list[Entry], others: list[Entry], now: float, limits: BatchLimits, profile: MedianTimes
) -> FormedBatch[Entry]:
    """The head of `ranked` (most urgent first) with the companions that pay.

    Each next entry joins if the batch stays within the limits and makes nobody late that was in time. `others` fill up
    what is left once all of `ranked` are in: where one stays behind, they would keep it waiting. Of the batches passed
    on the way, the one wins that saves most against running its entries one by one, the engine's time held at
    HOLDING_PRICE (the smaller of equals): batching pays in total, even where a batch of two alone does not.
    """
    head = ranked[0]
    members = [head]
    real = longest = head.tokens
    alone_s = profile.median_s(1, longest)
    finish_by = head.deadline if now + alone_s <= head.deadline else math.inf
    best_size, best_median_s, best_alone_s = 1, alone_s, alone_s
    unfit: set[int] = set()  # lengths that cannot join the batch as it stands: each is tried once, not for each entry
    for place, entry in enumerate(chain(ranked, others) if not head.alone else ranked[:1]):
        if place == len(ranked) and len(members) < place:
            break
        if entry is head or entry.alone or entry.tokens in unfit:
            continue
        size = len(members) + 1
        if not limits.admits(size, longest, size * longest):
            break  # full: not even an entry without padding fits
        padded_to = max(longest, entry.tokens)
        median_s = profile.median_s(size, padded_to)
        if not limits.admits(size, padded_to, real + entry.tokens) or now + median_s > finish_by:
            unfit.add(entry.tokens)
            continue
        own_s = profile.median_s(1, entry.tokens)
        if now + own_s <= entry.deadline:
            if now + median_s > entry.deadline:
                continue
            finish_by = min(finish_by, entry.deadline)
        members.append(entry)
        unfit.clear()
        real, longest, alone_s = real + entry.tokens, padded_to, alone_s + own_s
        if _gain_s(alone_s, median_s) > _gain_s(best_alone_s, best_median_s):
            best_size, best_median_s, best_alone_s = size, median_s, alone_s
    return FormedBatch(tuple(members[:best_size]), (), best_median_s, best_alone_s)


def _gain_s(alone_s: float, median_s: float) -> float:
    return alone_s - (1 + HOLDING_PRICE) * median_s


class Backlog:
    """The service time of what waits, kept as a running sum: no request pays for a walk over the queue.

    An entry counts as its median when run alone, times the share of that which recent batches took (at most 1). What
    was overdue when the last batch was formed does not count: it yields to whoever can be in time.
    """

    def __init__(self, profile: MedianTimes) -> None:
        """Starts empty, with a share of 1."""
        self._profile = profile
        self._alone_s = 0.0
        self._yielding_s = 0.0
        self._share = 1.0
        self.queued = 0

    @property
    def waiting_s(self) -> float:
        """Service time of all that does not yield, in seconds, amortised over batches; exactly 0 for an empty queue."""
        return max(self._alone_s - self._yielding_s, 0.0) * self._share

    def enter(self, entry: Waiting) -> None:
        """Counts an entry that begins to wait."""
        self.queued += 1
        self._alone_s += self._profile.median_s(1, entry.tokens)

    def leave(self, entry: Waiting) -> None:
        """Takes off an entry that waits no longer, for whatever reason."""
        self.queued -= 1
        self._alone_s = self._alone_s - self._profile.median_s(1, entry.tokens) if self.queued else 0.0

    def learn(self, formed: FormedBatch[Entry]) -> None:
        """Moves the share towards what this batch takes of its entries' time one by one; notes what yields now."""
        self._share += _SHARE_WEIGHT * (formed.median_s / formed.alone_s - self._share)
        self._yielding_s = formed.yielding_s
