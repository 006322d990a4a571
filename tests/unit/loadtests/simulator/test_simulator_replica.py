"""Replicas in the simulator: batches and turns as the live rules say, and an end for whose time is up."""

from __future__ import annotations

import pytest
from played_replicas import asked, batched, shared

from deployments.replica.summarize.time_slicing import MOST_BEGUN, SLICE_S


def test_what_comes_at_one_instant_is_one_batch() -> None:
    """Four inputs in one run, and none of them waits for the first alone."""
    watched = batched([asked(place) for place in range(4)])
    assert [end.at_s for end in watched.ends.values()] == pytest.approx([0.016] * 4)


def test_alike_lengths_run_together_and_others_apart() -> None:
    """A batch is not padded by more than the limit."""
    watched = batched([asked(0), asked(1, tokens=200), asked(2)])
    together, apart, too = (watched.ends[place].at_s for place in range(3))
    assert together == too == pytest.approx(0.012)
    assert apart == pytest.approx(0.012 + 0.028)


def test_the_earliest_deadline_is_next() -> None:
    """Whoever came first; a lone long one keeps the engine until then."""
    watched = batched([asked(0), asked(1, 0.001, 0.9, tokens=200), asked(2, 0.002, 0.1)])
    assert watched.ends[2].at_s < watched.ends[1].at_s


def test_each_lane_has_a_batch_of_its_own() -> None:
    """On two lanes a second batch begins while the first runs."""
    late = asked(1, 0.001)
    assert batched([asked(0), late], slots=2).ends[1].at_s == pytest.approx(0.011)
    assert batched([asked(0), late], slots=1).ends[1].at_s == pytest.approx(0.020)


def test_the_strict_end_at_their_deadline_however_long_the_engine_is_busy() -> None:
    """Unanswered, and without a run; what is best effort is answered late."""
    offered = [asked(0, tokens=400), asked(1, 0.001, 0.02, strict=True), asked(2, 0.001, 0.02)]
    watched = batched(offered)
    assert not watched.ends[1].answered and watched.ends[1].at_s == pytest.approx(0.021)
    assert watched.ends[2].answered and watched.ends[2].at_s == pytest.approx(0.058)
    assert offered[1].engine_s == 0.0


def test_a_request_of_many_texts_is_answered_with_its_last() -> None:
    """Timed from the beginning of its first run to the end of its last, as a live replica says."""
    watched = batched([asked(0, texts=12)])
    first_s, second_s = 0.008 + 8 * 0.002, 0.008 + 4 * 0.002
    assert watched.ends[0].answered
    assert watched.ends[0].at_s == watched.ends[0].service_s == pytest.approx(first_s + second_s)


def test_once_its_time_is_up_no_more_of_a_strict_request_runs() -> None:
    """The eight inputs under way end for nobody, and the others are withdrawn."""
    offered = [asked(0, budget_s=0.030, texts=24, strict=True)]
    watched = batched(offered)
    assert watched.ends[0].answered is False
    assert watched.world.node.busy_s <= 2 * 0.024 + 1e-9
    assert watched.ends[0].at_s <= 0.030 + 1e-9


def test_a_short_text_that_comes_behind_a_long_one_is_done_soon() -> None:
    """They take turns: it has its first after one of the long one's, and is not behind all of it."""
    watched = shared([asked(0, tokens=1000, budget_s=9.0), asked(1, 0.001, tokens=30, budget_s=9.0)])
    assert watched.ends[1].at_s <= 0.030 + 2 * SLICE_S + 1e-9
    assert watched.ends[0].at_s == pytest.approx(1.030)
    assert watched.ends[1].service_s == pytest.approx(0.030)


def test_a_text_that_would_be_late_otherwise_goes_first() -> None:
    """The least slack, whatever the other had before."""
    watched = shared([asked(0, tokens=200, budget_s=9.0), asked(1, 0.001, tokens=100, budget_s=0.130)])
    assert watched.ends[1].answered and watched.ends[1].at_s <= 0.131


def test_at_its_deadline_a_text_ends() -> None:
    """A strict one unanswered, another with what there is; the engine goes on with the next at once."""
    offered = [asked(0, tokens=500, budget_s=0.1), asked(1, tokens=500, budget_s=0.1, strict=True)]
    watched = shared([*offered, asked(2, 0.05, tokens=100, budget_s=2.0)])
    assert watched.ends[0].answered and not watched.ends[1].answered
    assert max(watched.ends[0].at_s, watched.ends[1].at_s) <= 0.1 + SLICE_S
    assert watched.ends[2].at_s <= 0.1 + SLICE_S + 0.1 + 1e-9


def test_only_so_many_texts_are_under_way_at_once() -> None:
    """As many as a live time slicer begins; a further one waits for the first to end."""
    watched = shared([asked(place, tokens=200, budget_s=60.0) for place in range(MOST_BEGUN + 1)])
    first_end_s = min(end.at_s for end in watched.ends.values())
    assert watched.ends[MOST_BEGUN].at_s - first_end_s >= 0.2 - 1e-9, "all of its work comes after"
    assert watched.ends[MOST_BEGUN].at_s == pytest.approx(0.2 * (MOST_BEGUN + 1))


def test_all_texts_of_a_request_are_work() -> None:
    """Three take three times as long as one."""
    assert shared([asked(0, tokens=100, texts=3)]).ends[0].at_s == pytest.approx(0.3)
