"""Calibration: what it makes of few residuals, of many, of old ones, and of a distribution that drifts."""

from __future__ import annotations

import math
import random

import pytest

from gateway.forecasting.calibration import ENOUGH, MAX_AGE_S, WINDOW, Calibration, ResidualWindow


def taught(*residuals: float, standing_in: Calibration | None = None, now_s: float = 0.0) -> Calibration:
    """Return a calibration that has met these residuals of 95 % forecasts, all at one time."""
    made = Calibration(standing_in)
    for residual in residuals:
        made.learn(residual, 95.0, now_s)
    return made


def window(*residuals: float) -> ResidualWindow:
    """Return a window of these residuals."""
    made = ResidualWindow()
    for residual in residuals:
        made.add(residual, 0.0)
    return made


def test_too_few_errors_say_nothing() -> None:
    """Below `ENOUGH` residuals the prior applies, wider above than below; from there on the residuals do."""
    prior = taught().residuals(95.0, 0.0)
    assert prior.most == pytest.approx(2 * 1.645, abs=0.001) and prior.least == pytest.approx(-1.645, abs=0.001)
    assert taught(*[1.0] * (ENOUGH - 1)).residuals(95.0, 0.0) == prior
    known = taught(*[1.0] * ENOUGH).residuals(95.0, 0.0)
    assert (known.least, known.most) == (1.0, 1.0)


def test_a_quantile_is_the_conformal_one() -> None:
    """The quantile of n residuals is the conformal one, rounded to the safe side at both ends."""
    hundred = window(*range(1, 100))
    assert (hundred.most(0.95, 0.0), hundred.most(0.951, 0.0), hundred.most(0.5, 0.0)) == (95, 96, 50)
    assert (hundred.least(0.05, 0.0), hundred.least(0.059, 0.0), hundred.least(0.06, 0.0)) == (5, 5, 6)


def test_a_window_too_small_for_a_share_does_not_claim_it() -> None:
    """A window too small for an extreme quantile returns the fallback where that is farther out."""
    few = window(*range(ENOUGH))
    assert (few.most(0.999, 1e9), few.most(0.999, 0.0)) == (1e9, ENOUGH - 1)
    assert (few.least(0.001, -1e9), few.least(0.001, 5.0)) == (-1e9, 0)


def test_a_full_window_keeps_the_newest() -> None:
    """A full window keeps its size and the newest residuals."""
    full = window(1000.0, *[0.0] * WINDOW)
    assert len(full) == WINDOW
    assert full.most(0.999, 0.0) == 0.0


def test_what_was_only_seen_to_be_larger_is_taken_for_the_median_of_larger_ones() -> None:
    """A residual known only to exceed a value counts as the median of the larger ones, or as that value."""
    assert window(1.0, 2.0, 3.0, 4.0, 5.0).beyond(2.0) == 4.0
    assert window(1.0).beyond(1.0) == 1.0


def test_another_stands_in_until_there_are_enough_and_again_when_they_are_old() -> None:
    """The pooled residuals apply while a checkpoint's own are too few or too old, and as they are at that moment."""
    around = taught(*[3.0] * ENOUGH)
    own = Calibration(around)
    assert own.residuals(95.0, 0.0).most == 3.0
    for _ in range(WINDOW):
        around.learn(7.0, 95.0, 1.0)
    assert own.residuals(95.0, 1.0).most == 7.0
    for _ in range(ENOUGH):
        own.learn(1.0, 95.0, 1.0)
    assert own.residuals(95.0, 1.0).most == 1.0
    around.learn(7.0, 95.0, 30.0)
    assert own.residuals(95.0, 1.0 + MAX_AGE_S).most == 1.0
    for _ in range(WINDOW):
        around.learn(5.0, 95.0, 50.0)
    assert own.residuals(95.0, 1.1 + MAX_AGE_S).most == 5.0


def test_errors_that_are_not_covered_raise_the_level_and_those_that_are_lower_it() -> None:
    """After rising residuals the quantile lies higher among them than its share, and after falling ones lower."""
    chance = random.Random(1)
    for drift, higher in ((0.05, True), (-0.05, False)):
        residuals = [drift * number + chance.gauss(0.0, 1.0) for number in range(WINDOW)]
        said = taught(*residuals).residuals(80.0, 0.0)
        most, least = (sorted(residuals).index(one) for one in (said.most, said.least))
        assert (most > 0.85 * WINDOW) if higher else (most < 0.75 * WINDOW)
        assert (least > 0.05 * WINDOW) if higher else (least < 0.03 * WINDOW)


def test_with_the_last_error_what_it_moved_is_forgotten() -> None:
    """When all residuals have expired, the adapted levels are forgotten too."""
    moved = taught(*[0.5 * number for number in range(2 * WINDOW)])
    later_s = MAX_AGE_S + 1.0
    moved.residuals(95.0, later_s)
    fresh = Calibration()
    for number in range(ENOUGH):
        for one in (moved, fresh):
            one.learn(math.sin(number), 95.0, later_s)
    assert moved.residuals(80.0, later_s) == fresh.residuals(80.0, later_s)


def test_a_larger_share_is_never_said_to_take_less() -> None:
    """The quantile rises with the percentile and is never below the optimistic one, however the levels have adapted."""
    chance = random.Random(2)
    moved = Calibration()
    for number in range(400):
        moved.learn(chance.gauss(0.02 * number, 1.0), chance.choice((50.0, 90.0, 99.9)), 0.0)
        said = [moved.residuals(percentile, 0.0) for percentile in (50.0, 80.0, 95.0, 99.0, 99.9)]
        assert [one.most for one in said] == sorted(one.most for one in said)
        assert all(one.least <= one.most for one in said)


def test_any_number_of_percentiles_may_be_asked_for() -> None:
    """However many percentiles clients ask for, at most 64 are remembered."""
    known = taught(*[1.0] * ENOUGH)
    for number in range(1000):
        known.residuals(50.0 + number / 100, 0.0)
    assert len(known.known) <= 64
