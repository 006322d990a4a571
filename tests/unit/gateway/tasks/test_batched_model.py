"""The service time of a classifier's batches: it follows the slowdown of the machine and counts the whole batch."""

from __future__ import annotations

import pytest
from fakes import latency_profile

from gateway.model.messages import Answer, InputReport, ReplicaTimings
from gateway.model.request import RequestShape
from gateway.tasks.classify import BatchedModel, ClassifyParameters


def classifier() -> BatchedModel:
    """Return a model that has learnt nothing yet."""
    return BatchedModel(latency_profile(0.010), 64)


@pytest.mark.parametrize("times", [0.5, 2.0])
def test_the_pace_of_scoring_is_learnt_quickly(times: float) -> None:
    """A slowdown is learnt within forty answers, from batches as from single texts."""
    for batch in (1, 4):
        seen = classifier()
        before = seen.service_time_s((56,))
        for _ in range(40):
            took_s = times * 0.010 * batch * 18 / 16
            timings = ReplicaTimings(0.0, took_s, took_s, batch)
            seen.learn(RequestShape((56,), ClassifyParameters()), Answer((), InputReport(18, 18, False), timings))
        assert seen.service_time_s((56,)) == pytest.approx(times * before, rel=0.05)
        seen.forget()
        assert seen.service_time_s((56,)) == pytest.approx(before, rel=0.05)


def test_the_pace_of_scoring_is_learnt_from_single_texts() -> None:
    """A slowdown is learnt only from single texts: the batches of several are not known."""
    seen = classifier()
    before = seen.service_time_s((56,))
    several = Answer((), InputReport(36, 36, False), ReplicaTimings(0.0, 9.0, 9.0, 2))
    seen.learn(RequestShape((56, 56), ClassifyParameters()), several)
    nothing = Answer((), InputReport(18, 0, True), ReplicaTimings(0.0, 9.0, 9.0, 0))
    seen.learn(RequestShape((56,), ClassifyParameters()), nothing)
    assert seen.service_time_s((56,)) == pytest.approx(before, rel=0.05)


def test_companions_lengthen_the_run() -> None:
    """A text in a batch takes the time of the whole batch, and so do several texts."""
    new = classifier()
    one = RequestShape((56,), ClassifyParameters())
    for companions in (0, 1, 3, 7):
        assert new.service_times_s(one, 0.0, companions)[1] == pytest.approx((companions + 1) * 0.010 * 18 / 16)
    three = RequestShape((56, 56, 56), ClassifyParameters())
    assert new.service_times_s(three, 0.0, 1) == new.service_times_s(one, 0.0, 3)
