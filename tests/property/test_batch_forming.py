"""Laws of the batch-forming rule, for any queue, any limits and any profile, sensible or not."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.batch_forming import (
    OVERDUE_GRACE_S,
    Backlog,
    BatchLimits,
    RememberedMedians,
    Waiting,
    form_batch,
)
from gateway.profile import LatencyProfile

NOW = 100.0
unhurried = settings(deadline=None)  # the machine may be busy


@st.composite
def profiles(draw: st.DrawFn, least_s: float = 0.001) -> LatencyProfile:
    """Any grid of positive medians: a longer input or a larger batch may even be the faster one."""
    durations = st.floats(least_s, 0.5)
    medians = draw(st.tuples(*[st.tuples(durations, durations, durations)] * 3))
    return LatencyProfile((1, 2, 8), (1, 16, 64), medians, sigma=0.2)


@st.composite
def queues(draw: st.DrawFn) -> list[Waiting]:
    """Up to 30 entries, some overdue, some tied, some to be run alone."""
    budgets = st.one_of(st.floats(-3.0, 3.0), st.sampled_from([-1.0, 0.0, 0.5, 0.5, math.inf]))
    rows = st.tuples(st.integers(1, 80), budgets, st.booleans(), st.floats(0.0, 3.0), st.integers(0, 9))
    return [
        Waiting(sequence, tokens, NOW + budget, strict, NOW - age, alone=one_in_ten == 0)
        for sequence, (tokens, budget, strict, age, one_in_ten) in enumerate(draw(st.lists(rows, max_size=30)))
    ]


limits_given = st.builds(BatchLimits, st.integers(1, 12), st.integers(1, 400), st.floats(0.0, 0.6))


def late(entry: Waiting, profile: LatencyProfile) -> bool:
    """Whether it would miss its deadline even if it ran alone right now."""
    return NOW + profile.median_s(1, entry.tokens) > entry.deadline


def due(entry: Waiting, profile: LatencyProfile) -> float:
    """The instant by which the rule orders, restated."""
    return max(entry.deadline, entry.enqueued_at) + OVERDUE_GRACE_S if late(entry, profile) else entry.deadline


@unhurried
@given(queues(), limits_given, profiles(), st.randoms(use_true_random=False))
def test_the_order_of_the_list_does_not_matter(
    waiting: list[Waiting], limits: BatchLimits, profile: LatencyProfile, chance: random.Random
) -> None:
    """Permuting the waiting list, or remembering medians, gives the same batch and the same expired."""
    shuffled = chance.sample(waiting, len(waiting))
    assert form_batch(waiting, NOW, limits, profile) == form_batch(shuffled, NOW, limits, RememberedMedians(profile))


@unhurried
@given(queues(), limits_given, profiles())
def test_exactly_the_lost_expire(waiting: list[Waiting], limits: BatchLimits, profile: LatencyProfile) -> None:
    """Expired are the strict entries that cannot be in time, all of them and no other; none of them is run."""
    formed = form_batch(waiting, NOW, limits, profile)
    assert list(formed.expired) == [entry for entry in waiting if entry.strict and late(entry, profile)]
    assert not set(formed.entries) & set(formed.expired)
    assert set(formed.entries) <= set(waiting) and len(set(formed.entries)) == len(formed.entries)
    assert formed.entries or len(formed.expired) == len(waiting), "the engine idles while there is work"


@unhurried
@given(queues(), limits_given, profiles())
def test_the_head_is_the_most_urgent(waiting: list[Waiting], limits: BatchLimits, profile: LatencyProfile) -> None:
    """The head is due first of all that can still be run, and members stand in order of urgency."""
    formed = form_batch(waiting, NOW, limits, profile)
    order = sorted(
        (entry for entry in waiting if entry not in formed.expired),
        key=lambda entry: (due(entry, profile), entry.sequence),
    )
    assert list(formed.entries[:1]) == order[:1]
    assert [order.index(entry) for entry in formed.entries] == sorted(order.index(entry) for entry in formed.entries)


@unhurried
@given(queues(), limits_given, profiles())
def test_limits_always_hold(waiting: list[Waiting], limits: BatchLimits, profile: LatencyProfile) -> None:
    """A batch of several is within its inputs, its padded tokens and its padding waste, and holds no loner."""
    entries = form_batch(waiting, NOW, limits, profile).entries
    if len(entries) > 1:
        padded = len(entries) * max(entry.tokens for entry in entries)
        assert len(entries) <= limits.max_batch and padded <= limits.max_batch_tokens
        assert 1 - sum(entry.tokens for entry in entries) / padded <= limits.max_padding_waste + 1e-9
        assert not any(entry.alone for entry in entries)


@unhurried
@given(queues(), limits_given, profiles())
def test_companions_make_nobody_late(waiting: list[Waiting], limits: BatchLimits, profile: LatencyProfile) -> None:
    """By the median, a head that is in time stays in time, and every strict member is in time."""
    formed = form_batch(waiting, NOW, limits, profile)
    for entry in formed.entries:
        if entry.strict or (entry is formed.entries[0] and not late(entry, profile)):
            assert NOW + formed.median_s <= entry.deadline


@unhurried
@given(queues(), limits_given, profiles())
def test_a_batch_of_several_saves_time(waiting: list[Waiting], limits: BatchLimits, profile: LatencyProfile) -> None:
    """A batch of several takes less time by the profile than its entries one by one; the times it states are true."""
    formed = form_batch(waiting, NOW, limits, profile)
    if formed.entries:
        longest = max(entry.tokens for entry in formed.entries)
        assert formed.median_s == profile.median_s(len(formed.entries), longest)
        assert formed.alone_s == pytest.approx(sum(profile.median_s(1, entry.tokens) for entry in formed.entries))
        assert formed.median_s < formed.alone_s or len(formed.entries) == 1


@given(
    profiles(least_s=0.05), limits_given, st.integers(1, 80), st.floats(-2.0, 2.0), st.floats(0.0, 0.5), st.booleans()
)
@settings(max_examples=40, deadline=None)
def test_best_effort_work_does_not_starve(
    profile: LatencyProfile, limits: BatchLimits, tokens: int, budget_s: float, urgency_s: float, mixed: bool
) -> None:
    """Under a stream of urgent arrivals an overdue best-effort entry starts within its grace and one run more.

    Where the stream is best-effort too, only what had arrived by the end of the grace can be before it.
    """
    victim = Waiting(0, tokens, NOW + budget_s, False, NOW)
    grace_ends = max(victim.deadline, NOW) + OVERDUE_GRACE_S
    waiting, now, longest_s = [victim], NOW, 0.0
    for arrival in itertools.count(1):
        strict = not mixed or arrival % 3 != 0
        waiting.append(Waiting(arrival, 1 + arrival * 7 % 64, now + urgency_s, strict, now))
        if arrival % 3:
            continue
        formed = form_batch(waiting, now, limits, profile)
        assert now <= grace_ends or formed.entries[0].enqueued_at <= grace_ends
        assert mixed or now <= grace_ends + longest_s
        if victim in formed.entries:
            break
        gone = {*formed.entries, *formed.expired}
        waiting = [entry for entry in waiting if entry not in gone]
        longest_s = max(longest_s, formed.median_s)
        now += formed.median_s


@unhurried
@given(queues(), profiles(), limits_given)
def test_the_backlog_is_a_true_running_sum(
    waiting: list[Waiting], profile: LatencyProfile, limits: BatchLimits
) -> None:
    """Whatever came and left, the backlog is that of what waits: exactly 0 for nothing, at most its time one by one."""
    backlog = Backlog(profile)
    for entry in waiting:
        backlog.enter(entry)
    alone_s = sum(profile.median_s(1, entry.tokens) for entry in waiting)
    assert backlog.waiting_s == pytest.approx(alone_s) and backlog.queued == len(waiting)
    formed = form_batch(waiting, NOW, limits, profile)
    for entry in (*formed.entries, *formed.expired):
        backlog.leave(entry)
    if formed.entries:
        backlog.learn(formed)
        assert 0.0 <= backlog.waiting_s <= alone_s
    for entry in set(waiting) - {*formed.entries, *formed.expired}:
        backlog.leave(entry)
    assert backlog.waiting_s == 0.0 and backlog.queued == 0


def test_an_entry_that_must_run_alone_takes_no_companion() -> None:
    """What its batch failed with is told apart: neither head nor companion shares its run."""
    profile = LatencyProfile((1, 8), (16,), ((0.01,), (0.02,)), sigma=0.1)
    limits = BatchLimits(8, 1024, 0.3)
    alike = [Waiting(sequence, 16, NOW + 1, True, NOW) for sequence in range(4)]
    assert len(form_batch(alike, NOW, limits, profile).entries) == 4
    assert form_batch([replace(alike[0], alone=True), *alike[1:]], NOW, limits, profile).entries[0].alone
    assert len(form_batch([replace(alike[0], alone=True), *alike[1:]], NOW, limits, profile).entries) == 1
    assert len(form_batch([alike[0], replace(alike[1], alone=True), *alike[2:]], NOW, limits, profile).entries) == 3
