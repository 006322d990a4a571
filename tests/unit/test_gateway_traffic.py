"""Traffic as a gateway sees it: the rate, what is to be expected after a pause, budgets and lengths."""

from __future__ import annotations

import pytest

from gateway.traffic import HORIZONS_S, MEMORY_S, REMEMBERED, Traffic, until


def _steady(count: int, gap_s: float, budget_s: float = 0.1, characters: int = 50) -> Traffic:
    traffic = Traffic()
    for place in range(count):
        traffic.arrived(place * gap_s, budget_s, characters)
    return traffic


def test_before_any_arrival_nothing_is_expected() -> None:
    """No arrivals: no rate, no budgets, and nobody to come."""
    traffic = Traffic()
    assert traffic.rate(1.0) == 0.0
    assert traffic.ahead(1.0) == (0.0,) * len(HORIZONS_S)
    assert traffic.budgets_s == ()


def test_the_rate_is_that_of_late_and_is_forgotten() -> None:
    """Steady arrivals have their rate; after one memory of silence 1/e of it is left."""
    traffic = _steady(1000, 0.005)
    now_s = 999 * 0.005
    assert traffic.rate(now_s) == pytest.approx(200, rel=0.01)
    assert traffic.rate(now_s + MEMORY_S) == pytest.approx(200 / 2.71828, rel=0.01)


def test_steady_arrivals_are_expected_steadily() -> None:
    """Right after an arrival, as many are expected within each horizon as gaps go into it."""
    traffic = _steady(400, 0.01 + 1e-7)
    expected = traffic.ahead(399 * (0.01 + 1e-7))
    assert expected == pytest.approx((0, 0, 0, 1, 3, 7, 15, 31, 63), abs=1.01)
    assert list(expected) == sorted(expected)


def test_arrivals_in_bursts_are_expected_in_bursts() -> None:
    """In a burst more are expected at once than in the silence between two, at one and the same rate."""
    traffic = Traffic()
    for burst in range(40):
        for place in range(8):
            traffic.arrived(burst * 0.2 + place * 0.001, 0.1, 50)
    last_s = 39 * 0.2 + 7 * 0.001
    within, between = until(traffic.ahead(last_s), 0.01), until(traffic.ahead(last_s + 0.05), 0.01)
    assert within > 2
    assert between < 0.1


def test_budgets_are_a_sample_in_order_of_the_latest() -> None:
    """At most 16, ascending, evenly out of those remembered; what came before them is forgotten."""
    traffic = Traffic()
    for place in range(REMEMBERED):
        traffic.arrived(place * 0.01, 9.0, 50)
    for place in range(REMEMBERED + 64):  # until the lesson after the last of the others is forgotten
        traffic.arrived(5.0 + place * 0.01, 0.001 * (1 + (place * 37) % REMEMBERED), 50)
    sample = traffic.budgets_s
    assert len(sample) == 16
    assert list(sample) == sorted(sample)
    assert max(sample) < 1.0
    assert sum(sample) / 16 == pytest.approx(0.001 * (REMEMBERED + 1) / 2, rel=0.05)


def test_characters_follow_the_texts() -> None:
    """The mean at first, and later that of the texts of late."""
    traffic = _steady(10, 0.01, characters=100)
    assert traffic.characters == 100
    for place in range(600):
        traffic.arrived(1.0 + place * 0.01, 0.1, 400)
    assert traffic.characters == pytest.approx(400, rel=0.01)


def test_a_lesson_is_counted_whenever_something_was_learnt() -> None:
    """With each early arrival, later with each 64th: who keeps what was reckoned by a lesson knows when it is old."""
    assert _steady(16, 0.01).lesson == 16
    traffic = _steady(300, 0.01)
    before = traffic.lesson, traffic.budgets_s
    traffic.arrived(3.0, 7.0, 50)
    assert (traffic.lesson, traffic.budgets_s) == before
    for place in range(64):
        traffic.arrived(3.1 + place * 0.01, 7.0, 50)
    assert traffic.lesson == before[0] + 1
    assert traffic.budgets_s != before[1]


def test_counts_lie_between_those_of_the_horizons_and_go_on_after_the_last() -> None:
    """Until a horizon its own count; between two on the line; past the last in proportion; none before now."""
    counts = tuple(float(place**2) for place in range(len(HORIZONS_S)))
    assert [until(counts, horizon_s) for horizon_s in HORIZONS_S] == pytest.approx(counts)
    assert until(counts, (HORIZONS_S[3] + HORIZONS_S[4]) / 2) == pytest.approx((9 + 16) / 2)
    assert until(counts, 2 * HORIZONS_S[-1]) == pytest.approx(2 * counts[-1])
    assert until(counts, -1.0) == 0.0
