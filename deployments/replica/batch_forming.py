"""Forms a replica's next batch: earliest deadline first, similar lengths together, lost strict work expired.

Pure functions of entries, limits and median times; no event loop, no engine. The replica's batcher and the simulator
call them. `LateShare` decides when late work gets its share.
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
"""Price of a second that a batch holds the engine, in seconds of saved work: a batch grows only if it saves more.

Requests that arrive during a batch wait for its end, so a long batch that saves a few percent costs more than it gains.
"""

PASSING_GAIN = 1.1
"""How many times more efficient a batch must be to pass over more urgent entries, when some will be late anyway.

Below that, keeping the order of deadlines costs less than the tenth of goodput that a gateway may lose under overload.
"""

_SHARE_WEIGHT = 0.1
"""Weight of the newest batch in `Backlog`'s moving average."""


class MedianTimes(Protocol):
    """The median service times of a latency profile."""

    def median_s(self, batch: int, tokens: int) -> float:
        """The median service time in seconds of one run of `batch` inputs padded to `tokens` tokens."""


@dataclass(frozen=True)
class RememberedMedians:
    """A latency profile that interpolates each (batch, tokens) once and remembers it, without limit."""

    profile: MedianTimes
    _known: dict[tuple[int, int], float] = field(default_factory=dict, repr=False, compare=False)

    def median_s(self, batch: int, tokens: int) -> float:
        """The profile's median in seconds, computed once."""
        try:
            return self._known[batch, tokens]
        except KeyError:
            return self._known.setdefault((batch, tokens), self.profile.median_s(batch, tokens))


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """One input in a replica's queue. `deadline` and `enqueued_at` are seconds on one monotonic clock.

    `sequence` is the order of arrival and unique in the queue. `alone` marks an entry whose batch failed: it runs again
    on its own, so that only the faulty input fails. `batch` is the number of the batch that the gateway sent it in.
    """

    sequence: int
    tokens: int
    deadline: float
    strict: bool
    enqueued_at: float
    alone: bool = False
    batch: int = 0


Entry = TypeVar("Entry", bound=Waiting)
_sequence: Callable[[Waiting], int] = attrgetter("sequence")
_deadline: Callable[[Waiting], float] = attrgetter("deadline")


@dataclass(frozen=True)
class BatchLimits:
    """The limits of a batch: inputs, padded tokens, and the share of padding in those.

    A single input longer than `max_batch_tokens` still runs alone.
    """

    max_batch: int
    max_batch_tokens: int
    max_padding_waste: float

    def admits(self, size: int, longest: int, real: int) -> bool:
        """True if `size` inputs with `real` tokens in all, padded to `longest`, are within the limits."""
        padded = size * longest
        within = size <= self.max_batch and padded <= self.max_batch_tokens
        return within and padded - real <= self.max_padding_waste * padded


@dataclass(frozen=True)
class FormedBatch(Generic[Entry]):
    """The batch to run now, its head first, and the strict entries that are lost, in order of arrival.

    `median_s` is the profile's seconds for the padded batch, `alone_s` the sum for its entries one by one. `late` is
    True if its head is late, and `contested` if both late and timely entries waited; `LateShare` needs both.
    `yielding_s` is the sum, one by one, for the late entries that keep waiting.
    """

    entries: tuple[Entry, ...] = ()
    expired: tuple[Entry, ...] = ()
    median_s: float = 0.0
    alone_s: float = 0.0
    late: bool = False
    contested: bool = False
    yielding_s: float = 0.0

    @property
    def efficiency(self) -> float:
        """Seconds of one-by-one work that the batch does in a second; 0 if it is empty."""
        return self.alone_s / self.median_s if self.entries else 0.0


def of_next_batch(waiting: Collection[Entry], idle: int) -> Collection[Entry]:
    """Picks the entries for the next batch: only the first batch sent, if there is an idle thread for each; else all.

    The gateway sends two batches for two idle cores. If the replica merged them, they would end as one, the next two
    would arrive together and merge again, and one core would stay idle for as long as the rush lasts.
    """
    batches = {entry.batch for entry in waiting}
    if not 1 < len(batches) <= idle:
        return waiting
    first = next(iter(waiting)).batch
    return [entry for entry in waiting if entry.batch == first]


def form_batch(
    waiting: Iterable[Entry],
    now: float,
    limits: BatchLimits,
    profile: MedianTimes,
    *,
    late_turn: bool = False,
    threads: int = 1,
) -> FormedBatch[Entry]:
    """Forms the next batch from `waiting`, in any order. Entries neither in the batch nor expired keep waiting.

    An entry is late if it would miss its deadline even alone right now, by the profile's median. Late strict entries
    expire: lost work is never run. Late best-effort entries yield to timely ones, except when `late_turn` is set
    (`LateShare` says when). The head is the timely entry with the earliest deadline, or the oldest late one; companions
    join as `_grown` says. Urgent entries are passed over only if some must be late even with all `threads` well used:
    see `_patient_batch`.
    """
    timely: list[Entry] = []
    late: list[Entry] = []
    expired: list[Entry] = []
    alone_s: dict[int, float] = {}
    for entry in waiting:
        tokens = entry.tokens
        if tokens not in alone_s:
            alone_s[tokens] = profile.median_s(1, tokens)
        if now + alone_s[tokens] <= entry.deadline:
            timely.append(entry)
        else:
            (expired if entry.strict else late).append(entry)
    for entries in (timely, late, expired):
        entries.sort(key=_sequence)
    timely.sort(key=_deadline)  # stable: of equals the earlier
    if not timely and not late:
        return FormedBatch(expired=tuple(expired))
    is_late = bool(late) and (late_turn or not timely)
    if is_late:
        batch = _grown(late, timely, now, limits, profile)
    else:
        batch = _grown(timely, late, now, limits, profile)
        batch = _patient_batch(batch, timely, now, limits, profile, threads) or batch
    members = set(batch.entries)
    yielding_s = sum(alone_s[entry.tokens] for entry in late if entry not in members)
    contested = bool(timely and late)
    return replace(batch, expired=tuple(expired), late=is_late, contested=contested, yielding_s=yielding_s)


def _patient_batch(
    urgent: FormedBatch[Entry],
    timely: list[Entry],
    now: float,
    limits: BatchLimits,
    profile: MedianTimes,
    threads: int,
) -> FormedBatch[Entry] | None:
    """Forms a batch of the less urgent entries, if it is much more efficient and some entries must be late anyway.

    Under overload the most urgent entries have no time for companions. If each ran alone at the last moment, fewer
    would be served in all. So some are given up for the others, like the early drop of Nexus (Shen et al., SOSP 2019).
    """
    if len(urgent.entries) == len(timely):
        return None
    full = _grown(timely, [], -math.inf, limits, profile)  # the batch if no deadline were near
    patient = timely[bisect_left(timely, now + full.median_s, key=_deadline) :]
    if not patient or full.efficiency <= PASSING_GAIN * urgent.efficiency:
        return None
    batch = _grown(patient, [], now, limits, profile)
    if batch.efficiency <= PASSING_GAIN * urgent.efficiency:
        return None
    ends_s = accumulate(profile.median_s(1, entry.tokens) / (batch.efficiency * threads) for entry in timely)
    return batch if any(now + end_s > entry.deadline for end_s, entry in zip(ends_s, timely, strict=True)) else None


def _grown(
    ranked: list[Entry], others: list[Entry], now: float, limits: BatchLimits, profile: MedianTimes
) -> FormedBatch[Entry]:
    """Grows a batch from the head of `ranked` (most urgent first) with companions that save engine time.

    An entry joins if the batch stays within the limits and makes no timely entry late. `others` join only once all of
    `ranked` are in, so that they delay none of those. Of all sizes on the way, the best is the one that saves the most
    time against one by one, at HOLDING_PRICE; the smaller on a tie. So a large batch can win even if a pair does not
    pay.
    """
    head = ranked[0]
    members = [head]
    real = longest = head.tokens
    alone_s = profile.median_s(1, longest)
    finish_by = head.deadline if now + alone_s <= head.deadline else math.inf
    best_size, best_median_s, best_alone_s = 1, alone_s, alone_s
    unfit: set[int] = set()  # lengths that do not fit the batch as it is, so that each is tried once
    for place, entry in enumerate(chain(ranked, others) if not head.alone else ranked[:1]):
        if place == len(ranked) and len(members) < place:
            break
        if entry is head or entry.alone or entry.tokens in unfit:
            continue
        size = len(members) + 1
        if not limits.admits(size, longest, size * longest):
            break  # full: even an entry without padding does not fit
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
    """The service time of the queue, kept as a running sum so that no request walks over the queue.

    An entry counts its median when run alone, times the share of that which recent batches took (at most 1). Entries
    that were late when the last batch was formed do not count, since they yield to timely ones.
    """

    def __init__(self, profile: MedianTimes) -> None:
        """Starts empty, as if batching saved nothing."""
        self._profile = profile
        self._alone_s = 0.0
        self._yielding_s = 0.0
        self._share = 1.0
        self.queued = 0

    @property
    def waiting_s(self) -> float:
        """Seconds of service for the entries that do not yield, as batches take them; exactly 0 for an empty queue."""
        return max(self._alone_s - self._yielding_s, 0.0) * self._share

    def enter(self, entry: Waiting) -> None:
        """Adds an entry that begins to wait."""
        self.queued += 1
        self._alone_s += self._profile.median_s(1, entry.tokens)

    def leave(self, entry: Waiting) -> None:
        """Removes an entry that no longer waits, for whatever reason."""
        self.queued -= 1
        self._alone_s = self._alone_s - self._profile.median_s(1, entry.tokens) if self.queued else 0.0

    def learn(self, formed: FormedBatch[Entry]) -> None:
        """Averages in the share of one-by-one time that this batch takes, and notes the time that yields now."""
        self._share += _SHARE_WEIGHT * (formed.median_s / formed.alone_s - self._share)
        self._yielding_s = formed.yielding_s
