"""The price by queue length: its limits, its order, and that it solves the equation it is derived from."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling.price import ParetoPoint, QueuePrice, pareto_front, slope

CHEAP, DEAR = ParetoPoint(0.003, 80.0), ParetoPoint(0.008, 90.0)
HULL = [ParetoPoint(0.0, 0.0), CHEAP, DEAR]
TIE = slope(CHEAP, DEAR)

fronts = st.lists(st.builds(ParetoPoint, st.floats(0.001, 0.1), st.floats(10.0, 100.0)), min_size=1, max_size=6).map(
    pareto_front
)
rates, cores = st.floats(1.0, 3000.0), st.floats(0.5, 64.0)
mosts = st.floats(1.0, 500.0)


def _given_up(cheap: ParetoPoint, rate: float) -> float:
    """Return how many must wait, of 10 at most, before the cheaper of two checkpoints is preferred."""
    price = QueuePrice([ParetoPoint(0.0, 0.0), cheap, DEAR], rate, 2.0, 10.0).price
    return next(waiting / 10 for waiting in range(100) if price(waiting / 10) >= slope(cheap, DEAR) * (1 - 1e-9))


@given(fronts, rates, cores, mosts)
def test_it_climbs_from_nothing_to_the_dearest_that_pays(
    front: list[ParetoPoint], rate: float, cores: float, most: float
) -> None:
    """The price is 0 for an empty queue, never falls as the queue grows, and ends at that of the cheapest point."""
    price = QueuePrice(front, rate, cores, most).price
    dearest = slope(front[0], front[1])
    asked = [price(most * part / 20) for part in range(21)]
    assert asked[0] == 0.0
    assert all(later >= earlier - 1e-6 * dearest for earlier, later in pairwise(asked))
    assert price(most * 1.001 + 1e-6) == pytest.approx(dearest, rel=1e-3)
    assert price(10 * most) == dearest


@given(fronts, rates, cores, mosts)
def test_it_takes_any_rate_and_number_of_cores(
    front: list[ParetoPoint], rate: float, cores: float, most: float
) -> None:
    """At any rate and number of cores the price lies between 0 and the price of the cheapest point."""
    for faster in (1e-3, 1.0, 1e3):
        price = QueuePrice(front, rate * faster, cores, most).price(most / 3)
        assert 0.0 <= price <= slope(front[0], front[1]) * (1 + 1e-9)


def test_it_solves_its_equation() -> None:
    """The slope of the price by queue length satisfies the price's equation at every queue length."""
    rate, cores = 300.0, 2.0
    price = QueuePrice(HULL, rate, cores, 10.0).price

    def utility(at: float) -> float:
        return rate * max(point.utility - at * point.cost_s for point in HULL) + cores * at

    def had(waiting: float) -> float:
        """Return what F must exceed for the price to rise as it does there."""
        rise = (price(waiting + 1e-4) - price(waiting - 1e-4)) / 2e-4
        cost_s = (DEAR if price(waiting) < TIE else CHEAP).cost_s
        return utility(price(waiting)) - rise * rate / 2 * cost_s

    levels = [had(waiting) for waiting in (0.5, 1.0, 3.0, 5.0, 8.0, 9.0)]
    assert {price(0.5) < TIE, price(9.0) < TIE} == {True, False}
    assert levels == pytest.approx([levels[0]] * len(levels), rel=1e-4)
    assert levels[0] < utility(TIE), "less is had than were the price never to change"


def test_where_little_is_won_by_the_dearer_it_is_given_up_sooner() -> None:
    """A better checkpoint is given up at a shorter queue where it gains less quality."""
    assert _given_up(ParetoPoint(0.003, 88.0), 300.0) < _given_up(ParetoPoint(0.003, 50.0), 300.0) - 1


def test_the_more_come_the_sooner_it_is_given_up() -> None:
    """A better checkpoint is given up at a shorter queue the higher the arrival rate is."""
    given_up = [_given_up(CHEAP, rate) for rate in (100.0, 200.0, 300.0, 450.0, 600.0)]
    assert given_up == sorted(given_up, reverse=True)
    assert given_up[0] > 9 and given_up[-1] < 2


@pytest.mark.parametrize("most", [0.0, -1.0])
def test_where_nobody_can_wait_whoever_waits_pays_the_most(most: float) -> None:
    """Where budgets leave no time to wait, any queued request pays the highest price."""
    price = QueuePrice(HULL, 100.0, 2.0, most)
    assert price.price(0.0) == 0.0
    assert price.price(1.0) == price.price(1e6) == QueuePrice(HULL, 100.0, 2.0, 1.0).price(1e6) > 0
