"""Arrival statistics as a gateway sees them: the rate, the expected arrivals, the budgets and the text lengths."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest

from gateway.scheduling.arrivals import HORIZONS_S, MEMORY_S, REMEMBERED, ArrivalStats, until


def _steady(count: int, gap_s: float, budget_s: float = 0.1, tokens: int = 50) -> ArrivalStats:
    arrivals = ArrivalStats()
    for place in range(count):
        arrivals.arrived(place * gap_s, budget_s, (tokens,))
    return arrivals


def _arriving(times_s: Iterable[float]) -> ArrivalStats:
    arrivals = ArrivalStats()
    for time_s in times_s:
        arrivals.arrived(time_s, 0.1, (50,))
    return arrivals


def _independent(seed: int, rate_per_s: float = 100.0) -> ArrivalStats:
    chance, now_s, times_s = Random(seed), 0.0, []
    for _ in range(2 * REMEMBERED):
        now_s += chance.expovariate(rate_per_s)
        times_s.append(now_s)
    return _arriving(times_s)


def test_before_any_arrival_nothing_is_expected() -> None:
    """Before any arrival the rate, the budgets and the expected arrivals are empty or 0."""
    arrivals = ArrivalStats()
    assert arrivals.rate(1.0) == arrivals.mean_rate(1.0) == 0.0
    assert arrivals.dispersion(0.1) == 1.0
    assert arrivals.ahead(1.0) == (0.0,) * len(HORIZONS_S)
    assert arrivals.budgets_s == ()


def test_the_rate_is_that_of_late_and_is_forgotten() -> None:
    """Steady arrivals show their rate, which falls to 1/e after one memory of silence."""
    arrivals = _steady(1000, 0.005)
    now_s = 999 * 0.005
    assert arrivals.rate(now_s) == pytest.approx(200, rel=0.01)
    assert arrivals.rate(now_s + MEMORY_S) == pytest.approx(200 / 2.71828, rel=0.01)


def test_steady_arrivals_are_expected_steadily() -> None:
    """Steady arrivals are expected at their spacing within each horizon."""
    arrivals = _steady(400, 0.01 + 1e-7)
    expected = arrivals.ahead(399 * (0.01 + 1e-7))
    assert expected == pytest.approx((0, 0, 0, 1, 3, 7, 15, 31, 63), abs=1.01)
    assert list(expected) == sorted(expected)


def test_arrivals_in_bursts_are_expected_in_bursts() -> None:
    """More arrivals are expected within a burst than in the silence between two bursts."""
    arrivals = ArrivalStats()
    for burst in range(40):
        for place in range(8):
            arrivals.arrived(burst * 0.2 + place * 0.001, 0.1, (50,))
    last_s = 39 * 0.2 + 7 * 0.001
    within, between = until(arrivals.ahead(last_s), 0.01), until(arrivals.ahead(last_s + 0.05), 0.01)
    assert within > 2
    assert between < 0.1


def test_budgets_are_a_sample_in_order_of_the_latest() -> None:
    """The budgets are an ascending sample of at most 16 of those remembered; earlier ones are forgotten."""
    arrivals = ArrivalStats()
    for place in range(REMEMBERED):
        arrivals.arrived(place * 0.01, 9.0, (50,))
    for place in range(REMEMBERED + 64):  # until the first lesson after the last of the others is forgotten
        arrivals.arrived(5.0 + place * 0.01, 0.001 * (1 + (place * 37) % REMEMBERED), (50,))
    sample = arrivals.budgets_s
    assert len(sample) == 16
    assert list(sample) == sorted(sample)
    assert max(sample) < 1.0
    assert sum(sample) / 16 == pytest.approx(0.001 * (REMEMBERED + 1) / 2, rel=0.05)


def test_lengths_follow_the_texts() -> None:
    """The mean length follows the recent texts."""
    arrivals = _steady(10, 0.01, tokens=100)
    assert arrivals.tokens == [100]
    for place in range(600):
        arrivals.arrived(1.0 + place * 0.01, 0.1, (400,))
    assert arrivals.tokens == [pytest.approx(400, rel=0.01)]


def test_each_tokenizer_has_lengths_of_its_own() -> None:
    """The mean length is learnt by each tokenizer apart, and is never below one token."""
    arrivals = ArrivalStats()
    for place in range(600):
        arrivals.arrived(place * 0.01, 0.1, (100, 0, 250 if place % 2 else 150))
    assert list(arrivals.tokens[:2]) == [100, 1]
    assert arrivals.tokens[2] == pytest.approx(200, rel=0.05)


def test_a_lesson_is_counted_whenever_something_was_learnt() -> None:
    """The lesson number rises with each early arrival and later with each 64th, as the statistics change."""
    assert _steady(16, 0.01).lesson == 16
    arrivals = _steady(300, 0.01)
    before = arrivals.lesson, arrivals.budgets_s
    arrivals.arrived(3.0, 7.0, (50,))
    assert (arrivals.lesson, arrivals.budgets_s) == before
    for place in range(64):
        arrivals.arrived(3.1 + place * 0.01, 7.0, (50,))
    assert arrivals.lesson == before[0] + 1
    assert arrivals.budgets_s != before[1]


def test_counts_lie_between_those_of_the_horizons_and_go_on_after_the_last() -> None:
    """Expected counts are interpolated between horizons, continue in proportion past the last, and are 0 before now."""
    counts = tuple(float(place**2) for place in range(len(HORIZONS_S)))
    assert [until(counts, horizon_s) for horizon_s in HORIZONS_S] == pytest.approx(counts)
    assert until(counts, (HORIZONS_S[3] + HORIZONS_S[4]) / 2) == pytest.approx((9 + 16) / 2)
    assert until(counts, 2 * HORIZONS_S[-1]) == pytest.approx(2 * counts[-1])
    assert until(counts, -1.0) == 0.0


@pytest.mark.parametrize("rate_per_s", [5.0, 400.0, 4000.0, 50_000.0])
def test_the_mean_rate_is_that_of_all_remembered_however_fast_they_come(rate_per_s: float) -> None:
    """The mean rate is that of all remembered arrivals at any speed, and a silence lowers it."""
    arrivals, now_s = _steady(2 * REMEMBERED, 1 / rate_per_s), (2 * REMEMBERED - 1) / rate_per_s
    assert arrivals.mean_rate(now_s) == pytest.approx(rate_per_s, rel=0.01)
    assert arrivals.mean_rate(now_s + 2.0) == pytest.approx(REMEMBERED / (2.0 + REMEMBERED / rate_per_s), rel=0.01)


@pytest.mark.parametrize("count", [1, 3, REMEMBERED - 1])
def test_a_few_at_once_make_no_mean_rate_past_their_number_in_a_memory(count: int) -> None:
    """A few arrivals in one instant count as spread over one memory."""
    arrivals = _steady(count, 1e-7)
    assert arrivals.mean_rate((count - 1) * 1e-7) == pytest.approx(count / MEMORY_S)
    assert arrivals.mean_rate(10.0) == pytest.approx(count / 10.0)


def test_independent_arrivals_are_dispersed_as_much_as_they_are_many() -> None:
    """Independent arrivals have a dispersion near 1 at any window and rate."""
    for rate_per_s, window_s in ((100.0, 0.02), (100.0, 0.1), (4000.0, 0.003)):
        found = [_independent(seed, rate_per_s).dispersion(window_s) for seed in range(20)]
        assert all(0.4 < one < 2.5 for one in found)
        assert sum(found) / len(found) == pytest.approx(1.0, abs=0.2)


def test_clusters_are_dispersed_by_their_size_and_a_steady_stream_hardly() -> None:
    """Arrivals in clusters have a high dispersion, and steady arrivals a low one."""
    clustered = _arriving(cluster * 0.2 + place * 0.0005 for cluster in range(40) for place in range(16))
    assert clustered.dispersion(0.1) > 4.0
    steady = _steady(2 * REMEMBERED, 0.0125)
    assert clustered.mean_rate(8.0) == pytest.approx(steady.mean_rate(6.4), rel=0.1)
    assert steady.dispersion(0.1) < 0.5


def test_dispersion_is_bounded_both_ways() -> None:
    """The dispersion is between 0.3 and 64, for arrivals as regular or as clustered as they can be."""
    assert _steady(REMEMBERED, 0.01).dispersion(0.1) == pytest.approx(0.3)
    heaps = _arriving(heap + place * 1e-6 for heap in range(2) for place in range(REMEMBERED // 2))
    assert heaps.dispersion(0.1) == pytest.approx(64.0)


def test_few_arrivals_are_taken_for_independent() -> None:
    """Fewer than 32 arrivals, or arrivals in one instant, or a window near 0 s, give a dispersion of 1."""
    few, enough = (_steady(count, 0.01) for count in (31, 32))
    assert few.dispersion(0.05) == 1.0
    assert enough.dispersion(0.05) < 1.0
    assert _steady(REMEMBERED, 0.0).dispersion(0.1) == 1.0
    late = _arriving(1e6 + place * 0.01 for place in range(32))
    assert enough.dispersion(0.0) == late.dispersion(1e-15) == 1.0


def test_windows_are_at_the_most_an_eighth_of_what_is_remembered() -> None:
    """A window is at most an eighth of the remembered time, so that several windows can be compared."""
    arrivals = _arriving(place * 0.01 + 0.3 * (place // 20) for place in range(REMEMBERED))
    over_s = 255 * 0.01 + 0.3 * 12
    assert arrivals.dispersion(1000.0) == arrivals.dispersion(over_s / 8) > 1.0
    assert arrivals.dispersion(over_s / 16) != arrivals.dispersion(over_s / 8)
