"""The capacity price: Pareto fronts, their slopes, and how arrivals and queued requests set the price."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.forecasting.forecaster import ServedCheckpoint
from gateway.scheduling.arrivals import ArrivalStats
from gateway.scheduling.price import HORIZONS_S, CapacityPrice, ParetoPoint, joined, pareto_front, price_of, sizes


@dataclass
class Affine(ServedCheckpoint):
    """A checkpoint whose batch takes a fixed time and a time for each input."""

    utility: float
    fixed_s: float
    each_s: float
    max_batch: int = 16
    tokenizer: int = 0

    def run_s(self, inputs: int, tokens: int) -> float:
        return self.fixed_s + self.each_s * inputs


FAST, GOOD = Affine(80.0, 0.002, 0.002), Affine(90.0, 0.004, 0.006)

corners = st.builds(ParetoPoint, st.floats(0.001, 1.0), st.floats(1.0, 100.0))
clouds = st.lists(corners, min_size=1, max_size=8)


def _arrivals(rate_per_s: float, budget_s: float = 0.1, count: int = 400) -> ArrivalStats:
    arrivals = ArrivalStats()
    for place in range(count):
        arrivals.arrived(place / rate_per_s, budget_s, (50,))
    return arrivals


def _within(slacks_s: Sequence[float]) -> list[int]:
    """Return how many of these ascending slacks lie within each horizon, and how many there are."""
    return [*(bisect_right(slacks_s, horizon_s) for horizon_s in HORIZONS_S), len(slacks_s)]


def _value(front: list[ParetoPoint], cost_s: float) -> float:
    for left, right in pairwise(front):
        if cost_s <= right.cost_s:
            return left.utility + (right.utility - left.utility) * (cost_s - left.cost_s) / (right.cost_s - left.cost_s)
    return front[-1].utility


@given(clouds)
def test_a_frontier_is_concave_and_over_every_point(points: list[ParetoPoint]) -> None:
    """A Pareto front starts at the origin, is concave, passes below no point, and has its corners among the points."""
    front = pareto_front(points)
    assert front[0] == ParetoPoint(0.0, 0.0)
    assert set(front[1:]) <= set(points)
    slopes = [(right.utility - left.utility) / (right.cost_s - left.cost_s) for left, right in pairwise(front)]
    assert all(slope > 0 for slope in slopes)
    assert all(later <= slope * (1 + 1e-9) for slope, later in pairwise(slopes))
    assert all(_value(front, point.cost_s) >= point.utility * (1 - 1e-9) for point in points)


@given(clouds)
def test_a_frontier_does_not_depend_on_the_order_of_the_points(points: list[ParetoPoint]) -> None:
    """A Pareto front does not depend on the order of its points."""
    assert (
        pareto_front(points) == pareto_front(points[::-1]) == pareto_front(sorted(points, key=lambda one: one.utility))
    )


@given(clouds)
def test_the_price_falls_with_the_time_that_each_may_have(points: list[ParetoPoint]) -> None:
    """The price never rises with the time that each request may have, and is 0 where the best is affordable."""
    front = pareto_front(points)
    prices = [price_of(front, each_s) for each_s in (0.0, 0.01, 0.1, 0.3, 0.7, 1.0)]
    assert prices == sorted(prices, reverse=True)
    assert prices[-1] == 0.0
    assert prices[0] >= front[1].utility / front[1].cost_s


def test_between_two_corners_the_cheaper_is_preferred() -> None:
    """Where the time does not suffice for the dearer checkpoint, the cheaper has the higher utility after its cost."""
    cheap, dear = ParetoPoint(0.01, 80.0), ParetoPoint(0.03, 90.0)
    price = price_of(pareto_front([cheap, dear]), 0.029)
    assert cheap.utility - price * cheap.cost_s > dear.utility - price * dear.cost_s
    assert price == pytest.approx(10 / 0.02, rel=0.15)


@given(st.lists(clouds.map(pareto_front), min_size=1, max_size=5))
def test_the_frontier_of_several_is_concave_and_their_mean_at_every_price(fronts: list[list[ParetoPoint]]) -> None:
    """A joined Pareto front is concave, and its best utility at any price is the mean of what the fronts have there."""
    mean = joined(fronts)
    for price in (0.0, 1.0, 30.0, 300.0, 3000.0):
        best = max(point.utility - price * point.cost_s for point in mean)
        apart = [max(point.utility - price * point.cost_s for point in front) for front in fronts]
        assert best == pytest.approx(sum(apart) / len(apart), rel=1e-6, abs=1e-6)
    slopes = [(right.utility - left.utility) / (right.cost_s - left.cost_s) for left, right in pairwise(mean)]
    assert all(later <= slope * (1 + 1e-6) for slope, later in pairwise(slopes))


def test_an_idle_task_has_time_for_nothing_and_everything() -> None:
    """Before any arrival the price is 0 and the least cost of a request is 0."""
    congestion = CapacityPrice(ArrivalStats(), [FAST, GOOD])
    assert congestion.price(_within([]), 2.0, 0.0, 0.0) == 0.0
    assert congestion.least_cost_s == 0.0


@given(st.floats(10, 2000), st.lists(st.floats(0.005, 0.6), max_size=60), st.floats(0, 0.2))
def test_the_price_falls_with_cores_and_rises_with_who_waits(
    rate_per_s: float, slacks_s: list[float], busy_s: float
) -> None:
    """The price is never negative, never rises with more cores, and never falls as the queue grows."""
    arrivals = _arrivals(rate_per_s, count=100)
    now_s = 99 / rate_per_s
    congestion = CapacityPrice(arrivals, [FAST, GOOD])
    slacks_s.sort()
    crowd = sorted([*slacks_s, *[0.05] * 300])
    few, many = (congestion.price(_within(slacks_s), cores, busy_s, now_s) for cores in (1.0, 64.0))
    assert 0.0 <= many <= few * (1 + 1e-9)
    assert congestion.price(_within(crowd), 1.0, busy_s, now_s) >= few * (1 - 1e-9)
    assert congestion.utility_left == pytest.approx(0.0, abs=1.0)


def test_more_that_wait_never_cost_less() -> None:
    """At a low arrival rate the price never falls as the queue grows, and is 0 for an empty queue."""
    congestion = CapacityPrice(_arrivals(20), [FAST, GOOD])
    now_s = 399 / 20
    prices = [congestion.price(_within([0.1] * waiting), 1.0, 0.0, now_s) for waiting in (0, 2, 4, 8, 16, 32, 64, 128)]
    assert prices == sorted(prices)
    assert prices[0] == 0.0
    assert prices[-1] > 20 * (GOOD.utility - FAST.utility)


def test_what_is_left_of_the_worth_is_nothing_once_there_is_too_much_to_do() -> None:
    """The utility left after cost is the best quality on an idle gateway, and 0 under more demand than can be met."""
    now_s = 399 / 20
    congestion = CapacityPrice(_arrivals(20), [FAST, GOOD])
    congestion.price(_within([]), 4.0, 0.0, now_s)
    assert congestion.utility_left == pytest.approx(GOOD.utility)
    congestion.price(_within([0.05] * 200), 1.0, 0.0, now_s)
    assert congestion.utility_left <= 1e-9


def test_runs_under_way_take_of_the_time() -> None:
    """Running batches raise the price, since queued requests cannot have that core time."""
    congestion = CapacityPrice(_arrivals(20), [FAST, GOOD])
    now_s = 399 / 20
    assert congestion.price(_within([0.1] * 6), 1.0, 0.0, now_s) < congestion.price(
        _within([0.1] * 6), 1.0, 0.08, now_s
    )


def test_the_long_run_charges_each_budget_by_its_own_batches() -> None:
    """Short budgets pay a higher price than long ones at equal rates, because they leave no time for large batches."""
    rate_per_s = 100
    patient, pressed = _arrivals(rate_per_s, budget_s=1.0), _arrivals(rate_per_s, budget_s=0.03)
    now_s = 399 / rate_per_s
    later, now = _within([0.6] * 2), _within([0.03] * 2)
    assert CapacityPrice(patient, [FAST, GOOD]).price(later, 1.0, 0.0, now_s) < 1.0
    assert CapacityPrice(pressed, [FAST, GOOD]).price(now, 1.0, 0.0, now_s) > 500.0


def test_with_nobody_waiting_nothing_is_asked_for() -> None:
    """With an empty queue the price is 0 at any arrival rate."""
    for rate_per_s in (20, 150, 2000):
        congestion = CapacityPrice(_arrivals(rate_per_s), [FAST, GOOD])
        prices = [congestion.price(_within([0.09] * count), 1.0, 0.0, 399 / rate_per_s) for count in (0, 1, 2, 3)]
        assert prices[0] == 0.0
        assert prices == sorted(prices)


@pytest.mark.parametrize("rate_per_s", [300, 600, 2000])
def test_a_rush_that_is_over_is_paid_for_no_longer(rate_per_s: float) -> None:
    """A single queued request pays a high price in a rush, and nothing two seconds after it.

    The mean rate stays high for longer; the recent rate shows that the rush is over.
    """
    arrivals, ends_s = _arrivals(rate_per_s), 399 / rate_per_s
    congestion = CapacityPrice(arrivals, [FAST, GOOD])
    rush, after = (congestion.price(_within([0.09]), 0.5, 0.0, now_s) for now_s in (ends_s, ends_s + 2.0))
    assert rush > 15_000
    assert arrivals.mean_rate(ends_s + 2.0) > 80
    assert after < 1.0


def test_many_who_are_patient_do_not_make_the_time_of_few_pressed_ones_free() -> None:
    """A few urgent requests raise the price, however many patient ones wait beside them."""
    now_s = 399 / 100
    mixed = ArrivalStats()
    for place in range(400):
        mixed.arrived(place / 100, 0.04 if place % 4 == 0 else 3.0, (50,))
    congestion = CapacityPrice(mixed, [FAST, GOOD])
    patient = congestion.price(_within([2.0] * 8), 1.0, 0.0, now_s)
    both = congestion.price(_within([0.02] * 8 + [2.0] * 8), 1.0, 0.0, now_s)
    assert both > 2 * patient


def test_the_least_cost_is_that_of_the_cheapest_in_its_batch() -> None:
    """The least cost is that of the cheapest checkpoint in its largest batch."""
    congestion = CapacityPrice(_arrivals(20, budget_s=10.0), [FAST, GOOD])
    congestion.price(_within([]), 1.0, 0.0, 399 / 20)
    assert congestion.least_cost_s == pytest.approx(0.002 + 0.002 / 16)


def test_sizes_end_with_the_most() -> None:
    """The batch sizes that are tried ascend from one to the largest allowed."""
    for most in range(1, 200):
        tried = sizes(most)
        assert tried == sorted(set(tried))
        assert (tried[0], tried[-1]) == (1, most)


def test_the_price_is_never_raised_past_the_best_bargain() -> None:
    """However long the queue is, a full batch of the cheapest checkpoint is still worth its price."""
    congestion = CapacityPrice(_arrivals(20, budget_s=0.5), [FAST, GOOD])
    price = congestion.price(_within([0.5] * 2000), 1.0, 0.0, 399 / 20)
    assert 16 * FAST.utility - price * FAST.run_s(16, 50) == pytest.approx(0.0, abs=0.01)


def test_checkpoints_that_are_worth_nothing_have_a_price_all_the_same() -> None:
    """A checkpoint of quality 0 costs nothing, and its requests are still priced."""
    congestion = CapacityPrice(_arrivals(1000.0), [Affine(0.0, 0.002, 0.002)])
    assert congestion.price(_within([0.01] * 50), 1.0, 0.0, 1.0) == 0.0
    assert congestion.least_cost_s == 0.0


def test_a_crowd_is_what_is_too_much_of_late_and_on_average() -> None:
    """It is crowded only while both the recent rate and the mean rate exceed the capacity, however many are queued."""
    arrivals = _arrivals(20)
    for place in range(200):
        arrivals.arrived(20.0 + place * 1e-4, 0.1, (50,))
    heap, flooded = CapacityPrice(arrivals, [FAST]), CapacityPrice(_arrivals(1000), [FAST])
    heap.price(_within([0.02] * 20), 0.5, 0.0, 20.02)
    assert arrivals.rate(20.02) * heap.least_cost_s > 0.5 > arrivals.mean_rate(20.02) * heap.least_cost_s
    assert not heap.crowded
    flooded.price(_within([]), 0.2, 0.0, 0.399)
    assert flooded.crowded
    flooded.price(_within([]), 0.2, 0.0, 0.399 + 2.0)
    assert not flooded.crowded
