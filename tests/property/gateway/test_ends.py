"""Laws of a request for any behaviour of its replicas: one end, one record, and nothing left running."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from fakes import ANSWER, GRAND, SWIFT, TERMS
from hypothesis import given
from hypothesis import strategies as st
from virtual_time import run_virtually
from worlds import World, world

from gateway.model.messages import Answer, Failure, FailureKind, Work
from gateway.model.outcome import Outcome
from gateway.model.request import Terms
from gateway.service import ATTEMPTS, Finished

acts = st.lists(
    st.tuples(
        st.sampled_from([ANSWER, *(Failure(kind) for kind in FailureKind), Failure(FailureKind.UNAVAILABLE)]),
        st.sampled_from([0.0, 0.01, 0.3, 2.0]),
        st.booleans(),
    ),
    min_size=ATTEMPTS,
    max_size=ATTEMPTS,
)
terms_of_any_kind = st.builds(
    lambda strict, budget_s, pinned: replace(TERMS, strict=strict, budget_s=budget_s, pinned=pinned),
    st.booleans(),
    st.sampled_from([None, 0.001, 0.03, 0.5, 5.0]),
    st.sampled_from([None, None, GRAND, SWIFT, "nobody"]),
)


def played(script: list[tuple[Answer | Failure, float, bool]], terms: Terms) -> tuple[World, Finished]:
    """Play one request against replicas that each take some time, give this result, and may then be lost."""
    told = world()

    def behave(checkpoint: str, work: Work) -> Answer | Failure:
        result, seconds, dies = script[len(told.backend.dispatches) - 1]
        told.clock.advance(seconds)
        if dies:
            told.down(checkpoint)
        return result

    told.backend.behaviour = behave
    return told, run_virtually(told.service.handle(told.request(terms)))


@given(acts, terms_of_any_kind)
def test_every_request_has_one_end(script: list[tuple[Answer | Failure, float, bool]], terms: Terms) -> None:
    """Every request has one record, and its outcome agrees with its answer, its problem and its latency."""
    told, finished = played(script, terms)
    assert told.kept.records == [finished.record]
    answered = finished.record.outcome in (Outcome.IN_TIME, Outcome.LATE)
    assert answered == (finished.answer is not None) == (finished.problem is None)
    assert finished.problem is None or finished.problem.outcome is finished.record.outcome
    budget_s = finished.record.budget_s
    assert budget_s is not None
    assert not answered or finished.record.met == (finished.record.latency_s <= budget_s)
    assert not (answered and terms.strict) or finished.record.met
    assert finished.record.attempts == len(told.backend.dispatches)


@given(acts, terms_of_any_kind)
def test_no_attempt_is_given_more_time_than_there_is(
    script: list[tuple[Answer | Failure, float, bool]], terms: Terms
) -> None:
    """Each attempt gets at most the time that is left, and there are at most `ATTEMPTS`."""
    told, finished = played(script, terms)
    given_s = [one.work.remaining_s for one in told.backend.dispatches]
    assert len(given_s) <= ATTEMPTS
    assert given_s == sorted(given_s, reverse=True)
    assert all(one.work.strict == terms.strict for one in told.backend.dispatches)
    assert all(terms.pinned in (None, one.checkpoint) for one in told.backend.dispatches)
    assert not given_s or given_s[0] <= (finished.record.budget_s or 0.0)
    assert not terms.strict or all(seconds > 0 for seconds in given_s)


@given(st.integers(0, 6), terms_of_any_kind)
def test_a_client_may_leave_at_any_turn(turns: int, terms: Terms) -> None:
    """A request that is cancelled at any turn has one record, and all its dispatched work is cancelled."""

    async def left() -> World:
        told = world(lambda checkpoint, work: None)
        task = asyncio.create_task(told.service.handle(told.request(terms)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return told

    told = run_virtually(left())
    assert len(told.kept.records) == (1 if turns else 0)
    assert told.backend.cancelled == len(told.backend.dispatches)
