"""Baselines that solve an optimization: Proteus's placement against all placements, and RAMSIS's decisions."""

from __future__ import annotations

import math
from itertools import combinations_with_replacement

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tried import tried

from loadtests.simulator.policies.proteus import HEADROOM, Placed, Placement, solved
from loadtests.simulator.policies.ramsis import Action, Worker, decisions

SIZES = (1, 2, 4, 8)


@st.composite
def placements(draw: st.DrawFn) -> Placement:
    """Up to three variants, two classes and three cores; some variants are too slow for a class."""
    variants = draw(st.integers(1, 3))
    rates = st.sampled_from([0.0, 10.0, 25.0, 60.0, 200.0])
    return Placement(
        tuple(draw(st.lists(st.sampled_from([50.0, 80.0, 86.0, 90.0]), min_size=variants, max_size=variants))),
        tuple(draw(st.lists(st.tuples(rates, rates), min_size=variants, max_size=variants))),
        draw(st.tuples(st.floats(1.0, 300.0), st.floats(1.0, 300.0))),
        draw(st.integers(1, 3)),
    )


def served_per_s(placed: Placed) -> float:
    """The rate that all variants serve, over all classes."""
    return sum(sum(row) for row in placed.served_per_s)


def load_of(placement: Placement, placed: Placed, variant: int) -> float:
    """The cores that a variant's share keeps busy."""
    pairs = zip(placed.served_per_s[variant], placement.per_s[variant], strict=True)
    return sum(share / per_s for share, per_s in pairs if per_s)


@given(placements())
def test_a_placement_keeps_the_cores_the_demand_and_the_objectives(placement: Placement) -> None:
    """A placement never exceeds the cores, a variant's cores or a class's demand, and serves nothing late."""
    placed = solved(placement)
    assert sum(placed.cores) == placement.cores
    for variant, cores in enumerate(placed.cores):
        assert load_of(placement, placed, variant) <= cores + 1e-5
        row = zip(placed.served_per_s[variant], placement.per_s[variant], strict=True)
        assert all(share < 1e-6 for share, per_s in row if not per_s)
    for kind, demand in enumerate(placement.demand_per_s):
        assert sum(row[kind] for row in placed.served_per_s) <= HEADROOM * demand + 1e-5


@given(placements())
def test_no_pure_placement_serves_more_or_serves_as_much_better(placement: Placement) -> None:
    """No assignment of cores to variants serves more than the solved one, or as much at higher quality."""
    placed = solved(placement)
    reached = served_per_s(placed)
    good = sum(q * sum(row) for q, row in zip(placement.qualities, placed.served_per_s, strict=True))
    for chosen in combinations_with_replacement(range(len(placement.qualities)), placement.cores):
        for order in ((0, 1), (1, 0)):
            free, served, quality = [1.0] * placement.cores, 0.0, 0.0
            for kind in order:
                left = HEADROOM * placement.demand_per_s[kind]
                for core, variant in enumerate(chosen):
                    per_s = placement.per_s[variant][kind]
                    more = min(left, free[core] * per_s)
                    if more > 0:
                        left, served = left - more, served + more
                        free[core] -= more / per_s
                        quality += more * placement.qualities[variant]
            assert served <= reached * (1 + 1e-5) + 1e-5
            if served >= reached * (1 - 1e-7):
                assert quality <= good * (1 + 1e-4) + 1e-3


def test_demand_decides_between_the_better_and_the_faster() -> None:
    """Low demand puts the better variant on both cores, medium demand one of each, high demand the faster on both."""
    qualities, per_s = (90.0, 80.0), ((50.0,), (250.0,))
    cores = [solved(Placement(qualities, per_s, (demand,), 2)).cores for demand in (40.0, 200.0, 450.0, 4000.0)]
    assert cores == [(2, 0), (1, 1), (0, 2), (0, 2)]


def worker(rate_per_s: float, objective_s: float = 0.1) -> Worker:
    """A worker with two variants of 20 ms and 4 ms, whose batches gain little."""
    rows = tuple(tuple(alone_s * (1 + 0.8 * (size - 1)) for size in SIZES) for alone_s in (0.020, 0.004))
    return Worker(rows, SIZES, (90.0, 80.0), rate_per_s, objective_s)


def test_an_idle_worker_runs_the_best_and_a_pressed_one_the_fastest() -> None:
    """An idle worker runs the best variant and a busy one the fastest; nothing runs if all would be late."""
    calm, pressed = decisions(worker(2.0)), decisions(worker(250.0))
    assert (calm.at(1, 0.1), pressed.at(1, 0.1)) == (Action(0, 1), Action(1, 1))
    assert (calm.at(2, 0.1), pressed.at(2, 0.1)) == (Action(0, 2), Action(1, 2))
    assert calm.at(1, 0.003) is None
    assert calm.at(3, 0.010) in (Action(1, 1), Action(1, 2))


@tried(0.7)
@given(st.sampled_from([2.0, 40.0, 150.0, 400.0]), st.integers(1, 60), st.floats(0.0, 0.3))
def test_an_action_ends_within_the_slack_and_takes_no_more_than_wait(rate_per_s: float, n: int, slack_s: float) -> None:
    """An action ends within the slack and takes no more requests than wait."""
    problem = worker(rate_per_s)
    action = decisions(problem).at(n, slack_s)
    if action is None:
        assert slack_s < 0.0045
    else:
        assert action.size <= n
        assert problem.seconds[action.variant][SIZES.index(action.size)] <= slack_s


def test_what_a_variant_cannot_batch_is_no_action() -> None:
    """A batch size that a variant cannot run, marked by infinite seconds, is never an action."""
    rows = ((0.02, math.inf, math.inf, math.inf), (0.004, 0.008, 0.02, 0.05))
    solution = decisions(Worker(rows, SIZES, (90.0, 80.0), 20.0, 0.2))
    assert all(action.size == 1 for row in solution.actions for action in row if action and action.variant == 0)


@pytest.mark.parametrize("rate_per_s", [0.01, 20.0, 5000.0])
def test_any_rate_has_a_solution(rate_per_s: float) -> None:
    """A solution exists for any rate, from one request in minutes to far above a worker's capacity."""
    assert decisions(worker(rate_per_s)).at(4, 0.1) is not None
