"""The share of late requests: it is guaranteed, and it is small."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

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
