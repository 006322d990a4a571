"""All runs of a grid: which there are, in which order they come back, and what their processes are made of."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import msgspec
import pytest
from small_baselines import three
from small_scenarios import scenario

from loadtests.scenarios.model import RequestClass
from loadtests.simulator.errors import NothingCounted, UnknownPolicy, WorkerLost
from loadtests.simulator.play import Place
from loadtests.simulator.requests import Fate
from loadtests.simulator.runs import Insisted, Ran, in_order, orders_of, run_all, side_by_side
from loadtests.simulator.showing import effort, refusal_grid, speed

VARIANTS = three(max_batch=8)
SMALL = scenario(
    seconds=0.5,
    warmup_s=0.1,
    loads=(0.5, 2.0),
    cvs=(1.0, 4.0),
    seeds=(1, 2),
    requests=(RequestClass(budget_ms=(50, 150)),),
)


def test_a_grid_is_every_policy_at_every_place_under_every_seed_once() -> None:
    """However often a load is named."""
    orders = orders_of(SMALL.model_copy(update={"loads": (0.5, 2.0, 0.5)}), ("slackfit", "static:grand"))
    assert len(orders) == len(set(orders)) == 2 * 2 * 2 * 2
    assert orders[0].place == Place(0.5, 1.0, 1) and orders[1].place == Place(0.5, 1.0, 2)


def test_results_come_in_the_order_of_the_grid_whoever_was_first() -> None:
    """The dearest run first, which is at the highest load."""
    orders = orders_of(SMALL, ("slackfit", "static:grand"))
    ran = list(run_all(SMALL, VARIANTS, orders, jobs=1))
    assert [one.order.place.load for one in ran] == [2.0] * 8 + [0.5] * 8
    results = [one.result for one in in_order(ran, orders)]
    named = [(run.policy, Place(run.load, run.cv, run.seed)) for run in results]
    assert named == [(order.policy, order.place) for order in orders]
    assert sum(one.requests for one in ran) > sum(run.offered for run in results), "the warm-up is simulated too"


def test_samples_are_kept_where_they_are_plotted_and_nowhere_else() -> None:
    """At the load nearest to 1, under the first seed: a grid of all samples would not fit in memory."""
    orders = orders_of(SMALL, ("static:swift",), plots=True)
    recorded = in_order(list(run_all(SMALL, VARIANTS, orders, jobs=1)), orders)
    kept = {(one.result.load, one.result.seed) for one in recorded if one.samples}
    assert kept == {(0.5, 1)}


def test_two_processes_give_what_one_does() -> None:
    """To the byte: a run knows nothing of its process. Their hashes are seeded anew, so no order of a set may tell."""
    orders = orders_of(SMALL.model_copy(update={"seeds": (1,), "cvs": (4.0,)}), ("slackfit", "proteus", "clairvoyant"))
    alone, beside = (in_order(list(run_all(SMALL, VARIANTS, orders, jobs)), orders) for jobs in (1, 2))
    assert msgspec.json.encode(alone) == msgspec.json.encode(beside)


def test_work_is_done_once_for_each_item() -> None:
    """On one process or on more than there are items; and for none at all."""
    assert sorted(side_by_side(abs, range(-4, 1), 2)) == [0, 1, 2, 3, 4]
    assert list(side_by_side(abs, [-3], 8)) == [3]
    assert list(side_by_side(abs, [], 8)) == []


def test_a_lost_process_is_said() -> None:
    """It ended before its work did."""
    with pytest.raises(WorkerLost, match="ended before its run did"):
        list(side_by_side(os._exit, [3, 3], 2))


@pytest.mark.parametrize("error", [UnknownPolicy("mine", "ours", "theirs"), NothingCounted("no"), WorkerLost("gone")])
def test_an_error_crosses_processes_unchanged(error: Exception) -> None:
    """Type and words."""
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))


def test_a_process_that_simulates_imports_no_engine_and_no_plots() -> None:
    """Seconds for each process otherwise, and memory."""
    heavy = ("torch", "transformers", "matplotlib", "onnxruntime", "ray", "fastapi")
    said = f"import loadtests.simulator.runs, sys; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


def test_the_command_is_light_to_import() -> None:
    """`punctual --help` waits for neither the simulator nor a model of data."""
    heavy = ("numpy", "pydantic", "msgspec", "highspy", "loadtests.simulator.play")
    said = f"import loadtests.simulator.commands, sys; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


def test_the_effort_is_of_what_was_simulated() -> None:
    """Requests by a core's seconds; the bound, which is worked out and not played, apart."""
    orders = {order.policy: order for order in orders_of(SMALL, ("punctual", "slackfit", "clairvoyant"))}
    ran = [
        Ran(orders["punctual"], (), 1000, 1.0),
        Ran(orders["slackfit"], (), 1000, 0.25),
        Ran(orders["clairvoyant"], (), 1000, 9.0),
    ]
    assert speed(ran[:2]) == pytest.approx(1600) and speed([]) == 0.0
    said = effort(ran, 7.0, 2)
    assert "2,000 requests in 2 runs simulated, 1,600 a second of a core (punctual alone 1,000)" in said
    assert "9.0 s of a core for the bound in 1 runs; 7.0 s in all with 2 processes" in said


def test_a_refusal_was_right_where_the_request_was_not_in_time_after_all() -> None:
    """Late, or given up; by place, and of all."""
    fates = (Fate.LATE, Fate.FAILED, Fate.IN_TIME, Fate.LATE)
    insisted = [Insisted(Place(2.0, 1.0, 1), place, fate) for place, fate in enumerate(fates)]
    grid = refusal_grid([*insisted, Insisted(Place(2.0, 4.0, 1), 9, Fate.IN_TIME)])
    rows = {row.label.text: [entry.text for entry in row.entries] for row in grid.rows}
    assert rows == {
        "CV 1, load 2": ["4", "3", "75.0 %"],
        "CV 4, load 2": ["1", "0", "0.0 %"],
        "all": ["5", "3", "60.0 %"],
    }
