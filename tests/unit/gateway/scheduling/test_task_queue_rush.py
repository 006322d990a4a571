"""A task's queue in a rush, when more arrives than can be served in the long run: how early a batch is sent."""

from __future__ import annotations

import pytest
from played_queues import Played, PlayedQueue

from gateway.scheduling.task_queue import AHEAD_S, SHORT_IN_RUSH_S

TICK_S = 0.00015
"""A little more than the scheduler may oversleep."""


def playing(one_s: float = 0.010, *, rush: bool) -> PlayedQueue:
    """Return a queue with 20 queued requests, the first of them running; in a rush, 400 came just before."""
    play = PlayedQueue((Played("only", one_s, 80.0, max_batch=1, slots=1),))
    if rush:
        flood(play)
    for _ in range(20):
        play.arrives(5.0)
    assert len(play.released) == 1
    return play


def flood(play: PlayedQueue) -> None:
    """Record 1000 arrivals a second for 0.4 s: ten times what one core can serve at 10 ms each."""
    for _ in range(400):
        play.now_s += 0.001
        play.arrivals.arrived(play.now_s, 5.0, (16,))


def at(play: PlayedQueue, now_s: float) -> int:
    """Return how many batches begin at this time."""
    play.now_s = now_s
    return len(play.look())


def test_in_a_rush_the_next_run_is_sent_just_before_the_core_is_free() -> None:
    """In a rush the next batch is sent one trip to the replica before the core is free, not earlier, and only one."""
    play = playing(rush=True)
    ends_s = play.released[0].ends_s
    assert at(play, ends_s - 0.005) == 0
    assert at(play, ends_s - AHEAD_S - TICK_S) == 0
    assert at(play, ends_s - AHEAD_S + TICK_S) == 1
    assert at(play, ends_s - TICK_S) == 0


def test_in_quiet_a_run_of_some_length_is_waited_for() -> None:
    """Without a rush the next batch waits until this one has really ended, so a late urgent request can go first."""
    play = playing(rush=False)
    first = play.released[0]
    assert at(play, first.ends_s - AHEAD_S + TICK_S) == 0
    assert at(play, first.ends_s + 0.002) == 0
    assert len(play.ends(first)) == 1


def test_the_queue_asks_to_be_woken_for_it() -> None:
    """In a rush the queue asks to be woken to send the next batch; otherwise only when a request would be lost."""
    rush, quiet = playing(rush=True), playing(rush=False)
    wake_s, lost_s = rush.queue.wake_s(rush.now_s), quiet.queue.wake_s(quiet.now_s)
    assert wake_s is not None
    assert lost_s is not None
    due_s = rush.released[0].ends_s - AHEAD_S
    assert due_s <= wake_s <= due_s + TICK_S
    assert at(rush, wake_s) == 1
    assert lost_s > quiet.now_s + 4.9


@pytest.mark.parametrize(("one_s", "ahead"), [(0.9 * SHORT_IN_RUSH_S, 1), (1.1 * SHORT_IN_RUSH_S, 0)])
def test_past_a_length_even_a_rush_waits_for_the_end(one_s: float, ahead: int) -> None:
    """Even in a rush a long batch is waited for: the idle gap after it is small beside its length."""
    play = playing(one_s, rush=True)
    assert at(play, play.released[0].ends_s - AHEAD_S + TICK_S) == ahead


def test_one_run_after_the_other_is_sent_ahead_as_long_as_the_rush_lasts() -> None:
    """Throughout a rush each batch is sent before the last one ends, so the core is never idle."""
    play = playing(rush=True)
    for place in range(5):
        running = play.released[place]
        assert at(play, running.ends_s - AHEAD_S + TICK_S) == 1
        play.now_s = running.ends_s
        assert play.ends(running) == []


def test_a_rush_that_is_over_is_over_for_the_queue_as_well() -> None:
    """A second or two after a rush, batches are waited for again, although the mean rate is still high."""
    play = playing(rush=True)
    while play.released[-1].left:
        play.ends(play.released[-1], 0.010)
    assert len(play.queue) == 0
    play.now_s += 1.5
    play.arrives(5.0)
    play.arrives(5.0)
    assert at(play, play.released[-1].ends_s - AHEAD_S + TICK_S) == 0
    assert len(play.ends(play.released[-1])) == 1


def test_a_crowd_for_a_moment_is_no_rush() -> None:
    """A burst after long quiet is not a rush: batches are waited for, although not all can be in time."""
    play = PlayedQueue((Played("only", 0.010, 80.0, max_batch=1, slots=2),))
    for _ in range(30):
        play.arrives(0.045)
    assert len(play.released) == 1
    first = play.released[0]
    assert at(play, first.ends_s - AHEAD_S + TICK_S) == 0
