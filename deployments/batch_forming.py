"""The rule that forms a replica's next batch: earliest deadline first, alike lengths together, the lost fall out.

Pure: it knows entries, limits and medians, and neither an event loop nor an engine. The replica's batcher and the
simulator call the same function.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

OVERDUE_GRACE_S = 1.0
"""How long an overdue best-effort entry yields to entries that can still be in time."""

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
    takes no companions, so that the culprit can be told from its batch-mates.
    """

    sequence: int
    tokens: int
    deadline: float
    strict: bool
    enqueued_at: float
    alone: bool = False


Entry = TypeVar("Entry", bound=Waiting)


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
    """The batch to run now, most urgent first, and the strict entries that are lost, in order of arrival.

    `median_s` is the profile's time for the batch as padded, `alone_s` the sum for its entries one by one.
    """

    entries: tuple[Entry, ...] = ()
    expired: tuple[Entry, ...] = ()
    median_s: float = 0.0
    alone_s: float = 0.0


def form_batch(waiting: Iterable[Entry], now: float, limits: BatchLimits, profile: MedianTimes) -> FormedBatch[Entry]:
    """The next batch out of `waiting`, whose order does not matter. What is in neither list goes on waiting.

    An entry is late when it would miss its deadline even if it ran alone right now, by the profile's median.
    Late strict entries expire: lost work is never run. Late best-effort entries count as due OVERDUE_GRACE_S after
    their deadline (or arrival, if that was later): they yield until then, and to nothing that arrives after.
    The earliest due is the head; companions join as `_grown` says.
    """
    expired = []
    ranked = []
    for entry in waiting:
        due = entry.deadline
        if now + profile.median_s(1, entry.tokens) > due:
            if entry.strict:
                expired.append(entry)
                continue
            due = max(due, entry.enqueued_at) + OVERDUE_GRACE_S
        ranked.append((due, entry.sequence, entry))
    expired.sort(key=lambda lost: lost.sequence)
    if not ranked:
        return FormedBatch(expired=tuple(expired))
    ranked.sort()
    return _grown([entry for _, _, entry in ranked], tuple(expired), now, limits, profile)


def _grown(
    ranked: list[Entry], expired: tuple[Entry, ...], now: float, limits: BatchLimits, profile: MedianTimes
) -> FormedBatch[Entry]:
    """The head of `ranked` (most urgent first) with the companions that pay.

    Each next entry joins if the batch stays within the limits, makes no member late that was in time, and would not
    itself come too late if strict. Of the batches passed on the way, the one wins that saves most against running
    its entries one by one (the smaller of equals): batching pays in total, even where a batch of two alone does not.
    """
    head = ranked[0]
    members = [head]
    real = longest = head.tokens
    alone_s = profile.median_s(1, longest)
    finish_by = head.deadline if now + alone_s <= head.deadline else math.inf
    best_size, best_median_s, best_alone_s = 1, alone_s, alone_s
    for entry in ranked[1:] if not head.alone else ():
        size = len(members) + 1
        if not limits.admits(size, longest, size * longest):
            break  # full: not even an entry without padding fits
        padded_to = max(longest, entry.tokens)
        if entry.alone or not limits.admits(size, padded_to, real + entry.tokens):
            continue
        median_s = profile.median_s(size, padded_to)
        in_time = now + median_s <= entry.deadline
        if now + median_s > finish_by or (entry.strict and not in_time):
            continue
        members.append(entry)
        real, longest = real + entry.tokens, padded_to
        alone_s += profile.median_s(1, entry.tokens)
        finish_by = min(finish_by, entry.deadline) if in_time else finish_by
        if alone_s - median_s > best_alone_s - best_median_s:
            best_size, best_median_s, best_alone_s = size, median_s, alone_s
    return FormedBatch(tuple(members[:best_size]), expired, best_median_s, best_alone_s)


class Backlog:
    """The service time of what waits, kept as a running sum: no request pays for a walk over the queue.

    An entry counts as its median when run alone, times the share of that which recent batches took (at most 1).
    """

    def __init__(self, profile: MedianTimes) -> None:
        """Starts empty, with a share of 1."""
        self._profile = profile
        self._alone_s = 0.0
        self._share = 1.0
        self.queued = 0

    @property
    def waiting_s(self) -> float:
        """Service time of all that waits, in seconds, amortised over batches; exactly 0 when nothing waits."""
        return max(self._alone_s, 0.0) * self._share

    def enter(self, entry: Waiting) -> None:
        """Counts an entry that begins to wait."""
        self.queued += 1
        self._alone_s += self._profile.median_s(1, entry.tokens)

    def leave(self, entry: Waiting) -> None:
        """Takes off an entry that waits no longer, for whatever reason."""
        self.queued -= 1
        self._alone_s = self._alone_s - self._profile.median_s(1, entry.tokens) if self.queued else 0.0

    def learn(self, formed: FormedBatch[Entry]) -> None:
        """Moves the share towards what this batch takes of its entries' time one by one."""
        self._share += _SHARE_WEIGHT * (formed.median_s / formed.alone_s - self._share)
