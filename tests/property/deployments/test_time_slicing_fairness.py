"""The time-slicing rule over whole schedules: every text that shares an engine by it is finished."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import assume, given
from hypothesis import strategies as st

from deployments.replica.writing.time_slicing import SLICE_S, Sharing, next_text

STEP_S = 0.01


@dataclass(slots=True, eq=False, kw_only=True)
class Job(Sharing):
    """A text that arrives, needs `steps` steps, and is done at some time."""

    arrives_s: float
    steps: int
    done_s: float | None = None


def jobs(budgets: st.SearchStrategy[float]) -> st.SearchStrategy[list[Job]]:
    """Texts by arrival."""

    def job(sequence: int, arrives_s: float, steps: int, budget_s: float) -> Job:
        return Job(
            sequence=sequence, deadline=arrives_s + budget_s, left_s=steps * STEP_S, arrives_s=arrives_s, steps=steps
        )

    one = st.tuples(st.floats(0, 2), st.integers(1, 60), budgets)
    return st.lists(one, min_size=1, max_size=8).map(
        lambda drawn: [job(at, *values) for at, values in enumerate(sorted(drawn))]
    )


def run(texts: list[Job]) -> None:
    """Runs one engine, slice by slice, each of `SLICE_S`, or to the end of the text where no other waits."""
    now, left = 0.0, list(texts)
    while left:
        here = [text for text in left if text.arrives_s <= now]
        if not here:
            now = min(text.arrives_s for text in left)
            continue
        text, began = next_text(here, now), now
        while text.steps and (now - began < SLICE_S or not any(o is not text and o.arrives_s <= now for o in left)):
            now, text.steps = now + STEP_S, text.steps - 1
            text.attained_s, text.left_s = text.attained_s + STEP_S, text.steps * STEP_S
        if not text.steps:
            text.done_s = now
            left.remove(text)


@given(jobs(st.just(1000.0)))
def test_each_is_done_in_its_own_time_for_each_that_shares(texts: list[Job]) -> None:
    """Where all texts have time, each takes at most (its own time + two time slices) × the number of texts."""
    own = {text.sequence: text.left_s for text in texts}
    run(texts)
    for text in texts:
        assert text.done_s is not None
        took_s = text.done_s - text.arrives_s
        assert took_s <= len(texts) * (own[text.sequence] + 2 * SLICE_S) + 1e-6


@given(jobs(st.just(1000.0)), st.integers(1, 5))
def test_a_short_text_among_long_ones_is_soon_done(texts: list[Job], steps: int) -> None:
    """A short text that comes when all others have had more than it needs waits for one time slice only."""
    own_s = steps * STEP_S
    for text in texts:
        text.arrives_s, text.attained_s = 0.0, own_s + SLICE_S
    short = Job(sequence=99, deadline=1000.0, left_s=own_s, arrives_s=0.005, steps=steps)
    run([*texts, short])
    assert short.done_s is not None and short.done_s - short.arrives_s <= own_s + SLICE_S + 1e-6


@given(jobs(st.just(1000.0)), st.integers(1, 30))
def test_who_is_pressed_comes_in_time(texts: list[Job], steps: int) -> None:
    """An urgent text that can spare one time slice is in time, however many patient texts share the engine."""
    own_s = steps * STEP_S
    pressed = Job(sequence=99, deadline=1.0 + own_s + 1.5 * SLICE_S, left_s=own_s, arrives_s=1.0, steps=steps)
    run([*texts, pressed])
    assert pressed.done_s is not None and pressed.done_s <= pressed.deadline + 1e-6


@given(jobs(st.just(1000.0)), jobs(st.just(0.0)))
def test_the_lost_cost_those_in_time_nothing(texts: list[Job], lost: list[Job]) -> None:
    """Late texts do not delay those that can be in time, apart from the share reserved for late ones."""
    for text in (*texts, *lost):
        text.arrives_s = 0.0
    for text in lost:
        text.deadline = 0.0
    alone = [replace(text) for text in texts]
    run(alone)
    run([*texts, *lost])
    assert [text.done_s for text in texts] == [text.done_s for text in alone]
    assert all(text.done_s is not None for text in lost)


@given(jobs(st.floats(0, 0.5)), st.integers(1, 40))
def test_the_lost_and_the_pressed_starve_nobody(texts: list[Job], steps: int) -> None:
    """A patient text beside n late ones is done within (its own time + two time slices) × (n + 1)."""
    assume(any(text.slack_s(text.arrives_s) < 0 for text in texts))
    lost = [text for text in texts if text.slack_s(text.arrives_s) < 0]
    own_s = steps * STEP_S
    patient = Job(sequence=99, deadline=1000.0, left_s=own_s, arrives_s=0.0, steps=steps)
    run([*lost, patient])
    assert patient.done_s is not None
    assert patient.done_s <= (len(lost) + 1) * (own_s + 2 * SLICE_S) + 1e-6
