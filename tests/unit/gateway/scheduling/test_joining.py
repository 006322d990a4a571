"""Requests that join others under way, on checkpoints whose texts share steps: who may, and who makes nobody late."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from played_queues import Played, PlayedQueue

from gateway.tasks.service_time import StepSharing

ONE_S = 0.1
READ_S = 0.01
SHARING = StepSharing(lambda tokens: READ_S, lambda rows: (1 + rows) / 2)
"""A prompt takes 10 ms to read, and a step of two takes half as long again as one of one."""


def writing(cores: float = 2.0, most: int = 4) -> PlayedQueue:
    """Return a queue of one checkpoint that takes both cores, and up to four texts together; one takes 100 ms."""
    return PlayedQueue((Played("only", ONE_S, 80.0, max_batch=most, threads=2, slots=1, joins=SHARING),), cores)


def test_a_request_joins_those_under_way() -> None:
    """Though no core is free a request begins, on no core of its own, and all take as long as so many take."""
    play = writing()
    play.arrives(9.0)
    play.arrives(9.0)
    first, second = play.released
    assert (second.threads, second.joined) == (0, 1)
    assert second.ends_s == pytest.approx(play.now_s + 1.5 * ONE_S)
    assert first.ends_s == pytest.approx(play.now_s + 1.5 * ONE_S + READ_S)


def test_no_more_join_than_may_step_together() -> None:
    """Others wait until one of them has ended."""
    play = writing()
    for _ in range(6):
        play.arrives(9.0)
    assert [batch.joined for batch in play.released] == [0, 1, 2, 3] and len(play.queue) == 2
    play.ends(play.released[1], 0.05)
    assert [batch.joined for batch in play.released] == [0, 1, 2, 3, 3] and len(play.queue) == 1


def test_a_request_is_told_that_it_joins_only_where_all_its_texts_may() -> None:
    """A request of several texts is forecast in company where there are rows for all of them, else behind it."""
    play = writing()
    (checkpoint,) = play.checkpoints
    assert play.queue.joinable(checkpoint, 1) is None, "nobody to join"
    play.arrives(9.0)
    assert [play.queue.joinable(checkpoint, own) for own in (1, 3, 4)] == [1, 1, None]


def test_one_that_has_joined_keeps_the_cores_of_one_that_ends() -> None:
    """While texts step, their cores count as busy, whoever began."""
    play = writing()
    play.arrives(9.0)
    play.arrives(9.0)
    first, second = play.released
    play.ends(first, 0.05)
    assert second.threads == 2 and not play.queue.idle
    play.ends(second, 0.05)
    assert play.queue.idle


def test_nobody_joins_who_would_make_a_timely_text_late() -> None:
    """A text that is just in time alone is left alone; the other waits for its end."""
    play = writing()
    play.arrives(1.3 * ONE_S)
    waiting = play.arrives(9.0)
    assert play.where(waiting) == "waits"
    play.ends(play.released[0], ONE_S)
    assert play.where(waiting) == "released" and play.released[1].threads == 2


def test_nobody_joins_who_would_be_late_by_it() -> None:
    """A request for which company is too slow waits for a core of its own."""
    play = writing()
    play.arrives(9.0)
    assert play.where(play.arrives(1.4 * ONE_S)) == "waits"


def test_where_texts_do_not_share_steps_nobody_joins() -> None:
    """A run that has begun takes nobody in."""
    play = PlayedQueue((Played("only", ONE_S, 80.0, max_batch=4, threads=2, slots=1),), 2.0)
    play.arrives(9.0)
    assert play.where(play.arrives(9.0)) == "waits"


def test_who_cannot_join_is_not_passed_over_for_ever() -> None:
    """While the most urgent request cannot join, nobody else does: the cores become free for it."""
    play = PlayedQueue(
        (
            Played("joined", ONE_S, 80.0, max_batch=4, threads=2, slots=1, joins=SHARING),
            Played("other", ONE_S, 70.0, max_batch=1, threads=2, slots=1),
        ),
        2.0,
    )
    play.arrives(9.0, 1, False, "joined")
    pinned = play.arrives(1.0, 1, False, "other")
    for _ in range(5):
        play.arrives(8.0, 1, False, "joined")
        play.now_s += 0.02
    assert play.where(pinned) == "waits" and len(play.released) == 1
    play.ends(play.released[0])
    assert play.where(pinned) == "released"


def test_those_who_go_on_are_expected_sooner_once_others_have_ended() -> None:
    """The end of one of two halves what is left of the other by its part of the steps."""
    play = writing()
    play.arrives(9.0)
    play.arrives(9.0)
    first, second = play.released
    left_s = second.ends_s - play.now_s
    play.ends(first)
    assert second.ends_s == pytest.approx(play.now_s + left_s / 1.5)


def test_no_more_texts_join_than_there_are_rows() -> None:
    """A request of several texts joins only if all of them may step."""
    play = writing()
    play.arrives(9.0)
    assert play.where(play.arrives(9.0, texts=4)) == "waits"
    play = writing()
    play.arrives(9.0)
    assert play.where(play.arrives(9.0, texts=3)) == "released"


@given(st.lists(st.tuples(st.floats(0.05, 3.0), st.floats(0.0, 0.2), st.booleans()), min_size=1, max_size=30))
def test_whoever_was_expected_in_time_still_is(arrivals: list[tuple[float, float, bool]]) -> None:
    """No arrival moves the expected end of a batch behind a deadline that it would have met; each request ends once."""
    play = writing()
    for budget_s, after_s, ends in arrivals:
        met = [one for one in play.released if one.left and one.ends_s <= one.members[0].deadline_s]
        play.arrives(budget_s)
        assert all(one.ends_s <= one.members[0].deadline_s for one in met)
        busy = [one for one in play.released if one.left]
        assert sum(one.threads for one in busy) == (2 if busy else 0)
        assert sum(one.texts for one in busy) <= 4
        play.now_s += after_s
        if ends and busy:
            play.ends(busy[0])
    while busy := [one for one in play.released if one.left]:
        play.ends(busy[0], 0.3)
    members = [member for one in play.released for member in one.members]
    assert len(members) == len(set(members)) and len(members) + len(play.lost) + len(play.queue) == len(arrivals)
