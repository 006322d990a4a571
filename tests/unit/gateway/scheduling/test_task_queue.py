"""A task's queue: which requests run first, which share a batch, which are given up, and how late ones are served."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from played_queues import Played, PlayedQueue

from gateway.scheduling.batching import QueuedRequest, late_batch
from gateway.scheduling.task_queue import LATE_CORE_SHARE, LOOK_AHEAD, MOST_LATE


def batching(cores: float = 1.0, slots: int = 4) -> PlayedQueue:
    """Return a queue of one checkpoint with batches of up to eight; a batch of one takes 10 ms."""
    return PlayedQueue((Played("only", 0.010, 80.0, slots=slots),), cores)


def singly(cores: float = 1.0) -> PlayedQueue:
    """Return a queue of one checkpoint that runs one request at a time, 10 ms each."""
    return PlayedQueue((Played("only", 0.010, 80.0, max_batch=1),), cores)


def test_an_idle_queue_lets_a_request_through_at_once() -> None:
    """A request that finds a free core begins at once, alone, and the queue asks for no wake-up."""
    play = batching()
    held = play.arrives(1.0)
    (release,) = play.released
    assert release.members == (held,) and release.checkpoint == "only" and not release.learnt
    assert release.ends_s == pytest.approx(play.now_s + 0.010)
    assert len(play.queue) == 0 and play.queue.wake_s(play.now_s) is None


def test_those_who_wait_go_together() -> None:
    """Requests that queue while the core is busy form the next batch, up to the checkpoint's batch size."""
    play = batching()
    play.arrives(1.0)
    waiting = [play.arrives(1.0) for _ in range(11)]
    assert len(play.released) == 1
    play.ends(play.released[0], 0.010)
    assert play.released[1].members == tuple(waiting[:8])
    play.ends(play.released[1], 0.045)
    assert play.released[2].members == tuple(waiting[8:])


def test_texts_fill_a_run_not_requests() -> None:
    """The batch size counts texts, not requests: two requests of three texts fill a batch of eight; twenty go alone."""
    play = batching()
    play.arrives(1.0)
    trios = [play.arrives(1.0, texts=3) for _ in range(3)]
    crowd = play.arrives(2.0, texts=20)
    play.ends(play.released[0], 0.010)
    assert play.released[1].members == tuple(trios[:2])
    assert play.released[1].ends_s == pytest.approx(play.now_s + 0.035)
    play.ends(play.released[1], 0.035)
    assert play.released[2].members == (trios[2],)
    play.ends(play.released[2], 0.020)
    assert play.released[3].members == (crowd,)


@given(st.lists(st.floats(1.0, 5.0), min_size=1, max_size=12), st.booleans())
def test_the_urgent_wait_no_longer_than_the_run_under_way(patient_s: list[float], batches: bool) -> None:
    """The most urgent queued request is in the very next batch, however many others wait and however long."""
    play = batching() if batches else singly()
    play.arrives(1.0)
    for budget_s in patient_s:
        play.now_s += 0.0001
        play.arrives(budget_s)
    urgent = play.arrives(0.060)
    assert play.where(urgent) == "waits"
    (begun,) = play.ends(play.released[0], 0.010)
    assert urgent in begun.members


def test_the_strict_are_given_up_the_moment_it_is_in_vain() -> None:
    """A strict request is given up at the latest instant its batch could begin, wherever in the queue it stands."""
    play = batching()
    play.arrives(5.0)
    play.arrives(0.040)  # more urgent than the large request, but can wait longer
    large = play.arrives(0.060, texts=8, strict=True)
    small = play.arrives(0.050, strict=True)
    assert large.last_s < small.last_s
    play.now_s = large.last_s
    play.look()
    assert play.where(large) == "waits"
    wake_s = play.queue.wake_s(play.now_s)
    assert wake_s is not None and large.last_s < wake_s < large.last_s + 0.001
    play.now_s = wake_s
    play.look()
    assert (play.where(large), play.where(small)) == ("lost", "waits")
    play.now_s = small.last_s + 0.001
    play.look()
    assert play.where(small) == "lost"


def test_a_wider_percentile_makes_none_be_given_up() -> None:
    """A percentile orders the queue by an earlier deadline, but a request is given up only by its true deadline."""
    play = batching()
    play.arrives(5.0)
    held = play.queued_request(0.100, strict=True)
    held.deadline_s -= 0.095
    play.queue.enter(held)
    play.look()
    play.now_s += 0.050
    play.look()
    assert play.where(held) == "waits"
    play.ends(play.released[0])
    assert play.where(held) == "released"


def test_the_late_wait_behind_and_are_not_starved() -> None:
    """Late requests get their fixed share of the core while others can still be in time."""
    play = singly()
    play.arrives(5.0)
    late = [play.arrives(0.010) for _ in range(2)]
    play.now_s += 0.005
    play.look()
    began_s, fed_s = play.now_s, []
    while any(play.where(held) == "waits" for held in late):
        while len(play.queue) < 6:
            play.arrives(2.0)
        (begun,) = play.ends(play.released[-1], 0.010)
        if begun.members[0] in late:
            fed_s.append(play.now_s - began_s)
        assert play.now_s - began_s < 2 * 0.010 / LATE_CORE_SHARE
    assert fed_s[0] <= 0.021, "once something has been earned, the first goes"
    assert fed_s[1] - fed_s[0] == pytest.approx(0.010 * (1 - LATE_CORE_SHARE) / LATE_CORE_SHARE, rel=0.05)


def test_the_late_have_an_engine_that_nobody_wants() -> None:
    """Late requests run one by one on the fastest checkpoint when no other request waits, without using their share."""
    play = PlayedQueue((Played("grand", 0.050, 90.0), Played("swift", 0.010, 80.0)))
    late = [play.arrives(-0.5) for _ in range(3)]
    assert play.released[0].members == (late[0],) and play.released[0].checkpoint == "swift"
    play.ends(play.released[0], 0.010)
    assert play.released[1].members == (late[1],)
    assert play.released[1].price == 0.0


def test_one_late_request_is_not_in_the_way_of_others() -> None:
    """A late request that must wait for its checkpoint does not block those behind it that can begin."""
    play = PlayedQueue((Played("grand", 0.050, 90.0, slots=1), Played("swift", 0.010, 80.0)), cores=2.0)
    play.arrives(5.0, 1, False, "grand")
    blocked = play.arrives(-0.1, 1, False, "grand")
    free = play.arrives(-0.1, 1, False, "swift")
    assert (play.where(blocked), play.where(free)) == ("waits", "released")
    timely = play.arrives(1.0, 1, False, "grand")
    play.ends(play.released[1], 0.010)
    other = play.arrives(1.0, 1, False, "swift")
    assert (play.where(timely), play.where(other)) == ("waits", "released")


def test_no_more_than_so_many_wait_late() -> None:
    """At most `MOST_LATE` late requests wait: one more gives up the first. The queue says when it is full."""
    play = batching()
    play.arrives(5.0)
    late = [play.arrives(0.001) for _ in range(MOST_LATE)]
    assert play.queue.full and not play.lost
    one_more = play.arrives(0.001)
    assert play.lost == late[:1] and play.where(one_more) == "waits"
    assert len(play.queue) == MOST_LATE


def test_the_late_of_a_long_queue_do_not_hide_who_may_go() -> None:
    """A long queue for a checkpoint without a free slot does not hide a request that another checkpoint can serve."""
    play = PlayedQueue((Played("grand", 0.050, 90.0, slots=1), Played("swift", 0.010, 80.0)), cores=2.0)
    for _ in range(LOOK_AHEAD + 2):
        play.arrives(5.0, 1, False, "grand")
    other = play.arrives(6.0, 1, False, "swift")
    assert play.where(other) == "released"


def test_who_is_stranded_is_given_back() -> None:
    """A request with no checkpoint left is given up at the next look; one that has another waits on."""
    grand, swift = Played("grand", 0.050, 90.0), Played("swift", 0.010, 80.0)
    play = PlayedQueue((grand, swift))
    play.arrives(5.0, 1, False, "swift")
    pinned, late = play.arrives(5.0, 1, False, "grand"), play.arrives(0.001, 1, False, "grand")
    free = play.arrives(5.0)
    grand.slots = 0
    play.look()
    assert play.queue.stranded(pinned) and play.queue.stranded(late) and not play.queue.stranded(free)
    assert [play.where(held) for held in (pinned, late, free)] == ["lost", "lost", "waits"]
    swift.slots = 0
    play.look()
    assert play.where(free) == "lost" and len(play.queue) == 0


def test_a_run_wider_than_the_cores_has_them_alone() -> None:
    """A batch that needs more cores than there are begins only on an idle gateway and runs alone."""
    play = PlayedQueue((Played("wide", 0.010, 90.0, threads=4), Played("slim", 0.010, 80.0)), cores=2.0)
    wide = play.arrives(1.0, 1, False, "wide")
    slim = play.arrives(1.0, 1, False, "slim")
    assert (play.where(wide), play.where(slim)) == ("released", "waits")
    another = play.arrives(0.5, 1, False, "wide")
    play.ends(play.released[0], 0.010)
    assert {play.where(slim), play.where(another)} == {"waits", "released"}


def test_the_fastest_is_by_the_clock_and_not_by_its_cores() -> None:
    """The fastest checkpoint is the one with the shortest time, even where it uses more cores."""
    play = PlayedQueue((Played("wide", 0.010, 80.0, threads=2), Played("slim", 0.015, 80.0)), cores=2.0)
    play.arrives(-0.1)
    assert play.released[0].checkpoint == "wide"


def test_a_batch_begins_when_a_slot_is_free_and_not_before() -> None:
    """The next batch of a busy slot begins once the one before has ended; until then only lateness asks for a look."""
    play = PlayedQueue((Played("only", 0.002, 80.0, max_batch=1, slots=1),))
    play.arrives(5.0)
    second = play.arrives(5.0)
    play.now_s += 0.0019
    play.look()
    wake_s = play.queue.wake_s(play.now_s)
    assert play.where(second) == "waits" and wake_s is not None and wake_s >= second.last_s
    play.ends(play.released[0])
    assert play.where(second) == "released" and play.queue.wake_s(play.now_s) is None


def test_the_late_run_with_those_of_their_length() -> None:
    """Late requests share a batch only with texts of their own length bucket, so padding stays small."""
    late = [QueuedRequest(place, 0.0, (tokens,)) for place, tokens in enumerate((16, 900, 16, 900))]
    together, alone = (late_batch(late, [Played("only", 0.010, 80.0)], together=kind) for kind in (True, False))
    assert together is not None and together.members == (late[0], late[2])
    assert alone is not None and alone.members == (late[0],)


def test_a_newcomer_does_not_wait_for_those_who_will_be_given_up() -> None:
    """The wait of a newcomer counts only more urgent requests that can still begin in time."""
    play = singly()
    play.arrives(10.0)
    for _ in range(8):
        play.arrives(0.060, strict=True)  # each takes 10 ms: at most five of them can be in time
    play.arrives(10.0)
    behind_all_s = play.queue.wait_s(play.now_s + 0.070, play.now_s)
    assert 0.040 <= behind_all_s <= 0.060
    assert play.queue.wait_s(play.now_s + 0.050, play.now_s) <= 0.010 + 1e-9
    assert play.queue.wait_s(play.now_s + 11.0, play.now_s) == pytest.approx(behind_all_s + 0.010)
