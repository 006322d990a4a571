"""ArrivalStats as a gateway sees it: the rate, what is to be expected after a pause, budgets and lengths."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest

from gateway.scheduling.arrivals import HORIZONS_S, MEMORY_S, REMEMBERED, ArrivalStats, until


def _steady(count: int, gap_s: float, budget_s: float = 0.1, characters: int = 50) -> ArrivalStats:
    arrivals = ArrivalStats()
    for place in range(count):
        arrivals.arrived(place * gap_s, budget_s, characters)
    return arrivals


def _arriving(times_s: Iterable[float]) -> ArrivalStats:
    arrivals = ArrivalStats()
    for time_s in times_s:
        arrivals.arrived(time_s, 0.1, 50)
    return arrivals


def _independent(seed: int, rate_per_s: float = 100.0) -> ArrivalStats:
    chance, now_s, times_s = Random(seed), 0.0, []
    for _ in range(2 * REMEMBERED):
        now_s += chance.expovariate(rate_per_s)
        times_s.append(now_s)
    return _arriving(times_s)


def test_before_any_arrival_nothing_is_expected() -> None:
    """No arrivals: no rate, no budgets, and nobody to come."""
    arrivals = ArrivalStats()
    assert arrivals.rate(1.0) == arrivals.mean_rate(1.0) == 0.0
    assert arrivals.dispersion(0.1) == 1.0
    assert arrivals.ahead(1.0) == (0.0,) * len(HORIZONS_S)
    assert arrivals.budgets_s == ()


def test_the_rate_is_that_of_late_and_is_forgotten() -> None:
    """Steady arrivals have their rate; after one memory of silence 1/e of it is left."""
    arrivals = _steady(1000, 0.005)
    now_s = 999 * 0.005
    assert arrivals.rate(now_s) == pytest.approx(200, rel=0.01)
    assert arrivals.rate(now_s + MEMORY_S) == pytest.approx(200 / 2.71828, rel=0.01)


def test_steady_arrivals_are_expected_steadily() -> None:
    """Right after an arrival, as many are expected within each horizon as gaps go into it."""
    arrivals = _steady(400, 0.01 + 1e-7)
    expected = arrivals.ahead(399 * (0.01 + 1e-7))
    assert expected == pytest.approx((0, 0, 0, 1, 3, 7, 15, 31, 63), abs=1.01)
    assert list(expected) == sorted(expected)


def test_arrivals_in_bursts_are_expected_in_bursts() -> None:
    """In a burst more are expected at once than in the silence between two, at one and the same rate."""
    arrivals = ArrivalStats()
    for burst in range(40):
        for place in range(8):
            arrivals.arrived(burst * 0.2 + place * 0.001, 0.1, 50)
    last_s = 39 * 0.2 + 7 * 0.001
    within, between = until(arrivals.ahead(last_s), 0.01), until(arrivals.ahead(last_s + 0.05), 0.01)
    assert within > 2
    assert between < 0.1


def test_budgets_are_a_sample_in_order_of_the_latest() -> None:
    """At most 16, ascending, evenly out of those remembered; what came before them is forgotten."""
    arrivals = ArrivalStats()
    for place in range(REMEMBERED):
        arrivals.arrived(place * 0.01, 9.0, 50)
    for place in range(REMEMBERED + 64):  # until the lesson after the last of the others is forgotten
        arrivals.arrived(5.0 + place * 0.01, 0.001 * (1 + (place * 37) % REMEMBERED), 50)
    sample = arrivals.budgets_s
    assert len(sample) == 16
    assert list(sample) == sorted(sample)
    assert max(sample) < 1.0
    assert sum(sample) / 16 == pytest.approx(0.001 * (REMEMBERED + 1) / 2, rel=0.05)


def test_characters_follow_the_texts() -> None:
    """The mean at first, and later that of the texts of late."""
    arrivals = _steady(10, 0.01, characters=100)
    assert arrivals.characters == 100
    for place in range(600):
        arrivals.arrived(1.0 + place * 0.01, 0.1, 400)
    assert arrivals.characters == pytest.approx(400, rel=0.01)


def test_a_lesson_is_counted_whenever_something_was_learnt() -> None:
    """With each early arrival, later with each 64th: who keeps what was reckoned by a lesson knows when it is old."""
    assert _steady(16, 0.01).lesson == 16
    arrivals = _steady(300, 0.01)
    before = arrivals.lesson, arrivals.budgets_s
    arrivals.arrived(3.0, 7.0, 50)
    assert (arrivals.lesson, arrivals.budgets_s) == before
    for place in range(64):
        arrivals.arrived(3.1 + place * 0.01, 7.0, 50)
    assert arrivals.lesson == before[0] + 1
    assert arrivals.budgets_s != before[1]


def test_counts_lie_between_those_of_the_horizons_and_go_on_after_the_last() -> None:
    """Until a horizon its own count; between two on the line; past the last in proportion; none before now."""
    counts = tuple(float(place**2) for place in range(len(HORIZONS_S)))
    assert [until(counts, horizon_s) for horizon_s in HORIZONS_S] == pytest.approx(counts)
    assert until(counts, (HORIZONS_S[3] + HORIZONS_S[4]) / 2) == pytest.approx((9 + 16) / 2)
    assert until(counts, 2 * HORIZONS_S[-1]) == pytest.approx(2 * counts[-1])
    assert until(counts, -1.0) == 0.0


@pytest.mark.parametrize("rate_per_s", [5.0, 400.0, 4000.0, 50_000.0])
def test_the_mean_rate_is_that_of_all_remembered_however_fast_they_come(rate_per_s: float) -> None:
    """No rush is too fast to be told; a silence after it counts in as well."""
    arrivals, now_s = _steady(2 * REMEMBERED, 1 / rate_per_s), (2 * REMEMBERED - 1) / rate_per_s
    assert arrivals.mean_rate(now_s) == pytest.approx(rate_per_s, rel=0.01)
    assert arrivals.mean_rate(now_s + 2.0) == pytest.approx(REMEMBERED / (2.0 + REMEMBERED / rate_per_s), rel=0.01)


@pytest.mark.parametrize("count", [1, 3, REMEMBERED - 1])
def test_a_few_at_once_make_no_mean_rate_past_their_number_in_a_memory(count: int) -> None:
    """Until as many came as are remembered, what came in an instant is taken to have come within the memory."""
    arrivals = _steady(count, 1e-7)
    assert arrivals.mean_rate((count - 1) * 1e-7) == pytest.approx(count / MEMORY_S)
    assert arrivals.mean_rate(10.0) == pytest.approx(count / 10.0)


def test_independent_arrivals_are_dispersed_as_much_as_they_are_many() -> None:
    """The variance of their number is its mean, at any window and rate: 1, but for what so few tell of it."""
    for rate_per_s, window_s in ((100.0, 0.02), (100.0, 0.1), (4000.0, 0.003)):
        found = [_independent(seed, rate_per_s).dispersion(window_s) for seed in range(20)]
        assert all(0.4 < one < 2.5 for one in found)
        assert sum(found) / len(found) == pytest.approx(1.0, abs=0.2)


def test_clusters_are_dispersed_by_their_size_and_a_steady_stream_hardly() -> None:
    """Sixteen at once are worth many independent arrivals to who must be ready for them, sixteen in turn are not."""
    clustered = _arriving(cluster * 0.2 + place * 0.0005 for cluster in range(40) for place in range(16))
    assert clustered.dispersion(0.1) > 4.0
    steady = _steady(2 * REMEMBERED, 0.0125)
    assert clustered.mean_rate(8.0) == pytest.approx(steady.mean_rate(6.4), rel=0.1)
    assert steady.dispersion(0.1) < 0.5


def test_dispersion_is_bounded_both_ways() -> None:
    """A metronome is not taken for perfect, and two great heaps are not without end."""
    assert _steady(REMEMBERED, 0.01).dispersion(0.1) == pytest.approx(0.3)
    heaps = _arriving(heap + place * 1e-6 for heap in range(2) for place in range(REMEMBERED // 2))
    assert heaps.dispersion(0.1) == pytest.approx(64.0)


def test_few_arrivals_are_taken_for_independent() -> None:
    """Of less than 32, or of any number in one instant or in windows of next to no time, nothing is concluded."""
    few, enough = (_steady(count, 0.01) for count in (31, 32))
    assert few.dispersion(0.05) == 1.0
    assert enough.dispersion(0.05) < 1.0
    assert _steady(REMEMBERED, 0.0).dispersion(0.1) == 1.0
    late = _arriving(1e6 + place * 0.01 for place in range(32))
    assert enough.dispersion(0.0) == late.dispersion(1e-15) == 1.0


def test_windows_are_at_the_most_an_eighth_of_what_is_remembered() -> None:
    """However long a window is asked for, there are several to compare."""
    arrivals = _arriving(place * 0.01 + 0.3 * (place // 20) for place in range(REMEMBERED))
    over_s = 255 * 0.01 + 0.3 * 12
    assert arrivals.dispersion(1000.0) == arrivals.dispersion(over_s / 8) > 1.0
    assert arrivals.dispersion(over_s / 16) != arrivals.dispersion(over_s / 8)
