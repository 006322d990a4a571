"""One simulated run from a scenario to its result: the same again, the same requests for every policy, all counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest
from small_baselines import Affine, three
from small_scenarios import scenario

from gateway.model.tier import Tier
from loadtests.results.run import RunResult
from loadtests.scenarios.model import RequestClass, Scenario
from loadtests.simulator.errors import NothingCounted, UnknownPolicy
from loadtests.simulator.play import BOUND, FEASIBLE, OURS, Place, insisted, offered_at, played, policies_of
from loadtests.simulator.requests import Fate
from loadtests.simulator.variants import Variant

VARIANTS = three(max_batch=8)
GRAND, _, SWIFT = VARIANTS
LEAN = Variant("lean", "summarize", 40.0, Tier.REALTIME, Affine(0.02, 1.0), 1)
LEGAL = replace(LEAN, name="legal", quality=45.0, domain="legal")
STRICT = RequestClass(budget_ms=(50, 150), mode="strict")
PATIENT = RequestClass(budget_ms=(200, 900))
PLACE = Place(1.2, 2.0, 7)


def short(**fields: object) -> Scenario:
    """A second of strict and patient requests."""
    return scenario(**{"seconds": 1.0, "warmup_s": 0.25, "requests": (STRICT, PATIENT), **fields})


def result(policy: str, of: Scenario | None = None, place: Place = PLACE) -> RunResult:
    """The result of one run."""
    return played(of or short(), VARIANTS, policy, place)[0].result


@pytest.mark.parametrize("policy", [OURS, "proteus", "ramsis", "static:grand", BOUND])
def test_a_run_is_the_same_again_to_the_byte(policy: str) -> None:
    """Chance comes from the seed alone; another seed is another run."""
    assert msgspec.json.encode(result(policy)) == msgspec.json.encode(result(policy))
    other = result(policy, place=Place(PLACE.load, PLACE.cv, 8))
    assert (other.offered, other.effective_quality) != (result(policy).offered, result(policy).effective_quality)


def test_every_policy_meets_the_same_requests_and_ends_each_of_them() -> None:
    """offered = served + late + refused + failed, and by class they are as many under every policy."""
    of = short()
    runs = [one.result for policy in policies_of(of, VARIANTS) for one in played(of, VARIANTS, policy, PLACE)]
    assert {run.policy for run in runs} == {*policies_of(of, VARIANTS), FEASIBLE}
    for run in runs:
        assert run.offered == run.served + run.late + run.refused + run.failed
        assert [one.offered for one in run.by_class] == [one.offered for one in runs[0].by_class]
    assert len({run.offered for run in runs}) == 1 and runs[0].offered > 50


def test_no_policy_is_above_the_bound_nor_the_bound_below_its_own_schedule() -> None:
    """The schedule could be run; the bound is of anybody."""
    bound, feasible = (one.result for one in played(short(), VARIANTS, BOUND, PLACE))
    assert feasible.effective_quality <= bound.effective_quality <= GRAND.quality
    for policy in (OURS, "slackfit", "static:grand", "static:swift"):
        assert result(policy).effective_quality <= bound.effective_quality * 1.001


def test_the_warm_up_is_played_and_not_counted() -> None:
    """Results are of requests that came after it."""
    of = short()
    offered = offered_at(of, VARIANTS, PLACE)
    run = played(of, VARIANTS, "slackfit", PLACE, offered)[0].result
    assert all(one.fate is not Fate.OPEN for one in offered)
    assert run.offered == sum(one.arrived_s >= 0.25 for one in offered) < len(offered)


@pytest.mark.parametrize("taken", [{"overhead_core_ms": 1.1}, {"served_core_ms": 3.0}, {"others_cores": 1.0}])
def test_what_the_gateway_takes_of_the_cores_is_not_there_for_runs(taken: dict[str, float]) -> None:
    """At a rate that the swift one can just serve, half of the cores less makes it late."""
    rate = {"arrivals": {"rate_per_s": 900.0}}
    whole, half = (short(**rate, node={"cores": 2, **own}) for own in ({}, taken))
    assert result("static:swift", whole).attainment > result("static:swift", half).attainment + 0.1


@pytest.mark.parametrize("policy", ["punctuel", "static:", "static:grand+swift", "static:nobody", FEASIBLE, ""])
def test_an_unknown_policy_is_named_with_those_that_there_are(policy: str) -> None:
    """Rather than a traceback of what was not found."""
    with pytest.raises(UnknownPolicy, match="there is none of that name") as raised:
        result(policy)
    for known in policies_of(short(), VARIANTS):
        assert known in str(raised.value)


def test_a_static_choice_has_a_variant_for_each_task_in_one_order() -> None:
    """That of the tasks' names, in whatever process; no choice is of a variant that serves one domain only."""
    both = (RequestClass(task="summarize", budget_ms=(100, 900)), RequestClass(budget_ms=(50, 150)))
    of, variants = short(requests=both), (LEGAL, LEAN, GRAND, SWIFT)
    statics = [policy for policy in policies_of(of, variants) if policy.startswith("static:")]
    assert statics == ["static:grand+lean", "static:swift+lean"]
    run = played(of, variants, "static:swift+lean", PLACE)[0].result
    assert set(run.by_variant) == {"swift", "lean"} and run.quality_unit != "points"


def test_a_run_that_counts_nobody_is_said() -> None:
    """Rather than a division by none."""
    with pytest.raises(NothingCounted, match=r"load 0\.001, CV 1, seed 3"):
        result("slackfit", short(seconds=0.01), Place(0.001, 1.0, 3))


def refused_by(of: Scenario, place: Place) -> Sequence[int]:
    """The sequences of those that our policy refuses."""
    offered = offered_at(of, VARIANTS, place)
    played(of, VARIANTS, OURS, place, offered)
    return [one.sequence for one in offered if one.fate is Fate.REFUSED]


def test_a_refused_request_that_insists_is_let_in() -> None:
    """It ends as whoever was admitted does: in time, late, or given up."""
    of, place = short(seconds=0.2, warmup_s=0.0, requests=(RequestClass(budget_ms=(1, 4), mode="strict"),)), PLACE
    refused = refused_by(of, place)
    assert refused
    for sequence in (refused[0], refused[-1]):
        assert insisted(of, VARIANTS, place, sequence) in (Fate.IN_TIME, Fate.LATE, Fate.FAILED)
