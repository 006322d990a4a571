"""What runs of a simulated variant take: by its samples or its profile, between them and past them."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_scenarios import Even, variant

from loadtests.simulator.variants import ProfiledTimes, SampledTimes

MEASURED = SampledTimes({2: [0.012, 0.010, 0.011], 4: [0.020], 8: [0.036, 0.044]})
SAMPLES = st.dictionaries(st.integers(1, 64), st.lists(st.floats(1e-6, 10.0), min_size=1, max_size=5), min_size=1)


def test_a_median_is_that_of_its_samples_and_a_straight_line_between_two() -> None:
    """Past the last it goes on as between the last two, before the first it is level."""
    expected = {1: 0.011, 2: 0.011, 3: 0.0155, 4: 0.020, 6: 0.030, 8: 0.040, 16: 0.080}
    assert {batch: MEASURED.median_s(batch, 7) for batch in expected} == pytest.approx(expected)


def test_a_single_batch_size_goes_on_in_proportion() -> None:
    """There is no slope to go on by."""
    one = SampledTimes({4: [0.010]})
    assert [one.median_s(batch, 1) for batch in (1, 4, 10)] == pytest.approx([0.010, 0.010, 0.025])


@given(SAMPLES)
def test_past_the_largest_batch_size_nothing_gets_quicker(samples: dict[int, list[float]]) -> None:
    """Not even where samples say that a larger batch was the quicker one."""
    times, largest = SampledTimes(samples), max(samples)
    medians = [times.median_s(largest + more, 1) for more in (0, 1, 5, 100)]
    assert all(left <= right for left, right in pairwise(medians))


@given(SAMPLES, st.integers(1, 200), st.integers())
def test_noise_is_a_sample_over_its_median(samples: dict[int, list[float]], batch: int, seed: int) -> None:
    """Of the nearest batch size measured."""
    times = SampledTimes(samples)
    least = min(abs(one - batch) for one in samples)
    near = [one for one in samples if abs(one - batch) == least]
    factor = times.noise(batch, random.Random(seed))
    assert any(factor == pytest.approx(s / times.median_s(of, 1)) for of in near for s in samples[of])


@given(st.floats(0.0, 1.0), st.integers())
def test_a_profiled_run_strays_no_further_than_three_of_its_spread(sigma: float, seed: int) -> None:
    """Up or down: what a log-normal does past that was never measured."""
    times, chance = ProfiledTimes(Even(per_text_s=0.010), sigma), random.Random(seed)
    for _ in range(50):
        assert -3.001 * sigma <= math.log(times.noise(1, chance)) <= 3.001 * sigma


def test_the_pace_scales_every_run() -> None:
    """Twice as slow a host takes twice as long."""
    assert ProfiledTimes(Even(per_text_s=0.010), 0.1, slowdown=2.0).median_s(3, 1) == pytest.approx(0.060)


def test_the_cheapest_batch_is_the_one_that_costs_least_a_text() -> None:
    """Among those that the variant can form."""
    assert variant("v", 80.0, Even(fixed_s=0.008, per_text_s=0.001), max_batch=8).cheapest_s(1) == pytest.approx(0.002)
