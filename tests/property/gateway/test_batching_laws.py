"""Laws of every batch, for any queue and any price."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from planned_checkpoints import PlannedCheckpoint

from gateway.scheduling.batching import PlannedBatch, QueuedRequest, SchedulingContext, next_batch, run_s_of

NOW_S = 100.0


@st.composite
def some_checkpoints(draw: st.DrawFn) -> list[PlannedCheckpoint]:
    """Draw one to four checkpoints of different utility and any cost."""
    count = draw(st.integers(1, 4))
    utilities = draw(st.lists(st.integers(30, 90), min_size=count, max_size=count, unique=True))
    return [
        PlannedCheckpoint(
            stretch=1.1,
            overhead_s=0.001,
            name=f"checkpoint-{place}",
            utility=float(utility),
            fixed_s=draw(st.sampled_from([0.001, 0.004, 0.02])),
            each_s=draw(st.sampled_from([0.0005, 0.002, 0.01])),
            max_batch=draw(st.sampled_from([1, 3, 8, 16])),
        )
        for place, utility in enumerate(utilities)
    ]


@st.composite
def some_waiting(draw: st.DrawFn) -> list[QueuedRequest]:
    """Draw requests in order of their deadlines; some may have only one or two of the checkpoints."""
    available_times_s = sorted(draw(st.lists(st.floats(0.001, 0.5), min_size=1, max_size=24)))
    eligible = st.one_of(st.none(), st.just(None), st.frozensets(st.sampled_from(["checkpoint-0", "checkpoint-1"])))
    return [
        QueuedRequest(place, NOW_S + available_s, (50,), texts=draw(st.integers(1, 2)), eligible=draw(eligible))
        for place, available_s in enumerate(available_times_s)
    ]


@st.composite
def some_moments(draw: st.DrawFn) -> SchedulingContext:
    """Draw a context with any price, crowded or not, and any expected arrivals."""
    return SchedulingContext(
        now_s=NOW_S,
        price=draw(st.floats(0, 40_000)),
        utility_left=draw(st.sampled_from([0.0, 5.0, 60.0])),
        crowded=draw(st.booleans()),
        others=draw(st.sampled_from([0, 1, 3])),
        next_free_s=draw(st.sampled_from([0.0, 0.001, 0.03, float("inf")])),
        least_cost_s=draw(st.sampled_from([0.0, 0.001, 0.02])),
        rate=draw(st.floats(0, 300)),
        budgets_s=(0.03, 0.08, 0.4),
    )


def _reaches(checkpoint: PlannedCheckpoint, held: QueuedRequest) -> bool:
    return checkpoint.reach_s(run_s_of(checkpoint, (held,)), NOW_S) <= held.deadline_s - NOW_S


def _told(choice: PlannedBatch | None) -> tuple[object, ...] | None:
    return (
        None
        if choice is None
        else (choice.checkpoint.name, tuple(held.place for held in choice.members), choice.run_s, choice.gain)
    )


@given(some_waiting(), some_checkpoints(), some_moments())
def test_whoever_is_chosen_may_have_the_checkpoint_and_is_in_time_unless_alone(
    waiting: list[QueuedRequest], checkpoints: list[PlannedCheckpoint], context: SchedulingContext
) -> None:
    """A batch has queued requests, each once and in order, and all of them reach their deadlines.

    Otherwise one request goes alone on its fastest checkpoint. No batch is formed only where no request may have any.
    """
    choice = next_batch(waiting, checkpoints, context)
    if choice is None:
        assert not any(held.may(one.name) for held in waiting for one in checkpoints)
        return
    places = [held.place for held in choice.members]
    assert places == sorted(set(places))
    assert choice.members
    assert all(any(held is one for one in waiting) for held in choice.members)
    assert all(held.may(choice.checkpoint.name) for held in choice.members)
    assert len(choice.members) <= choice.checkpoint.max_batch
    if choice.gain > float("-inf"):
        reach_s = choice.checkpoint.reach_s(choice.run_s, NOW_S)
        length_bucket = len({held.texts for held in waiting}) == 1
        assert not length_bucket or choice.members[0].deadline_s - NOW_S >= reach_s
    else:
        (held,) = choice.members
        able = [one for one in checkpoints if held.may(one.name)]
        assert choice.run_s == min(run_s_of(one, (held,)) for one in able)


@given(some_waiting(), some_checkpoints(), some_moments(), st.integers())
def test_the_order_of_checkpoints_never_matters(
    waiting: list[QueuedRequest], checkpoints: list[PlannedCheckpoint], context: SchedulingContext, seed: int
) -> None:
    """The batch does not depend on the order of the checkpoints."""
    shuffled = checkpoints[:]
    random.Random(seed).shuffle(shuffled)
    assert _told(next_batch(waiting, shuffled, context)) == _told(next_batch(waiting, checkpoints, context))


@given(some_waiting(), some_checkpoints(), some_moments())
def test_the_most_urgent_is_passed_over_only_where_not_all_can_be_served(
    waiting: list[QueuedRequest], checkpoints: list[PlannedCheckpoint], context: SchedulingContext
) -> None:
    """While capacity suffices for all, a batch takes the most urgent of the requests that may have its checkpoint.

    It passes over only those that no checkpoint is sure to reach.
    """
    choice = next_batch(waiting, checkpoints, replace(context, utility_left=1.0))
    if choice is not None:
        able = [held for held in waiting if held.may(choice.checkpoint.name)]
        first = able.index(choice.members[0])
        assert list(choice.members) == able[first : first + len(choice.members)]
        for held in waiting[: waiting.index(choice.members[0])]:
            sure = [one for one in checkpoints if held.may(one.name) and _reaches(one, held)]
            assert not sure


@given(some_waiting(), some_checkpoints(), some_moments(), st.floats(1.0, 50.0))
def test_a_higher_price_never_buys_a_request_a_dearer_run(
    waiting: list[QueuedRequest], checkpoints: list[PlannedCheckpoint], context: SchedulingContext, factor: float
) -> None:
    """A higher price never gives a request more core time, where nothing but time is at stake."""
    context = replace(context, utility_left=1.0, budgets_s=())
    cheap = next_batch(waiting, checkpoints, context)
    dear = next_batch(waiting, checkpoints, replace(context, price=context.price * factor + 1.0))
    if cheap is not None and dear is not None:
        assert dear.run_s / len(dear.members) <= cheap.run_s / len(cheap.members) + 1e-9
