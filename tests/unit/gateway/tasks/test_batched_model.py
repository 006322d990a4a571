"""The service time of a classifier's batches: it follows the slowdown of the machine and counts the whole batch."""

from __future__ import annotations

import pytest
from fakes import latency_profile
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.messages import Answer, InputReport, ReplicaTimings
from gateway.tasks.classify import ClassifyParameters
from gateway.tasks.service_time import BatchedModel, runs_of

PARAMETERS = ClassifyParameters()
WINDOW = 64


def classifier() -> BatchedModel:
    """Return a model that has learnt nothing yet."""
    return BatchedModel(latency_profile(0.010), WINDOW)


def times_s(model: BatchedModel, *tokens: int, companions: int = 0) -> float:
    """The median seconds of a request with texts of these tokens."""
    fully_s, least_s = model.service_times_s(tokens, PARAMETERS, 0.0, companions)
    assert fully_s == least_s
    return least_s


@pytest.mark.parametrize("times", [0.5, 2.0])
def test_the_pace_of_scoring_is_learnt_quickly(times: float) -> None:
    """A slowdown is learnt within forty answers, from batches as from single texts."""
    for batch in (1, 4):
        seen = classifier()
        before = times_s(seen, 18)
        for _ in range(40):
            took_s = times * 0.010 * batch * 18 / 16
            timings = ReplicaTimings(0.0, took_s, took_s, batch)
            seen.learn((18,), PARAMETERS, Answer((), InputReport(18, 18, False), timings))
        assert times_s(seen, 18) == pytest.approx(times * before, rel=0.05)
        seen.forget()
        assert times_s(seen, 18) == pytest.approx(before)


def test_the_pace_of_scoring_is_learnt_from_single_texts() -> None:
    """A slowdown is learnt only from single texts: the runs of several are not known."""
    seen = classifier()
    before = times_s(seen, 18)
    several = Answer((), InputReport(36, 36, False), ReplicaTimings(0.0, 9.0, 9.0, 2))
    seen.learn((18, 18), PARAMETERS, several)
    nothing = Answer((), InputReport(18, 0, True), ReplicaTimings(0.0, 9.0, 9.0, 0))
    seen.learn((18,), PARAMETERS, nothing)
    assert times_s(seen, 18) == before


def test_companions_lengthen_the_run() -> None:
    """A text in a batch takes the time of the whole batch, and so do several texts."""
    new = classifier()
    for companions in (0, 1, 3, 7):
        assert times_s(new, 18, companions=companions) == pytest.approx((companions + 1) * 0.010 * 18 / 16)
    assert times_s(new, 18, 18, 18, companions=1) == pytest.approx(times_s(new, 18, companions=3))
    assert times_s(new, 16, 32, companions=2) == pytest.approx(times_s(new, 16, 32, 32, 32))


def test_tokens_stay_within_the_window() -> None:
    """A text beyond the window costs as much as the window, alone, with others and with companions."""
    new = classifier()
    assert times_s(new, WINDOW) > times_s(new, WINDOW - 1)
    for beyond in (WINDOW + 1, 10**6):
        assert times_s(new, beyond) == times_s(new, WINDOW)
        assert times_s(new, 8, beyond) == times_s(new, 8, WINDOW)
        assert times_s(new, beyond, companions=3) == times_s(new, WINDOW, companions=3)
        assert new.run_s(4, beyond) == new.run_s(4, WINDOW)


def test_a_text_of_no_tokens_costs_something() -> None:
    """A text whose tokens count as 0 takes as long as the shortest of the profile."""
    assert times_s(classifier(), 0) == times_s(classifier(), 1) > 0


LENGTHS = st.lists(st.integers(1, 2 * WINDOW), min_size=1, max_size=20)


@given(LENGTHS, st.integers(0, 20))
def test_a_request_is_forecast_as_the_replica_runs_it(tokens: list[int], companions: int) -> None:
    """The forecast is the median time of the runs that the replica makes of the texts and their companions."""
    profile = latency_profile(0.010)
    cut = [min(one, WINDOW) for one in tokens]
    cut += [max(cut)] * companions
    runs = runs_of(cut, profile.median_s)
    expected_s = sum(profile.median_s(len(run), max(cut[place] for place in run)) for run in runs)
    assert times_s(classifier(), *tokens, companions=companions) == pytest.approx(expected_s)


@given(st.integers(1, 64), st.integers(1, WINDOW))
def test_a_batch_of_equal_texts_costs_the_same_however_it_is_asked_for(inputs: int, tokens: int) -> None:
    """A batch of equal texts has one cost, as texts of one request, as companions, and as the scheduler plans it."""
    new = classifier()
    run_s = new.run_s(inputs, tokens)
    assert times_s(new, *[tokens] * inputs) == pytest.approx(run_s)
    assert times_s(new, tokens, companions=inputs - 1) == pytest.approx(run_s)
