"""Laws of the forecast: its quantiles are in order whatever was learnt, and they cover what they promise."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from fakes import cell, latency_profile
from hypothesis import given
from hypothesis import strategies as st

from gateway.forecasting.forecaster import Forecaster
from gateway.forecasting.load import IDLE, QueueAhead
from gateway.model.profile import LatencyProfile, ProfileDocument
from gateway.model.request import RequestShape
from gateway.tasks.classify import ClassifyParameters
from gateway.tasks.service_time import BatchedModel

SHORT = RequestShape(((8,),), ClassifyParameters())
NO_END_S = 600.0
"""The largest budget."""

percentiles = st.floats(50.0, 99.9)
residuals = st.lists(st.floats(0.0, 5.0), max_size=120)
delays = st.floats(0.0, 5.0)


def taught(latencies_s: list[float]) -> Forecaster:
    """Return a forecaster that has seen these latencies for one short text."""
    made = Forecaster(BatchedModel(latency_profile(0.010), 64))
    for latency_s in latencies_s:
        made.learn_latency(made.forecast(SHORT, IDLE, 95.0, 0.0, NO_END_S), latency_s, 0.001, 0.0)
    return made


@given(residuals, percentiles, percentiles, delays)
def test_to_be_surer_takes_longer(seen: list[float], one: float, other: float, delay_s: float) -> None:
    """The quantile never falls as the percentile rises, whatever was learnt."""
    forecaster = taught(seen)
    low, high = (forecaster.forecast(SHORT, QueueAhead(delay_s), p, 0.0, NO_END_S) for p in sorted((one, other)))
    assert low.quantile_s <= high.quantile_s and low.idle_quantile_s <= high.idle_quantile_s


@given(residuals, percentiles, delays, delays)
def test_to_wait_longer_takes_longer(seen: list[float], percentile: float, one_s: float, other_s: float) -> None:
    """The quantile never falls as the backlog rises, nor below the idle quantile or the optimistic forecast."""
    forecaster = taught(seen)
    short, long = (
        forecaster.forecast(SHORT, QueueAhead(delay_s), percentile, 0.0, NO_END_S)
        for delay_s in sorted((one_s, other_s))
    )
    assert short.quantile_s <= long.quantile_s * (1 + 1e-12)
    assert short.idle_quantile_s == long.idle_quantile_s <= short.quantile_s * (1 + 1e-12)
    assert short.quantile_s >= short.least_s >= 0.0


@given(st.lists(st.floats(0.0, 0.1), min_size=9, max_size=9), st.integers(1, 40), st.integers(1, 200))
def test_more_work_takes_longer_where_it_was_measured_to(rises: list[float], batch: int, tokens: int) -> None:
    """Where the measured times rise with batch and length, the forecast median rises too, within and past the grid."""
    steps = [sum(rises[: at + 1]) + 0.001 for at in range(9)]
    medians = {
        (b, n): steps[row] + steps[column] for row, b in enumerate((1, 4, 16)) for column, n in enumerate((8, 32, 128))
    }
    cells = tuple(cell(b, n, median_s) for (b, n), median_s in medians.items())
    profile = LatencyProfile.from_document(ProfileDocument(threads=1, measured_on="nothing", cells=cells))
    here = profile.median_s(batch, tokens)
    assert profile.median_s(batch + 1, tokens) >= here * (1 - 1e-9)
    assert profile.median_s(batch, tokens + 1) >= here * (1 - 1e-9)
    assert here >= min(medians.values()) * (1 - 1e-9)
    assert here <= max(medians.values()) * (1 + 1e-9) or batch > 16 or tokens > 128


@given(st.lists(st.integers(1, 400), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_the_order_of_texts_does_not_matter(tokens: list[int], chance: random.Random) -> None:
    """The service time of a request does not depend on the order of its texts."""
    cost = BatchedModel(latency_profile(0.010), 64)
    shuffled, parameters = chance.sample(tokens, len(tokens)), ClassifyParameters()
    own, other = (cost.service_times_s(those, parameters, 0.0) for those in (tokens, shuffled))
    assert own == pytest.approx(other)


def log_normal(chance: random.Random) -> float:
    """Draw from a log-normal distribution, which service times usually follow."""
    return math.exp(chance.gauss(0.0, 0.3))


def heavy(chance: random.Random) -> float:
    """Draw about 1, but up to 5 one time in ten."""
    return chance.uniform(0.9, 1.1) if chance.random() < 0.9 else chance.uniform(1.0, 5.0)


def biased(chance: random.Random) -> float:
    """Draw a time that is always longer than profiled."""
    return chance.uniform(1.5, 2.0)


@pytest.mark.parametrize("percentile", [50.0, 80.0, 95.0])
@pytest.mark.parametrize("errors", [log_normal, heavy, biased])
def test_a_quantile_covers_what_it_says(errors: Callable[[random.Random], float], percentile: float) -> None:
    """The P % quantile covers P % of the answers, for any fixed distribution of their errors."""
    chance = random.Random(20260101)
    forecaster = Forecaster(BatchedModel(latency_profile(0.010), 64))
    covered = counted = 0
    for number in range(4000):
        now_s = number * 0.05
        queue_s = chance.choice((0.0, 0.0, 0.02, 0.1))
        forecast = forecaster.forecast(SHORT, QueueAhead(queue_s), percentile, now_s, NO_END_S)
        latency_s = (queue_s + 0.0115) * errors(chance)
        if number >= 500:
            counted += 1
            covered += latency_s <= forecast.quantile_s
        forecaster.learn_latency(forecast, latency_s, 0.0015, now_s)
    assert 100 * covered / counted == pytest.approx(percentile, abs=1.5)
