"""One simulated run from a scenario to its result: repeatable, with equal requests for every policy, all counted."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest
from small_baselines import Affine, three
from small_scenarios import scenario

from gateway.model.tier import Tier
from loadtests.reports.runs import RunResult
from loadtests.simulator.command import effort, refusal_grid, speed
from loadtests.simulator.runs import Insisted, Ran, WorkerLost, in_order, orders_of, run_all, side_by_side
from loadtests.simulator.simulation import BOUND, FEASIBLE, OURS, NothingCounted, Place, Simulation, UnknownPolicy
from loadtests.workload.arrivals import Fate
from loadtests.workload.scenario import RequestClass, Scenario
from loadtests.workload.variants import Variant

VARIANTS = three(max_batch=8)
GRAND, _, SWIFT = VARIANTS
LEAN = Variant("lean", "summarize", 40.0, Tier.REALTIME, Affine(0.02, 1.0), 1)
LEGAL = replace(LEAN, name="legal", quality=45.0, domain="legal")
STRICT = RequestClass(budget_ms=(50, 150), mode="strict")
PATIENT = RequestClass(budget_ms=(200, 900))
PLACE = Place(1.2, 2.0, 7)


def short(**fields: object) -> Scenario:
    """A scenario of one second with strict and patient requests."""
    return scenario(**{"seconds": 1.0, "warmup_s": 0.25, "requests": (STRICT, PATIENT), **fields})


def result(policy: str, of: Scenario | None = None, place: Place = PLACE) -> RunResult:
    """The result of one run."""
    return Simulation(of or short(), VARIANTS).played(policy, place)[0].result


@pytest.mark.parametrize("policy", [OURS, "proteus", "ramsis", "static:grand", BOUND])
def test_a_run_is_the_same_again_to_the_byte(policy: str) -> None:
    """A run repeats to the byte under its seed, and differs under another."""
    assert msgspec.json.encode(result(policy)) == msgspec.json.encode(result(policy))
    other = result(policy, place=Place(PLACE.load, PLACE.cv, 8))
    assert (other.offered, other.effective_quality) != (result(policy).offered, result(policy).effective_quality)


def test_every_policy_meets_the_same_requests_and_ends_each_of_them() -> None:
    """Every policy is offered equal requests, and each is served, late, refused or failed."""
    of = short()
    simulation = Simulation(of, VARIANTS, most_tried=100)
    runs = [one.result for policy in simulation.policies for one in simulation.played(policy, PLACE)]
    assert {run.policy for run in runs} == {*simulation.policies, FEASIBLE}
    for run in runs:
        assert run.offered == run.served + run.late + run.refused + run.failed
        assert [one.offered for one in run.by_class] == [one.offered for one in runs[0].by_class]
    assert len({run.offered for run in runs}) == 1 and runs[0].offered > 50


def test_no_policy_is_above_the_bound_nor_the_bound_below_its_own_schedule() -> None:
    """No policy earns more than the oracle's bound, and the oracle's feasible schedule stays below it."""
    bound, feasible = (one.result for one in Simulation(short(), VARIANTS).played(BOUND, PLACE))
    assert feasible.effective_quality <= bound.effective_quality <= GRAND.quality
    for policy in (OURS, "slackfit", "static:grand", "static:swift"):
        assert result(policy).effective_quality <= bound.effective_quality * 1.001


def test_the_warm_up_is_played_and_not_counted() -> None:
    """The warm-up is simulated, but results count only requests after it."""
    of = short()
    offered = Simulation(of, VARIANTS).offered(PLACE)
    run = Simulation(of, VARIANTS).played("slackfit", PLACE, offered)[0].result
    assert all(one.fate is not Fate.OPEN for one in offered)
    assert run.offered == sum(one.arrived_s >= 0.25 for one in offered) < len(offered)


@pytest.mark.parametrize("taken", [{"overhead_core_ms": 1.1}, {"served_core_ms": 3.0}, {"others_cores": 1.0}])
def test_what_the_gateway_takes_of_the_cores_is_not_there_for_runs(taken: dict[str, float]) -> None:
    """Core time taken by the gateway or by others lowers the attainment of a busy variant."""
    rate = {"arrivals": {"rate_per_s": 900.0}}
    whole, half = (short(**rate, node={"cores": 2, **own}) for own in ({}, taken))
    assert result("static:swift", whole).attainment > result("static:swift", half).attainment + 0.1


@pytest.mark.parametrize("policy", ["punctuel", "static:", "static:grand+swift", "static:nobody", FEASIBLE, ""])
def test_an_unknown_policy_is_named_with_those_that_there_are(policy: str) -> None:
    """An unknown policy is refused with the list of known ones."""
    with pytest.raises(UnknownPolicy, match="unknown for this scenario") as raised:
        result(policy)
    for known in Simulation(short(), VARIANTS).policies:
        assert known in str(raised.value)


def test_a_static_choice_has_a_variant_for_each_task_in_one_order() -> None:
    """A static choice names one general variant for each task, in the order of the tasks' names."""
    both = (RequestClass(task="summarize", budget_ms=(100, 900)), RequestClass(budget_ms=(50, 150)))
    of, variants = short(requests=both), (LEGAL, LEAN, GRAND, SWIFT)
    statics = [policy for policy in Simulation(of, variants).policies if policy.startswith("static:")]
    assert statics == ["static:grand+lean", "static:swift+lean"]
    run = Simulation(of, variants).played("static:swift+lean", PLACE)[0].result
    assert set(run.by_variant) == {"swift", "lean"} and run.quality_unit != "points"


def test_a_run_that_counts_nobody_is_said() -> None:
    """A run that counts no request is an error that names its load, CV and seed."""
    with pytest.raises(NothingCounted, match=r"load 0\.001, CV 1, seed 3"):
        result("slackfit", short(seconds=0.01), Place(0.001, 1.0, 3))


def refused_by(of: Scenario, place: Place) -> Sequence[int]:
    """The sequence numbers of the requests that our policy refuses."""
    offered = Simulation(of, VARIANTS).offered(place)
    Simulation(of, VARIANTS).played(OURS, place, offered)
    return [one.sequence for one in offered if one.fate is Fate.REFUSED]


def test_a_refused_request_that_insists_is_let_in() -> None:
    """A refused request that is admitted anyway is served, late, or failed."""
    of, place = short(seconds=0.2, warmup_s=0.0, requests=(RequestClass(budget_ms=(1, 4), mode="strict"),)), PLACE
    refused = refused_by(of, place)
    assert refused
    for sequence in (refused[0], refused[-1]):
        assert Simulation(of, VARIANTS).insisted(place, sequence) in (Fate.IN_TIME, Fate.LATE, Fate.FAILED)


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
    """A grid has every policy at every load and CV under every seed once, even if a load is listed twice."""
    orders = orders_of(SMALL.model_copy(update={"loads": (0.5, 2.0, 0.5)}), ("slackfit", "static:grand"))
    assert len(orders) == len(set(orders)) == 2 * 2 * 2 * 2
    assert orders[0].place == Place(0.5, 1.0, 1) and orders[1].place == Place(0.5, 1.0, 2)


def test_results_come_in_the_order_of_the_grid_whoever_was_first() -> None:
    """Runs at the highest load start first, but results come in the order of the grid."""
    orders = orders_of(SMALL, ("slackfit", "static:grand"))
    ran = list(run_all(Simulation(SMALL, VARIANTS), orders, jobs=1))
    assert [one.order.place.load for one in ran] == [2.0] * 8 + [0.5] * 8
    results = [one.result for one in in_order(ran, orders)]
    named = [(run.policy, Place(run.load, run.cv, run.seed)) for run in results]
    assert named == [(order.policy, order.place) for order in orders]
    assert sum(one.requests for one in ran) > sum(run.offered for run in results), "the warm-up is simulated too"


def test_samples_are_kept_where_they_are_plotted_and_nowhere_else() -> None:
    """Samples are kept only at the load nearest to 1 under the first seed, because all would not fit in memory."""
    orders = orders_of(SMALL, ("static:swift",), plots=True)
    recorded = in_order(list(run_all(Simulation(SMALL, VARIANTS), orders, jobs=1)), orders)
    kept = {(one.result.load, one.result.seed) for one in recorded if one.samples}
    assert kept == {(0.5, 1)}


def test_two_processes_give_what_one_does() -> None:
    """Two processes give equal results to the byte; since hash seeds differ, no order of a set matters."""
    orders = orders_of(SMALL.model_copy(update={"seeds": (1,), "cvs": (4.0,)}), ("slackfit", "proteus", "oracle"))
    alone, beside = (in_order(list(run_all(Simulation(SMALL, VARIANTS), orders, jobs)), orders) for jobs in (1, 2))
    assert msgspec.json.encode(alone) == msgspec.json.encode(beside)


def test_work_is_done_once_for_each_item() -> None:
    """Each item is worked on once, on one process or on more processes than items."""
    assert sorted(side_by_side(abs, range(-4, 1), 2)) == [0, 1, 2, 3, 4]
    assert list(side_by_side(abs, [-3], 8)) == [3]
    assert list(side_by_side(abs, [], 8)) == []


def test_a_lost_process_is_said() -> None:
    """A worker process that ends early is reported as lost."""
    with pytest.raises(WorkerLost, match="ended before its run"):
        list(side_by_side(os._exit, [3, 3], 2))


@pytest.mark.parametrize("error", [UnknownPolicy("mine", "ours", "theirs"), NothingCounted("no"), WorkerLost("gone")])
def test_an_error_crosses_processes_unchanged(error: Exception) -> None:
    """An error keeps its type and message when it is pickled."""
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))


def test_a_process_that_simulates_imports_no_engine_and_no_plots() -> None:
    """A simulating process imports no engine and no plots, which would cost seconds and memory in each."""
    heavy = ("torch", "transformers", "matplotlib", "onnxruntime", "ray", "fastapi")
    said = f"import loadtests.simulator.runs, sys; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


def test_the_effort_is_of_what_was_simulated() -> None:
    """The effort counts simulated requests per core-second, and reports the oracle's time separately."""
    orders = {order.policy: order for order in orders_of(SMALL, ("punctual", "slackfit", "oracle"))}
    ran = [
        Ran(orders["punctual"], (), 1000, 1.0),
        Ran(orders["slackfit"], (), 1000, 0.25),
        Ran(orders["oracle"], (), 1000, 9.0),
    ]
    assert speed(ran[:2]) == pytest.approx(1600) and speed([]) == 0.0
    said = effort(ran, 7.0, 2)
    assert "2,000 requests in 2 runs simulated, 1,600 a second of a core (punctual alone 1,000)" in said
    assert "9.0 s of a core for the bound in 1 runs; 7.0 s in all with 2 processes" in said


def test_a_refusal_was_right_where_the_request_was_not_in_time_after_all() -> None:
    """A refusal was right if the request, when admitted anyway, was not served in time."""
    fates = (Fate.LATE, Fate.FAILED, Fate.IN_TIME, Fate.LATE)
    insisted = [Insisted(Place(2.0, 1.0, 1), place, fate) for place, fate in enumerate(fates)]
    grid = refusal_grid([*insisted, Insisted(Place(2.0, 4.0, 1), 9, Fate.IN_TIME)])
    rows = {row.label.text: [entry.text for entry in row.entries] for row in grid.rows}
    assert rows == {
        "CV 1, load 2": ["4", "3", "75.0 %"],
        "CV 4, load 2": ["1", "0", "0.0 %"],
        "all": ["5", "3", "60.0 %"],
    }
