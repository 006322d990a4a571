"""Laws of the batch-forming rule, for any queue, any limits and any profile, sensible or not."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from deployments.replica.batch_forming import (
    HOLDING_PRICE,
    Backlog,
    BatchLimits,
    RememberedMedians,
    Waiting,
    form_batch,
)
from drawn_queues import NOW, limits_given, profiles, queues
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.profile import LatencyProfile


def late(entry: Waiting, profile: LatencyProfile) -> bool:
    """True if the entry would miss its deadline even if it ran alone right now."""
    return NOW + profile.median_s(1, entry.tokens) > entry.deadline


@given(queues(), limits_given, profiles(), st.randoms(use_true_random=False))
def test_the_order_of_the_list_does_not_matter(
    waiting: list[Waiting], limits: BatchLimits, profile: LatencyProfile, chance: random.Random
) -> None:
    """The order of the waiting list does not change the batch or what expires, nor do remembered medians."""
    shuffled = chance.sample(waiting, len(waiting))
    assert form_batch(waiting, NOW, limits, profile) == form_batch(shuffled, NOW, limits, RememberedMedians(profile))


@given(queues(), limits_given, profiles())
def test_exactly_the_lost_expire(waiting: list[Waiting], limits: BatchLimits, profile: LatencyProfile) -> None:
    """Exactly the strict entries that cannot be in time expire, and none of them is run."""
    formed = form_batch(waiting, NOW, limits, profile)
    assert list(formed.expired) == [entry for entry in waiting if entry.strict and late(entry, profile)]
    assert not set(formed.entries) & set(formed.expired)
    assert set(formed.entries) <= set(waiting) and len(set(formed.entries)) == len(formed.entries)
    assert formed.entries or len(formed.expired) == len(waiting), "the engine idles while there is work"


@given(queues(), limits_given, profiles(), st.booleans())
def test_the_head_is_the_most_urgent(
    waiting: list[Waiting], limits: BatchLimits, profile: LatencyProfile, late_turn: bool
) -> None:
    """The head of a batch is due first of those that can be in time, if all can; its members stay in order.

    Late entries run after those, unless it is their share of the engine: then the oldest of them is the head.
    """
    formed = form_batch(waiting, NOW, limits, profile, late_turn=late_turn)
    overdue = [entry for entry in waiting if late(entry, profile) and not entry.strict]
    timely = sorted(
        (entry for entry in waiting if not late(entry, profile)), key=lambda entry: (entry.deadline, entry.sequence)
    )
    order = [*overdue, *timely] if late_turn else [*timely, *overdue]
    assert [order.index(entry) for entry in formed.entries] == sorted(order.index(entry) for entry in formed.entries)
    ends = itertools.accumulate((profile.median_s(1, entry.tokens) for entry in timely), initial=NOW)
    unhurt = all(end <= entry.deadline for end, entry in zip(list(ends)[1:], timely, strict=True))
    if unhurt or (late_turn and overdue):
        assert list(formed.entries[:1]) == order[:1]
    if not late_turn and set(formed.entries) & set(overdue):
        assert set(formed.entries) >= set(timely)


@given(queues(), limits_given, profiles())
def test_limits_always_hold(waiting: list[Waiting], limits: BatchLimits, profile: LatencyProfile) -> None:
    """A batch of several keeps the limits on inputs, padded tokens and padding waste, and has no `alone` entry."""
    entries = form_batch(waiting, NOW, limits, profile).entries
    if len(entries) > 1:
        padded = len(entries) * max(entry.tokens for entry in entries)
        assert len(entries) <= limits.max_batch and padded <= limits.max_batch_tokens
        assert 1 - sum(entry.tokens for entry in entries) / padded <= limits.max_padding_waste + 1e-9
        assert not any(entry.alone for entry in entries)


@given(queues(), limits_given, profiles(), st.booleans())
def test_companions_make_nobody_late(
    waiting: list[Waiting], limits: BatchLimits, profile: LatencyProfile, late_turn: bool
) -> None:
    """An entry that could be in time alone is also in time, by the median, in the batch that it is put in."""
    formed = form_batch(waiting, NOW, limits, profile, late_turn=late_turn)
    for entry in formed.entries:
        assert late(entry, profile) or NOW + formed.median_s <= entry.deadline


@given(queues(), limits_given, profiles())
def test_a_batch_of_several_saves_time(waiting: list[Waiting], limits: BatchLimits, profile: LatencyProfile) -> None:
    """A batch of several takes less time than its entries alone, by at least a tenth of the time it adds for the head.

    The times that it states are those of the profile.
    """
    formed = form_batch(waiting, NOW, limits, profile)
    if formed.entries:
        longest = max(entry.tokens for entry in formed.entries)
        assert formed.median_s == profile.median_s(len(formed.entries), longest)
        assert formed.alone_s == pytest.approx(sum(profile.median_s(1, entry.tokens) for entry in formed.entries))
        assert formed.median_s < formed.alone_s or len(formed.entries) == 1
        held_s = formed.median_s - profile.median_s(1, formed.entries[0].tokens)
        assert formed.alone_s - formed.median_s >= HOLDING_PRICE * held_s - 1e-9


@given(queues(), profiles(), limits_given, st.booleans())
def test_the_backlog_is_a_true_running_sum(
    waiting: list[Waiting], profile: LatencyProfile, limits: BatchLimits, late_turn: bool
) -> None:
    """The backlog is always the amortised time of the waiting entries that are not late, and exactly 0 without any."""
    backlog = Backlog(profile)
    for entry in waiting:
        backlog.enter(entry)
    alone_s = sum(profile.median_s(1, entry.tokens) for entry in waiting)
    assert backlog.waiting_s == pytest.approx(alone_s) and backlog.queued == len(waiting)
    formed = form_batch(waiting, NOW, limits, profile, late_turn=late_turn)
    for entry in (*formed.entries, *formed.expired):
        backlog.leave(entry)
    if formed.entries:
        backlog.learn(formed)
        left = set(waiting) - {*formed.entries, *formed.expired}
        timely_s = sum(profile.median_s(1, entry.tokens) for entry in left if not late(entry, profile))
        share = 1 - 0.1 * (1 - formed.median_s / formed.alone_s)
        assert backlog.waiting_s == pytest.approx(share * timely_s)
    for entry in set(waiting) - {*formed.entries, *formed.expired}:
        backlog.leave(entry)
    assert backlog.waiting_s == 0.0 and backlog.queued == 0


def test_an_entry_that_must_run_alone_takes_no_companion() -> None:
    """An entry that must run alone shares no batch, neither as head nor as companion, so that a failure is its own."""
    profile = LatencyProfile((1, 8), (16,), ((0.01,), (0.02,)), sigma=0.1)
    limits = BatchLimits(8, 1024, 0.3)
    length_bucket = [Waiting(sequence, 16, NOW + 1, True, NOW) for sequence in range(4)]
    assert len(form_batch(length_bucket, NOW, limits, profile).entries) == 4
    assert (
        form_batch([replace(length_bucket[0], alone=True), *length_bucket[1:]], NOW, limits, profile).entries[0].alone
    )
    assert (
        len(form_batch([replace(length_bucket[0], alone=True), *length_bucket[1:]], NOW, limits, profile).entries) == 1
    )
    assert (
        len(
            form_batch(
                [length_bucket[0], replace(length_bucket[1], alone=True), *length_bucket[2:]], NOW, limits, profile
            ).entries
        )
        == 3
    )
