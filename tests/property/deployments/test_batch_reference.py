"""The batch-forming rule against a plain and slow restatement of it, and a bound on how many entries it looks at."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate

from deployments.replica.batch_forming import (
    HOLDING_PRICE,
    PASSING_GAIN,
    BatchLimits,
    RememberedMedians,
    Waiting,
    form_batch,
)
from drawn_queues import NOW, limits_given, profiles, queues
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.model.profile import LatencyProfile


@dataclass(frozen=True)
class Plainly:
    """The rule in the words of its docstrings, with no regard to cost."""

    now: float
    limits: BatchLimits
    profile: LatencyProfile

    def alone_s(self, entry: Waiting) -> float:
        """The entry's service time alone."""
        return self.profile.median_s(1, entry.tokens)

    def timely(self, entry: Waiting) -> bool:
        """True if the entry can be in time."""
        return self.now + self.alone_s(entry) <= entry.deadline

    def median_s(self, batch: list[Waiting]) -> float:
        """The median service time of a batch."""
        return self.profile.median_s(len(batch), max(entry.tokens for entry in batch))

    def gain_s(self, batch: list[Waiting]) -> float:
        """The time that a batch saves."""
        return sum(map(self.alone_s, batch)) - (1 + HOLDING_PRICE) * self.median_s(batch)

    def efficiency(self, batch: list[Waiting]) -> float:
        """Work done per unit of time."""
        return sum(map(self.alone_s, batch)) / self.median_s(batch)

    def admits(self, batch: list[Waiting]) -> bool:
        """True if the batch keeps the limits, has no `alone` entry, and makes no entry late."""
        longest, real = max(entry.tokens for entry in batch), sum(entry.tokens for entry in batch)
        if any(entry.alone for entry in batch) or not self.limits.admits(len(batch), longest, real):
            return False
        ends = self.now + self.median_s(batch)
        return not any(self.timely(entry) and ends > entry.deadline for entry in batch)

    def grown(self, ranked: list[Waiting], others: list[Waiting]) -> list[Waiting]:
        """The best batch on the way from the head alone to all that fit."""
        batches = [ranked[:1]]
        for entry in ranked[1:]:
            batches += [[*batches[-1], entry]] if self.admits([*batches[-1], entry]) else []
        for entry in others if len(batches[-1]) == len(ranked) else []:
            batches += [[*batches[-1], entry]] if self.admits([*batches[-1], entry]) else []
        return max(batches, key=self.gain_s)

    def batch(self, waiting: list[Waiting], late_turn: bool, threads: int) -> list[Waiting]:
        """The batch that the whole rule forms."""
        timely = sorted(filter(self.timely, waiting), key=lambda entry: (entry.deadline, entry.sequence))
        overdue = sorted((e for e in waiting if not e.strict and not self.timely(e)), key=lambda entry: entry.sequence)
        if overdue and (late_turn or not timely):
            return self.grown(overdue, timely)
        if not timely:
            return []
        urgent = self.grown(timely, overdue)
        full = Plainly(-math.inf, self.limits, self.profile).grown(timely, [])
        patient = [entry for entry in timely if entry.deadline >= self.now + self.median_s(full)]
        better = self.grown(patient, []) if patient else urgent
        least = PASSING_GAIN * self.efficiency(urgent)
        if self.efficiency(full) <= least or self.efficiency(better) <= least or len(urgent) == len(timely):
            return urgent
        slowdown = self.efficiency(better) * threads
        ends_s = accumulate(self.alone_s(entry) / slowdown for entry in timely)
        behind = any(self.now + end_s > entry.deadline for end_s, entry in zip(ends_s, timely, strict=True))
        return better if behind else urgent


PAYING = LatencyProfile((1, 8), (1, 64), ((0.1, 0.2), (0.11, 0.25)), sigma=0.1)
PRESSED = [Waiting(at, 8, NOW + (0.1115 + at / 10_000 if at < 8 else 0.2), True, NOW) for at in range(20)]
"""The first eight can wait for hardly any companion, the other twelve for a full batch."""
GUESTS = [Waiting(at, 8, NOW + budget_s, False, NOW) for at, budget_s in enumerate((-1.0, 0.114, 0.2, 0.2, 0.2, 0.2))]
"""A late entry, and what may run along with it: one that can wait for a small batch, and others."""


@given(queues(), limits_given, profiles(), st.booleans(), st.integers(1, 3))
@example(GUESTS, BatchLimits(8, 512, 0.5), PAYING, True, 1)
@example(PRESSED, BatchLimits(8, 512, 0.5), PAYING, False, 1)
@example(PRESSED, BatchLimits(8, 512, 0.5), PAYING, False, 9)
def test_the_rule_does_what_it_says(
    waiting: list[Waiting], limits: BatchLimits, profile: LatencyProfile, late_turn: bool, threads: int
) -> None:
    """The fast rule forms the same batch as its plain restatement."""
    formed = form_batch(waiting, NOW, limits, profile, late_turn=late_turn, threads=threads)
    plainly = Plainly(NOW, limits, profile)
    assert list(formed.entries) == plainly.batch(waiting, late_turn, threads)
    kinds = {plainly.timely(entry) for entry in waiting if entry not in formed.expired}
    assert formed.contested == (len(kinds) == 2)
    assert formed.late == (bool(formed.entries) and not plainly.timely(formed.entries[0]))


def test_the_most_urgent_are_passed_over_only_where_some_must_be_late() -> None:
    """The most urgent entries are passed over only if the engine cannot serve all in time and batching saves enough."""
    limits = BatchLimits(8, 512, 0.5)
    many = form_batch(PRESSED, NOW, limits, PAYING)
    assert [entry.sequence for entry in many.entries] == list(range(8, 16))
    assert form_batch(PRESSED, NOW, limits, PAYING, threads=9).entries[0].sequence == 0
    assert form_batch([*PRESSED[:2], *PRESSED[8:14]], NOW, limits, PAYING).entries[0].sequence == 0
    hardly_paying = LatencyProfile((1, 8), (1, 64), ((0.1, 0.2), (0.74, 1.5)), sigma=0.1)
    assert form_batch(PRESSED, NOW, limits, hardly_paying).entries[0].sequence == 0


@dataclass(frozen=True)
class CountedLimits(BatchLimits):
    """Limits that count how often they are asked."""

    asked: Counter[int] = field(default_factory=Counter)

    def admits(self, size: int, longest: int, real: int) -> bool:
        """Counts the question, then answers it."""
        self.asked[size] += 1
        return super().admits(size, longest, real)


@given(st.lists(st.tuples(st.integers(8, 60), st.floats(-0.5, 3.0), st.booleans()), min_size=200, max_size=200))
def test_a_long_queue_costs_no_more_than_a_look_at_each(rows: list[tuple[int, float, bool]]) -> None:
    """A batch from a long queue is grown by trying each length once per size, not each entry."""
    waiting = [
        Waiting(at + 200 * lap, tokens, NOW + budget_s, strict, NOW)
        for lap in range(5)
        for at, (tokens, budget_s, strict) in enumerate(rows)
    ]
    limits = CountedLimits(16, 2048, 0.15)
    form_batch(waiting, NOW, limits, RememberedMedians(PAYING))
    lengths = len({entry.tokens for entry in waiting})
    assert limits.asked.total() <= 3 * 2 * 16 * (lengths + 1)
