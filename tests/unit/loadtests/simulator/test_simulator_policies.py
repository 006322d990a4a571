"""What each baseline is known for by its paper, on a small simulated node."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import pytest
from small_baselines import TASK, attainment, mixed_budgets, played, poisson, quality, setting_of, three, told, waiting

from gateway.scheduling.ruled import Chosen
from loadtests.simulator.policies.clipper import ClipperAimd
from loadtests.simulator.policies.division import PERIOD_S, Divided, Division
from loadtests.simulator.policies.model_switching import attained
from loadtests.simulator.policies.observed_load import ArrivalRate, BudgetClasses, level_of, rate_at
from loadtests.simulator.policies.registry import BASELINES, statics
from loadtests.simulator.policies.slackfit import SlackFit
from loadtests.simulator.policies.static import Static
from loadtests.workload.arrivals import Fate, Offered

VARIANTS = three()
GRAND, EVEN, SWIFT = VARIANTS
LOW, HIGH = 30.0, 300.0
"""Loads in requests per second on two cores: the grand variant can do 122 at most, the even 305, the swift 610."""


def served_by(offered: Sequence[Offered]) -> set[str | None]:
    """The variants that answered in time."""
    return {request.variant for request in offered if request.fate is Fate.IN_TIME}


@cache
def mean_quality(name: str, rate_per_s: float, count: int = 1000) -> float:
    """The effective quality of one policy at one load."""
    offered = poisson(rate_per_s, count)
    played({**BASELINES, **statics(VARIANTS)}[name], setting_of(rate_per_s, most_tried=600), offered)
    return quality(offered, VARIANTS)


def test_the_best_static_choice_collapses_past_its_capacity() -> None:
    """The best static choice collapses past its capacity, while the fastest keeps its lower quality."""
    rules = statics(VARIANTS)
    assert list(rules) == ["static:grand", "static:even", "static:swift"]
    assert mean_quality("static:grand", LOW) > 89
    assert mean_quality("static:grand", HIGH) < 50
    assert 79 < mean_quality("static:swift", HIGH) <= 80


@pytest.mark.parametrize("name", ["model-switching", "jellyfish", "slackfit", "proteus", "ramsis"])
def test_what_adapts_to_load_has_the_best_when_idle_and_beats_every_static_choice_when_busy(name: str) -> None:
    """Adaptive baselines have the best quality when idle and beat every static choice when busy, as papers say."""
    assert mean_quality(name, LOW) > 89
    assert mean_quality(name, HIGH) > max(mean_quality(static, HIGH) for static in statics(VARIANTS)) - 0.1


def test_a_static_batch_is_as_large_as_the_most_urgent_has_time_for() -> None:
    """A static batch is as large as the most urgent deadline allows: 20 ms for one input, 16 ms for each further."""
    rule = Static(setting_of(LOW), GRAND)
    for available_s, size in ((0.022, 1), (0.040, 2), (0.120, 6), (0.130, 7)):
        assert len(told(rule, waiting(*[available_s] * 10)).members) == size
    assert len(told(rule, waiting(*[0.019] * 10)).drop) == 10


def test_a_busy_static_queue_passes_over_those_that_would_have_it_run_one_by_one() -> None:
    """A busy static queue passes over an urgent request that would force a batch of one; alone, that request runs."""
    rule = Static(setting_of(LOW, three(more=0.1)), three(more=0.1)[0])
    tight, roomy = waiting(0.025), waiting(*[0.2] * 40)
    assert told(rule, tight).members == tuple(tight)
    chosen = told(rule, [*tight, *roomy])
    assert tight[0] not in chosen.members
    assert len(chosen.members) == GRAND.max_batch
    assert not chosen.drop


@pytest.mark.parametrize(("name", "high"), [("fastest-feasible", {"swift"}), ("best-feasible", {"grand"})])
def test_choosing_for_each_query_by_itself_takes_no_notice_of_the_load(name: str, high: set[str]) -> None:
    """Choosing for each request alone ignores the load: the variants that answer are equal at ten times the load."""
    for rate_per_s in (LOW, HIGH):
        offered = poisson(rate_per_s, 500)
        played(BASELINES[name], setting_of(rate_per_s), offered)
        assert served_by(offered) == high


def test_the_best_that_fits_is_the_best_whose_run_alone_keeps_the_budget() -> None:
    """The best feasible variant fits the budget by its 95th percentile; if none fits, the fastest runs."""
    for available_s, fitting in ((0.025, "grand"), (0.020, "even"), (0.006, "swift"), (0.0041, "swift")):
        variant = told(BASELINES["best-feasible"](setting_of(LOW)), waiting(available_s)).variant
        assert variant is not None
        assert variant.name == fitting


def test_model_switching_has_all_go_to_one_variant_and_to_a_faster_one_under_load() -> None:
    """Model switching sends all requests to one variant, and to a faster one under load."""
    setting = setting_of(HIGH, most_tried=1500)
    assert attained(setting, GRAND, LOW) > 0.99 > 0.5 > attained(setting, GRAND, HIGH)
    low, high = poisson(LOW, 300), poisson(HIGH, 800)
    played(BASELINES["model-switching"], setting_of(LOW, most_tried=600), low)
    played(BASELINES["model-switching"], setting, high)
    assert served_by(low) == {"grand"}
    slow = [request for request in high if request.variant == "grand"]
    assert len(slow) < len(high) / 10


@pytest.mark.parametrize("name", ["jellyfish", "proteus"])
def test_a_divided_node_serves_both_by_quality_and_by_capacity(name: str) -> None:
    """Above the best variant's capacity, a divided node runs both the best variant and the next faster one."""
    offered = poisson(1.2 * 122, 2000)
    watched = played(BASELINES[name], setting_of(1.2 * 122), offered)
    ran = {variant for variant, _ in watched.ran}
    assert len(ran & {"grand", "even"}) == 2
    assert attainment(offered) > 0.97


def test_jellyfish_gives_the_better_variant_to_those_with_time() -> None:
    """Jellyfish gives better variants to requests with longer budgets."""
    offered = poisson(150.0, 2000)
    played(BASELINES["jellyfish"], setting_of(150.0), offered)
    quality_of = {variant.name: variant.quality for variant in VARIANTS}

    def mean(those: list[Offered]) -> float:
        return sum(quality_of[request.variant or "swift"] for request in those) / len(those)

    patient = [request for request in offered if request.budget_s >= 0.2]
    hurried = [request for request in offered if request.budget_s < 0.2]
    assert mean(patient) > mean(hurried) + 1


def test_clipper_grows_its_batch_by_one_and_takes_a_tenth_off_when_late() -> None:
    """Clipper grows a batch by one after a full batch in time, and shrinks it by a tenth after a late one."""
    setting = setting_of(LOW)
    queue = waiting(*[3.0] * 60)
    rule = ClipperAimd(setting)
    sizes = []
    for seconds in [0.01] * 12 + [1.0, 1.0]:
        chosen = told(rule, queue)
        assert chosen.variant == GRAND
        sizes.append(len(chosen.members))
        rule.ended(GRAND, chosen.members, seconds, 0.0)
    sizes.append(len(told(rule, queue).members))
    assert sizes == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 11, 10]


def test_a_batch_of_clippers_that_was_not_full_teaches_it_nothing() -> None:
    """Clipper learns nothing from a batch that was not full; otherwise idle hours would allow any size."""
    rule = ClipperAimd(setting_of(LOW))
    for _ in range(5):
        chosen = told(rule, waiting(3.0))
        rule.ended(GRAND, chosen.members, 0.01, 0.0)
    assert len(told(rule, waiting(*[3.0] * 60)).members) == 2


@pytest.mark.parametrize(
    ("available_times_s", "variant", "members"),
    [
        ([0.005], "swift", 1),
        ([0.010], "even", 1),
        ([0.300], "grand", 1),
        ([0.025, *[0.3] * 9], "swift", 7),  # shares a bucket with three of the even; the larger batch wins
        ([0.025, 0.3, 0.3], "even", 3),
        ([0.300] * 32, "grand", 18),  # closer to the slack than 32 of the even
        ([1.0] * 32, "grand", 32),
    ],
)
def test_slackfit_runs_what_fills_the_slack_of_the_most_urgent(
    available_times_s: list[float], variant: str, members: int
) -> None:
    """SlackFit picks a fast variant for little slack, the best for a short queue, and a large batch for a long one."""
    chosen = told(SlackFit(setting_of(LOW, three(sigma=0.0))), waiting(*available_times_s))
    assert chosen.variant is not None
    assert (chosen.variant.name, len(chosen.members)) == (variant, members)


def test_slackfit_degrades_smoothly() -> None:
    """SlackFit loses a little quality with each step of load, and keeps its attainment."""
    qualities = []
    for rate_per_s in (30.0, 100.0, 200.0, 400.0):
        offered = poisson(rate_per_s, 1500)
        played(SlackFit, setting_of(rate_per_s), offered)
        assert attainment(offered) > 0.97
        qualities.append(quality(offered, VARIANTS))
    assert qualities == sorted(qualities, reverse=True)
    assert max(left - right for left, right in pairwise(qualities)) < 6


def test_ramsis_gives_each_worker_its_own_queue() -> None:
    """Each worker of RAMSIS serves its own queue."""
    rule = BASELINES["ramsis"](setting_of(LOW))
    queue = waiting(*[0.3] * 4)
    first = told(rule, queue)
    second = rule.choose([request for request in queue if request not in first.members], 0.0)
    assert {*first.members, *second.members} == set(queue)
    assert len(first.members) == len(second.members) == 2


def test_a_worker_of_ramsis_that_runs_leaves_its_queue_alone() -> None:
    """A running worker of RAMSIS leaves its queue waiting, even if a core is free."""
    rule = BASELINES["ramsis"](setting_of(HIGH))
    queue = waiting(*[0.03] * 20)
    first = told(rule, queue)
    queue = [request for request in queue if request not in first.members]
    second = rule.choose(queue, 0.0)
    queue = [request for request in queue if request not in second.members]
    assert first.variant is not None and second.variant is not None
    assert queue and rule.choose(queue, 0.0) == Chosen()
    rule.ended(first.variant, first.members, 0.01, 0.0)
    assert rule.choose(queue, 0.0).members


@pytest.mark.parametrize("name", [*BASELINES, *statics(VARIANTS)])
def test_what_would_be_late_even_alone_is_dropped_before_any_work(name: str) -> None:
    """A request that no variant can serve in time is dropped before any work."""
    offered = waiting(*[0.001] * 5)
    watched = played({**BASELINES, **statics(VARIANTS)}[name], setting_of(LOW), offered)
    assert [request.fate for request in offered] == [Fate.FAILED] * 5
    assert not watched.ran


def test_what_waits_for_a_variant_that_lost_its_cores_waits_for_another() -> None:
    """Requests waiting for a variant that lost its cores go to another at the first arrival after a new plan."""
    setting = setting_of(LOW)
    classes = BudgetClasses(setting, 1)
    plans = iter([Division({"grand": 2}, ({"grand": 1.0},)), Division({"even": 1}, ({"swift": 1.0},))])
    rule = Divided(setting, classes, lambda demand_per_s: next(plans))
    queue = waiting(*[9.0] * 40)
    assert told(rule, queue).variant == GRAND
    rest = [Offered(99, TASK, PERIOD_S, 9.0, 64)]
    rule.arrived(rest[0], PERIOD_S)
    chosen = rule.choose([*queue[32:], *rest], PERIOD_S)
    assert chosen.variant == EVEN
    assert len(chosen.members) == 9
    late = Offered(100, TASK, PERIOD_S, 9.0, 64)
    rule.arrived(late, PERIOD_S)
    assert rule.choose([late], PERIOD_S) == Chosen()


def test_the_observed_rate_starts_as_expected_and_ends_as_seen() -> None:
    """The observed rate starts at the expected one and follows the inputs of one window."""
    rate = ArrivalRate(2.0, expected_per_s=10.0)
    assert rate.per_s(0.0) == pytest.approx(10.0)
    for place in range(1, 41):
        rate.add(3, place * 0.1)
    assert rate.per_s(4.0) == pytest.approx(30.0)
    assert rate.per_s(100.0) == 0.0
    assert all(rate_at(level_of(per_s)) == pytest.approx(per_s, rel=0.1) for per_s in (0.02, 1.0, 37.0, 4000.0))
    assert level_of(0.0) == level_of(1 / 60)


def test_budgets_of_the_small_world_are_what_it_says() -> None:
    """Six in ten budgets of the small world are at most 0.1 s, as the loads above assume."""
    budgets_s = mixed_budgets(2000)
    assert sum(budget_s <= 0.1 for budget_s in budgets_s) / 2000 == pytest.approx(0.6, abs=0.05)
