"""The measurement of the decision: scenes match their names, and slow decisions are distinguished from quick ones."""

from __future__ import annotations

import pytest

from gateway.scheduling.policy import Reason
from loadtests.bench.decision import CEILING_S, COUNTS, DecisionSettings, Scene, Situation, Timing, report_of, timed


@pytest.mark.parametrize("situation", list(Situation))
def test_a_scene_is_what_it_is_called(situation: Situation) -> None:
    """A busy scene has queueing delays and an idle one has none; most requests are answered unless nothing fits."""
    decisions = [Scene.decide(scene)[0] for scene in [Scene(situation, 8, 1)] for _ in range(200)]
    delays = [one.forecast.queueing_delay_s for made in decisions for one in made.candidates if one.forecast]
    assert (max(delays) > 0) == (situation is not Situation.IDLE)
    chosen = [made for made in decisions if made.chosen is not None]
    assert len(chosen) == (0 if situation is Situation.HOPELESS else len(decisions))
    fitting = [made for made in chosen if made.reason in (Reason.FITS, Reason.CONGESTION)]
    assert situation is Situation.HOPELESS or 100 < len(fitting) < 200
    assert {made.price > 0 for made in decisions} == {situation is Situation.PRICED}


def test_a_scene_is_the_same_with_the_same_seed() -> None:
    """A scene with an equal seed makes equal decisions."""
    one, other = (Scene(Situation.LOADED, 8, 3) for _ in range(2))
    for _ in range(100):
        assert one.decide()[0].chosen == other.decide()[0].chosen


def test_every_situation_is_timed_with_every_number_of_candidates() -> None:
    """Every situation is timed with every number of candidates, in as many rounds as requested."""
    timings = timed(DecisionSettings(rounds=2, decisions=4))
    assert [(one.situation, one.candidates) for one in timings] == [(s, n) for s in Situation for n in COUNTS]
    assert all(len(one.rounds_s) == 2 and min(one.rounds_s) > 0 for one in timings)


def test_only_the_most_candidates_are_judged_and_by_the_median() -> None:
    """Only timings with the most candidates are judged, by their median, so that one slow round does not decide."""
    most, fewer = COUNTS[-1], COUNTS[0]
    quick, slow = CEILING_S / 2, CEILING_S
    timings = [
        Timing(Situation.IDLE, fewer, (slow, slow, slow)),
        Timing(Situation.IDLE, most, (quick, quick, 9 * slow)),
        Timing(Situation.LOADED, most, (quick, slow, slow)),
    ]
    found = report_of(timings, DecisionSettings()).verdicts
    assert [verdict.met for verdict in found] == [True, False]
    assert "loaded: 32 candidates take 50.0 µs, not below 50" in found[1].sentence
