"""The rule that forms the next batch, case by case."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from planned_checkpoints import PlannedCheckpoint

from gateway.scheduling.batching import QueuedRequest, SchedulingContext, next_batch, run_s_of

NOW_S = 10.0

FAST, GOOD = PlannedCheckpoint("fast", 80.0, 0.004, 0.001), PlannedCheckpoint("good", 90.0, 0.010, 0.005)


def _waiting(*available_times_s: float) -> list[QueuedRequest]:
    return [QueuedRequest(place, NOW_S + available_s, (50,)) for place, available_s in enumerate(available_times_s)]


def _moment(price: float = 0.0, utility_left: float = 50.0, crowded: bool = True) -> SchedulingContext:
    return SchedulingContext(NOW_S, price, utility_left, crowded, 0, math.inf, 0.0, 0.004, (0.1,))


def test_where_time_is_free_the_best_that_fits_is_given() -> None:
    """At a price of 0 a request gets the best checkpoint that its deadline allows."""
    patient, pressed = (
        next_batch(_waiting(0.1), [FAST, GOOD], _moment()),
        next_batch(_waiting(0.01), [FAST, GOOD], _moment()),
    )
    assert patient is not None
    assert pressed is not None
    assert (patient.checkpoint, pressed.checkpoint) == (GOOD, FAST)


def test_where_time_is_dear_the_cheap_is_given() -> None:
    """Ten points for ten milliseconds are bought below a price of a point a millisecond, and not above."""
    below, above = (next_batch(_waiting(0.1), [FAST, GOOD], _moment(price)) for price in (990.0, 1010.0))
    assert below is not None
    assert above is not None
    assert (below.checkpoint, above.checkpoint) == (GOOD, FAST)


def test_companions_join_while_the_most_urgent_stays_in_time() -> None:
    """A batch grows until the most urgent of its requests would be late."""
    choice = next_batch(_waiting(0.0075, 0.2, 0.2, 0.2, 0.2), [FAST], _moment(1000.0))
    assert choice is not None
    assert [held.place for held in choice.members] == [0, 1, 2]
    assert choice.run_s == pytest.approx(0.007)


def test_of_sizes_alike_the_larger_is_run() -> None:
    """At a price of 0, where every batch size gains equally, the largest is run."""
    choice = next_batch(_waiting(0.2, 0.2, 0.2), [GOOD], _moment())
    assert choice is not None
    assert len(choice.members) == 3


def test_in_a_crowd_the_too_urgent_are_passed_over() -> None:
    """In a crowd a full batch of patient requests goes before a small one of urgent requests."""
    waiting = _waiting(0.0055, *[0.2] * 8)
    crowded = next_batch(waiting, [FAST], _moment(8000.0, utility_left=0.0))
    calm = next_batch(waiting, [FAST], _moment(8000.0))
    assert crowded is not None
    assert calm is not None
    assert [held.place for held in crowded.members] == list(range(1, 9))
    assert [held.place for held in calm.members] == [0]


def test_in_a_crowd_nobody_shares_a_run_that_keeps_newcomers_too_long() -> None:
    """In a crowd a batch of several takes at most two thirds of the median budget, whatever a longer one would gain."""
    crowd = replace(_moment(100.0, utility_left=0.0), budgets_s=(0.01, 0.1, 9.0))
    slow, waiting = PlannedCheckpoint("slow", 90.0, fixed_s=0.02, each_s=0.02), _waiting(*[0.5] * 8)
    shared, whole, calm = (
        next_batch(waiting, [slow], context)
        for context in (crowd, replace(crowd, budgets_s=(0.01, 9.0, 9.0)), replace(crowd, utility_left=50.0))
    )
    assert shared is not None
    assert whole is not None
    assert calm is not None
    assert (len(shared.members), len(whole.members), len(calm.members)) == (2, 8, 8)
    assert shared.run_s == pytest.approx(0.06)


def test_in_a_crowd_one_long_run_is_better_than_none() -> None:
    """In a crowd, where even a batch of one takes more than two thirds of the median budget, one request goes alone."""
    endless = PlannedCheckpoint("endless", 90.0, fixed_s=0.2, each_s=0.001)
    choice = next_batch(_waiting(*[0.5] * 8), [endless], _moment(100.0, utility_left=0.0))
    assert choice is not None
    assert choice.gain > 0
    assert len(choice.members) == 1


def test_a_crowd_is_served_together_however_much_cheaper_that_is_than_alone() -> None:
    """In a crowd a batch is formed whose requests would not be worth their core time alone."""
    frugal = PlannedCheckpoint("frugal", 80.0, fixed_s=0.01, each_s=0.0005, max_batch=16)
    bargain = 80.0 * 16 / frugal.run_s(16, 50)
    choice = next_batch(_waiting(*[0.2] * 16), [frugal], _moment(bargain, utility_left=0.0))
    assert choice is not None
    assert len(choice.members) == 16


def test_who_cannot_be_sure_to_be_in_time_lets_the_others_go_first() -> None:
    """A request that is unlikely to be in time delays no other: it runs last, alone on the fastest checkpoint."""
    first, last = (next_batch(queue, [FAST, GOOD], _moment()) for queue in (_waiting(0.001, 0.2), _waiting(0.001)))
    assert first is not None and last is not None
    assert (first.checkpoint, [held.place for held in first.members]) == (GOOD, [1])
    assert (last.checkpoint, [held.place for held in last.members]) == (FAST, [0])


def test_what_may_come_and_cannot_wait_is_reckoned_with() -> None:
    """A long batch is not run on the last free core when urgent arrivals are expected."""
    slow = PlannedCheckpoint("slow", 90.0, 0.2, 0.0)
    burst = replace(_moment(), rate=10.0)
    quiet, busy = (next_batch(_waiting(1.0), [FAST, slow], context) for context in (_moment(), burst))
    spare = next_batch(_waiting(1.0), [FAST, slow], replace(burst, others=7, next_free_s=0.0))
    assert quiet is not None
    assert busy is not None
    assert spare is not None
    assert (quiet.checkpoint, busy.checkpoint, spare.checkpoint) == (slow, FAST, slow)


@pytest.mark.parametrize(("rate", "chosen"), [(10.0, "slow"), (180.0, "fast"), (400.0, "fast")])
def test_a_core_that_is_soon_free_does_not_make_up_for_one_that_is_kept(rate: float, chosen: str) -> None:
    """A long batch is not run beside another core that is soon free, if that one will have more to do than it can."""
    slow = PlannedCheckpoint("slow", 90.0, 0.4, 0.0)
    context = replace(_moment(), rate=rate, others=1, next_free_s=0.005, budgets_s=(0.02, 1.0))
    choice = next_batch(_waiting(1.0), [FAST, slow], context)
    assert choice is not None and choice.checkpoint.name == chosen


def test_nobody_is_given_what_its_terms_forbid() -> None:
    """A request never gets a checkpoint that its terms forbid, and others do not wait behind it."""
    bound, free = (
        QueuedRequest(0, NOW_S + 0.1, (50,), eligible=frozenset({"good"})),
        QueuedRequest(1, NOW_S + 0.2, (50,)),
    )
    assert next_batch([bound], [FAST], _moment()) is None
    choice = next_batch([bound, free], [FAST], _moment())
    assert choice is not None
    assert choice.members == (free,)


def test_texts_past_the_largest_run_take_several() -> None:
    """Ten texts on a checkpoint with batches of eight cost one batch of eight and one of two."""
    many = QueuedRequest(0, NOW_S + 1.0, (50,), texts=10)
    assert run_s_of(FAST, (many,)) == pytest.approx(FAST.run_s(8, 50) + FAST.run_s(2, 50))
    assert run_s_of(FAST, (many, QueuedRequest(1, NOW_S, (50,), texts=6))) == pytest.approx(2 * FAST.run_s(8, 50))
