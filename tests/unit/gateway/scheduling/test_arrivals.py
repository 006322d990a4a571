"""Arrival statistics as a gateway sees them: the rate, the expected arrivals, the budgets and the text lengths."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest

from gateway.scheduling.arrivals import MEMORY_S, REMEMBERED, ArrivalStats


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
    assert arrivals.budgets_s == ()


def test_the_rate_is_that_of_late_and_is_forgotten() -> None:
    """Steady arrivals show their rate, which falls to 1/e after one memory of silence."""
    arrivals = _steady(1000, 0.005)
    now_s = 999 * 0.005
    assert arrivals.rate(now_s) == pytest.approx(200, rel=0.01)
    assert arrivals.rate(now_s + MEMORY_S) == pytest.approx(200 / 2.71828, rel=0.01)


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
