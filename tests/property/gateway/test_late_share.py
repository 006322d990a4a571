"""The share of late requests: it is guaranteed, it is small, and it costs little goodput under overload."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import count, islice, pairwise

import pytest
from deployments.replica.batch_forming import BatchLimits, MedianTimes, RememberedMedians, Waiting, form_batch
from hypothesis import given
from hypothesis import strategies as st
from tried import tried

from gateway.model.profile import LatencyProfile
from gateway.scheduling.late_share import LATE_SHARE, LateShare

durations_s = st.one_of(st.floats(0.001, 0.5), st.floats(0.001, 0.01))
runs_given = st.lists(st.tuples(durations_s, durations_s), min_size=1, max_size=300)


@given(runs_given, st.sampled_from([0.0, 0.02]))
def test_while_both_kinds_wait_the_late_have_their_share_and_no_more(
    runs: list[tuple[float, float]], earned_s: float
) -> None:
    """Late batches take at most their share of the time, plus one batch, and never two turns in a row.

    Between two of their turns the others run no longer than pays for that turn and what must be earned, plus one batch.
    """
    share, turns, others_s = LateShare(earned_s=earned_s), list[bool](), 0.0
    theirs_s, since_s, paid_s, longest_s = 0.0, 0.0, 0.0, max(run for run, _ in runs)
    for timely_s, overdue_s in runs:
        turns.append(share.turn)
        if share.turn:
            assert theirs_s <= LATE_SHARE * (theirs_s + others_s) + 1e-9
            theirs_s, since_s, paid_s = theirs_s + overdue_s, 0.0, overdue_s
        else:
            others_s, since_s = others_s + timely_s, since_s + timely_s
        share.ran(overdue_s if turns[-1] else timely_s, late=turns[-1], contested=True)
        assert since_s <= ((1 - LATE_SHARE) * paid_s + earned_s) / LATE_SHARE + longest_s + 1e-6
    assert not any(one and other for one, other in pairwise(turns))


@given(runs_given)
def test_a_quiet_hour_earns_the_late_no_claim(runs: list[tuple[float, float]]) -> None:
    """Batches that run while no request is late earn no share, and late batches on an idle engine use none."""
    share = LateShare()
    for timely_s, overdue_s in runs:
        share.ran(timely_s, late=False, contested=False)
        share.ran(overdue_s, late=True, contested=False)
        assert not share.turn
    share.ran(0.001, late=False, contested=True)
    assert share.turn


PAYING = LatencyProfile((1, 16), (8, 64), ((0.004, 0.005), (0.005, 0.012)), sigma=0.1)
FLAT = LatencyProfile((1, 16), (8, 64), ((0.001, 0.004), (0.012, 0.06)), sigma=0.1)
LIMITS = BatchLimits(max_batch=16, max_batch_tokens=2048, max_padding_waste=0.15)


@dataclass
class Offering:
    """One engine and open-loop arrivals at a rate; counts the answers in time."""

    profile: MedianTimes
    rate: float
    budgets_s: tuple[float, float]
    strict: bool
    most_waiting: int
    chance: random.Random = field(default_factory=lambda: random.Random(7))
    in_time: int = 0
    now: float = 0.0

    def last(self, seconds: float) -> None:
        """Run until this time."""
        waiting: dict[int, Waiting] = {}
        share, arrives, sequence = LateShare(), 0.0, 0
        while self.now < seconds:
            while arrives <= self.now:
                tokens, budget_s = self.chance.randint(8, 64), self.chance.uniform(*self.budgets_s)
                if len(waiting) < self.most_waiting:
                    waiting[sequence] = Waiting(sequence, tokens, arrives + budget_s, self.strict, arrives)
                sequence, arrives = sequence + 1, arrives + self.chance.expovariate(self.rate)
            formed = form_batch(waiting.values(), self.now, LIMITS, self.profile, late_turn=share.turn)
            for entry in (*formed.expired, *formed.entries):
                del waiting[entry.sequence]
            share.ran(formed.median_s, late=formed.late, contested=formed.contested)
            self.in_time += sum(self.now + formed.median_s <= entry.deadline for entry in formed.entries)
            self.now = max(self.now + formed.median_s, 0.0 if formed.entries else arrives)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("profile", "enough"), [(PAYING, 1500), (FLAT, 500)])
@pytest.mark.parametrize("most_waiting", [400, 100_000])
def test_goodput_under_overload_stays_at_nine_tenths_of_the_most(
    profile: LatencyProfile, enough: float, strict: bool, most_waiting: int
) -> None:
    """An overload of ten times the capacity costs at most a tenth of the goodput, strict or not, for any queue."""
    medians, most = RememberedMedians(profile), 0
    for times in (0.5, 1.0, 2.0):
        offering = Offering(medians, times * enough, (0.05, 0.2), strict, most_waiting)
        offering.last(1.5)
        most = max(most, offering.in_time)
    offering = Offering(medians, 10 * enough, (0.05, 0.2), strict, most_waiting)
    offering.last(1.5 if most_waiting < 1_000 else 0.6)
    assert offering.in_time / offering.now >= 0.9 * most / 1.5


@given(st.integers(0, 5), st.integers(8, 64), st.floats(-0.5, 0.0), st.booleans(), st.sampled_from([PAYING, FLAT]))
@tried(0.7)
def test_late_work_does_not_starve(
    older: int, tokens: int, budget_s: float, strict: bool, profile: LatencyProfile
) -> None:
    """A late request starts in bounded time, however many others arrive.

    The bound is one turn for it and for each older late request; between two turns lie 1 / share turns and two batches.
    """
    waiting = [Waiting(at, 64 - 8 * at, budget_s, False, 0.0) for at in range(older)]
    victim = Waiting(older, tokens, budget_s, False, 0.0)
    waiting, share, now, turn_s, run_s = [*waiting, victim], LateShare(), 0.0, 0.0, 0.0
    arrivals = count(older + 1)
    while victim in waiting:
        assert now <= (older + 1) * (turn_s / LATE_SHARE + 2 * run_s)
        waiting += [Waiting(at, 8 + at % 57, now + 0.07, strict, now) for at in islice(arrivals, 9)]
        formed = form_batch(waiting, now, LIMITS, profile, late_turn=share.turn)
        share.ran(formed.median_s, late=formed.late, contested=formed.contested)
        gone = {*formed.entries, *formed.expired}
        waiting = [entry for entry in waiting if entry not in gone]
        now, run_s = now + formed.median_s, max(run_s, formed.median_s)
        turn_s = max(turn_s, formed.median_s * formed.late)
