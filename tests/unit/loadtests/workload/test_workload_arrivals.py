"""The capacity that a load of 1 stands for, and the rate of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_scenarios import ONE, REQUESTS, Even, scenario, variant

from loadtests.workload.arrivals import candidates, quality_capacity, rate_of
from loadtests.workload.files import ScenarioError
from loadtests.workload.scenario import NodeModel, RequestClass, tokens_of

SUMMARY = RequestClass(task="summarize", budget_ms=(500, 500), words=(100, 100))
SUMMARIZERS = (
    variant("study", 40.0, Even(per_text_s=0.100), "summarize"),
    variant("scribe", 50.0, Even(per_text_s=0.500), "summarize", domain="software"),
)


def test_words_become_tokens() -> None:
    """A text has a third more tokens than words, and two that mark its ends."""
    assert [tokens_of(words) for words in (0.1, 1, 60, 300)] == [2, 3, 82, 401]


def test_one_variant_alone_serves_as_many_as_its_cores_have_time_for() -> None:
    """The capacity of one variant is its cores divided by its time per text: 2 cores and 10 ms give 200 requests/s."""
    assert quality_capacity(scenario(), ONE) == pytest.approx(200.0)
    assert quality_capacity(scenario(node=NodeModel(cores=3)), ONE) == pytest.approx(300.0)


def test_the_best_batch_counts() -> None:
    """The capacity uses the batch size with the least time per text, which need not be the largest."""
    batching = variant("b", 80.0, Even(fixed_s=0.009, per_text_s=0.001), max_batch=9)
    assert quality_capacity(scenario(), (batching,)) == pytest.approx(2 / 0.002)

    class Knee(Even):
        def median_s(self, batch: int, tokens: int) -> float:
            return 0.010 if batch <= 4 else 0.100

    knee = variant("k", 80.0, Knee(), max_batch=8)
    assert quality_capacity(scenario(), (knee,)) == pytest.approx(2 / 0.0025)


def test_only_the_best_of_a_task_counts() -> None:
    """The capacity uses only the best variant of a task; among equals, the first."""
    quick = variant("q", 79.0, Even(per_text_s=0.001))
    equal = variant("e", 80.0, Even(per_text_s=0.001))
    assert quality_capacity(scenario(), (quick, *ONE)) == pytest.approx(200.0)
    assert quality_capacity(scenario(), (*ONE, equal)) == pytest.approx(200.0)
    assert quality_capacity(scenario(), (equal, *ONE)) == pytest.approx(2000.0)


def test_a_mixture_costs_what_its_parts_do_by_their_shares() -> None:
    """A mixture of classes costs the mean of their costs, weighted by share."""
    mixed = scenario(requests=(REQUESTS[0].model_copy(update={"share": 9.0}), SUMMARY))
    assert quality_capacity(mixed, (*ONE, *SUMMARIZERS)) == pytest.approx(10 / 0.095)


def test_a_variant_of_a_domain_counts_for_those_who_name_it() -> None:
    """A variant of one domain counts only for classes that name its domain."""
    named = SUMMARY.model_copy(update={"domain": "software"})
    other = SUMMARY.model_copy(update={"domain": "poems"})
    assert quality_capacity(scenario(requests=(SUMMARY,)), SUMMARIZERS) == pytest.approx(20.0)
    assert quality_capacity(scenario(requests=(other,)), SUMMARIZERS) == pytest.approx(20.0)
    assert quality_capacity(scenario(requests=(named,)), SUMMARIZERS) == pytest.approx(4.0)
    assert [one.name for one in candidates(named, SUMMARIZERS)] == ["scribe", "study"]


def test_texts_and_the_gateways_own_work_cost_too() -> None:
    """Each text of a request costs time, and so does the gateway's own work for each request."""
    four = (REQUESTS[0].model_copy(update={"texts": 4}),)
    assert quality_capacity(scenario(requests=four), ONE) == pytest.approx(50.0)
    own = NodeModel(cores=2, overhead_core_ms=6.0, served_core_ms=4.0)
    assert quality_capacity(scenario(requests=four, node=own), ONE) == pytest.approx(40.0)


def test_the_mean_is_taken_over_all_lengths() -> None:
    """The cost of a class is the mean over all its lengths, not the cost at the mean length."""

    class Square(Even):
        def median_s(self, batch: int, tokens: int) -> float:
            return tokens * tokens * 1e-6

    words = (100.0, 1000.0)
    low, high = (tokens_of(of) for of in words)
    mean_s = 1e-6 * (high**3 - low**3) / (3 * (high - low))
    asked = (REQUESTS[0].model_copy(update={"words": words}),)
    assert quality_capacity(scenario(requests=asked), (variant("s", 80.0, Square()),)) == pytest.approx(
        2 / mean_s, rel=1e-3
    )


def test_a_task_that_nobody_serves_is_told() -> None:
    """A class whose task has no variant is an error that names the class."""
    with pytest.raises(ScenarioError, match=r"by-hand: requests.1.task: no variant of the catalog does summarize"):
        quality_capacity(scenario(requests=(*REQUESTS, SUMMARY)), (*ONE, SUMMARIZERS[1]))


def test_the_rate_is_the_load_times_the_capacity_unless_one_is_given(tmp_path: Path) -> None:
    """A run's rate is its load times the capacity, unless a rate or a trace without loads gives it."""
    assert rate_of(scenario(), ONE, 1.5) == pytest.approx(300.0)
    assert rate_of(scenario(arrivals={"rate_per_s": 70.0}), ONE, 1.5) == 70.0
    file = tmp_path / "t.csv"
    file.write_text("start_s,rate_per_s\n0,10\n1,40\n", encoding="utf-8")
    trace = {"process": "trace", "trace": str(file)}
    assert rate_of(scenario(arrivals=trace, seconds=3.0), ONE, 1.0) == pytest.approx((10 + 40 + 10) / 3)
    assert rate_of(scenario(arrivals=trace, loads=(1.0,)), ONE, 1.0) == pytest.approx(200.0)
    assert rate_of(scenario(arrivals={**trace, "rate_per_s": 70.0}), ONE, 1.0) == 70.0
