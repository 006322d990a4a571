"""The scheduler in a rush, where more comes than can be met in the long run: how early the next run is sent."""

from __future__ import annotations

import pytest
from played_schedulers import Played, PlayedScheduler

from gateway.scheduling.scheduler import AHEAD_S, SHORT_IN_RUSH_S

TICK_S = 0.00015
"""A little more than the room may oversleep."""


def playing(one_s: float = 0.010, *, rush: bool) -> PlayedScheduler:
    """One request at a time, 20 of them there, the first of them let through; 400 came just before, or none."""
    play = PlayedScheduler((Played("only", one_s, 80.0, max_batch=1, slots=1),))
    if rush:
        flood(play)
    for _ in range(20):
        play.arrives(5.0)
    assert len(play.released) == 1
    return play


def flood(play: PlayedScheduler) -> None:
    """A thousand a second for 0.4 s: ten times what one core can do of 10 ms each."""
    for _ in range(400):
        play.now_s += 0.001
        play.arrivals.arrived(play.now_s, 5.0, 16)


def at(play: PlayedScheduler, now_s: float) -> int:
    """How many are let through then."""
    play.now_s = now_s
    return len(play.look())


def test_in_a_rush_the_next_run_is_sent_just_before_the_core_is_free() -> None:
    """By about a way to the replica, not earlier, and no more than one: what comes meanwhile may be more urgent."""
    play = playing(rush=True)
    ends_s = play.released[0].ends_s
    assert at(play, ends_s - 0.005) == 0
    assert at(play, ends_s - AHEAD_S - TICK_S) == 0
    assert at(play, ends_s - AHEAD_S + TICK_S) == 1
    assert at(play, ends_s - TICK_S) == 0


def test_in_quiet_a_run_of_some_length_is_waited_for() -> None:
    """Until it has ended, not only until it should have: who comes in the last moment can still go first."""
    play = playing(rush=False)
    first = play.released[0]
    assert at(play, first.ends_s - AHEAD_S + TICK_S) == 0
    assert at(play, first.ends_s + 0.002) == 0
    assert len(play.ends(first)) == 1


def test_the_room_asks_to_be_woken_for_it() -> None:
    """In a rush when the next can be sent, and not much later; in quiet only when the first who waits would be lost."""
    rush, quiet = playing(rush=True), playing(rush=False)
    wake_s, lost_s = rush.scheduler.wake_s(rush.now_s), quiet.scheduler.wake_s(quiet.now_s)
    assert wake_s is not None
    assert lost_s is not None
    due_s = rush.released[0].ends_s - AHEAD_S
    assert due_s <= wake_s <= due_s + TICK_S
    assert at(rush, wake_s) == 1
    assert lost_s > quiet.now_s + 4.9


@pytest.mark.parametrize(("one_s", "ahead"), [(0.9 * SHORT_IN_RUSH_S, 1), (1.1 * SHORT_IN_RUSH_S, 0)])
def test_past_a_length_even_a_rush_waits_for_the_end(one_s: float, ahead: int) -> None:
    """What is lost between two long runs is next to nothing of them, and what comes meanwhile may be more urgent."""
    play = playing(one_s, rush=True)
    assert at(play, play.released[0].ends_s - AHEAD_S + TICK_S) == ahead


def test_one_run_after_the_other_is_sent_ahead_as_long_as_the_rush_lasts() -> None:
    """Each begins before the one before it has ended: a core that always has the next at hand is never idle."""
    play = playing(rush=True)
    for place in range(5):
        running = play.released[place]
        assert at(play, running.ends_s - AHEAD_S + TICK_S) == 1
        play.now_s = running.ends_s
        assert play.ends(running) == []


def test_a_rush_that_is_over_is_over_for_the_room_as_well() -> None:
    """A second or two later runs of the same length are again waited for, though the mean rate tells of it yet."""
    play = playing(rush=True)
    while play.released[-1].left:
        play.ends(play.released[-1], 0.010)
    assert len(play.scheduler) == 0
    play.now_s += 1.5
    play.arrives(5.0)
    play.arrives(5.0)
    assert at(play, play.released[-1].ends_s - AHEAD_S + TICK_S) == 0
    assert len(play.ends(play.released[-1])) == 1


def test_a_crowd_for_a_moment_is_no_rush() -> None:
    """More at once than can be done in time, after long quiet: it passes, and runs are waited for as in quiet."""
    play = PlayedScheduler((Played("only", 0.010, 80.0, max_batch=1, slots=2),))
    for _ in range(30):
        play.arrives(0.045)
    assert len(play.released) == 1
    first = play.released[0]
    assert at(play, first.ends_s - AHEAD_S + TICK_S) == 0
