"""Replicas in the simulator: batches that run as sent, and time slices by the live rules."""

from __future__ import annotations

import pytest
from played_replicas import STEPS, WRITER, Watched, asked, batched, shared, together

from deployments.replica.writing.time_slicing import MOST_BEGUN, SLICE_S
from loadtests.simulator.replica import WritingReplicas
from loadtests.simulator.world import World


def test_a_batch_runs_as_it_was_sent() -> None:
    """The requests of a batch run together, padded to the longest, and end together."""
    watched = together([asked(place) for place in range(4)])
    assert [end.at_s for end in watched.ends.values()] == pytest.approx([0.016] * 4)
    unlike = together([asked(0), asked(1, tokens=200), asked(2)])
    assert [end.at_s for end in unlike.ends.values()] == pytest.approx([0.008 + 3 * 0.020] * 3)


def test_batches_that_wait_are_not_merged() -> None:
    """Batches that wait for a slot run one after the other."""
    watched = batched([asked(place) for place in range(3)])
    assert sorted(end.at_s for end in watched.ends.values()) == pytest.approx([0.010, 0.020, 0.030])


def test_the_earliest_deadline_is_next() -> None:
    """The batch with the earliest deadline runs next, whatever the order of arrival; of equal ones the first."""
    watched = batched([asked(0), asked(1, 0.001, 0.9, tokens=200), asked(2, 0.002, 0.1), asked(3, 0.002, 0.1)])
    assert watched.ends[2].at_s < watched.ends[3].at_s < watched.ends[1].at_s
    urgent = together([asked(0), asked(1, 0.001, 0.9), asked(2, 0.002, 0.5), asked(3, 0.002, 3.0)])
    assert urgent.ends[2].at_s == urgent.ends[3].at_s < urgent.ends[1].at_s


def test_a_late_batch_lets_timely_ones_go_first() -> None:
    """A batch that cannot be in time runs behind one that can, as at a live replica."""
    watched = batched([asked(0, tokens=400), asked(1, 0.001, 0.010), asked(2, 0.002, 0.9)])
    assert watched.ends[2].at_s < watched.ends[1].at_s and watched.ends[1].answered


def test_each_slot_has_a_batch_of_its_own() -> None:
    """On two slots a second batch begins while the first runs; on one it waits."""
    late = asked(1, 0.001)
    assert batched([asked(0), late], slots=2).ends[1].at_s == pytest.approx(0.011)
    assert batched([asked(0), late], slots=1).ends[1].at_s == pytest.approx(0.020)


def test_lost_work_is_not_run() -> None:
    """A strict request that would be late even alone when its batch begins ends unanswered, and costs no core time.

    A best-effort one is answered late, and the others of the batch run without it.
    """
    offered = [asked(0, tokens=400), asked(1, 0.001, 0.02, strict=True), asked(2, 0.001, 0.02), asked(3, 0.001)]
    watched = together(offered)
    assert not watched.ends[1].answered and watched.ends[1].at_s == pytest.approx(0.048)
    assert [watched.ends[place].answered for place in (2, 3)] == [True, True]
    assert watched.ends[2].at_s == watched.ends[3].at_s == pytest.approx(0.048 + 0.012)
    assert offered[1].engine_s == 0.0


def test_a_batch_that_is_lost_whole_lets_the_next_begin() -> None:
    """A batch of which nothing is left to run takes no time, and the next one begins at once."""
    watched = batched([asked(0, tokens=400), asked(1, 0.001, 0.02, strict=True), asked(2, 0.002, 0.9)])
    assert not watched.ends[1].answered and watched.ends[2].at_s == pytest.approx(0.048 + 0.010)


def test_a_request_of_many_texts_takes_full_batches() -> None:
    """A request of many texts is answered when all have run, in batches as large as the variant's."""
    watched = batched([asked(0, texts=12)])
    first_s, second_s = 0.008 + 8 * 0.002, 0.008 + 4 * 0.002
    assert watched.ends[0].answered
    assert watched.ends[0].at_s == watched.ends[0].service_s == pytest.approx(first_s + second_s)


def test_a_short_text_that_comes_behind_a_long_one_is_done_soon() -> None:
    """A short text behind a long one gets its time slice after one slice of the long one."""
    watched = shared([asked(0, tokens=1000, budget_s=9.0), asked(1, 0.001, tokens=30, budget_s=9.0)])
    assert watched.ends[1].at_s <= 0.030 + 2 * SLICE_S + 1e-9
    assert watched.ends[0].at_s == pytest.approx(1.030)
    assert watched.ends[1].service_s == pytest.approx(0.030)


def test_a_text_that_would_be_late_otherwise_goes_first() -> None:
    """The text with the least slack runs first."""
    watched = shared([asked(0, tokens=200, budget_s=9.0), asked(1, 0.001, tokens=100, budget_s=0.130)])
    assert watched.ends[1].answered and watched.ends[1].at_s <= 0.131


def test_at_its_deadline_a_text_ends() -> None:
    """At its deadline a strict text ends unanswered and another with what is written; the next begins at once."""
    offered = [asked(0, tokens=500, budget_s=0.1), asked(1, tokens=500, budget_s=0.1, strict=True)]
    watched = shared([*offered, asked(2, 0.05, tokens=100, budget_s=2.0)])
    assert watched.ends[0].answered and not watched.ends[1].answered
    assert max(watched.ends[0].at_s, watched.ends[1].at_s) <= 0.1 + SLICE_S
    assert watched.ends[2].at_s <= 0.1 + SLICE_S + 0.1 + 1e-9


def test_only_so_many_texts_are_under_way_at_once() -> None:
    """At most as many texts are begun as by a live time slicer; a further one waits for the first to end."""
    watched = shared([asked(place, tokens=200, budget_s=60.0) for place in range(MOST_BEGUN + 1)])
    first_end_s = min(end.at_s for end in watched.ends.values())
    assert watched.ends[MOST_BEGUN].at_s - first_end_s >= 0.2 - 1e-9, "all of its work comes after"
    assert watched.ends[MOST_BEGUN].at_s == pytest.approx(0.2 * (MOST_BEGUN + 1))


def test_all_texts_of_a_request_are_work() -> None:
    """A request of three texts takes three times as long as one text."""
    assert shared([asked(0, tokens=100, texts=3)]).ends[0].at_s == pytest.approx(0.3)


def test_texts_that_share_steps_end_together() -> None:
    """Each text is read alone; the steps of all then take as long as a step of so many does."""
    watched = shared([asked(place, budget_s=9.0) for place in range(4)], of=WRITER)
    assert [end.at_s for end in watched.ends.values()] == pytest.approx([4 * 0.010 + STEPS.pace(4) * 0.200] * 4)
    assert {end.texts for end in watched.ends.values()} <= {3, 4}, "a text is read alone"
    alone = shared([asked(0, budget_s=9.0)], of=WRITER).ends[0]
    assert alone.at_s == pytest.approx(0.210) and alone.texts == 1


def test_a_text_joins_those_under_way() -> None:
    """A text that comes later is read at the next turn and steps with the others, each of which ends by itself."""
    watched = shared([asked(0, budget_s=9.0), asked(1, 0.105, budget_s=9.0)], of=WRITER)
    joined_s = 0.110 + 0.010
    assert watched.ends[0].at_s == pytest.approx(joined_s + STEPS.pace(2) * 0.100)
    assert watched.ends[1].at_s == pytest.approx(watched.ends[0].at_s + 0.100)


def test_no_text_steps_along_that_would_make_another_late() -> None:
    """A text that is just in time alone steps alone; the other waits until it has ended."""
    watched = shared([asked(0, budget_s=0.225), asked(1, 0.001, budget_s=9.0)], of=WRITER)
    assert watched.ends[0].answered and watched.ends[0].at_s <= 0.225
    assert watched.ends[1].at_s == pytest.approx(0.420)


def test_a_writer_has_a_replica_on_each_core() -> None:
    """Texts go to the core that has the fewest, and share steps with those on it alone."""
    world = World(2, seed=1)
    watched = Watched(world, WritingReplicas(world, WRITER, 2))
    world.play([asked(place, budget_s=9.0) for place in range(4)], watched)
    assert [end.at_s for end in watched.ends.values()] == pytest.approx([2 * 0.010 + STEPS.pace(2) * 0.200] * 4)
