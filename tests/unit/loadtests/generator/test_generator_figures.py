"""The figures of a live run: merged histograms, validity, coverage by client and gateway, refusals and second tries."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_scenarios import REQUESTS, Even, variant

from loadtests.generator.capacity import Capacity
from loadtests.generator.figures import (
    LiveResult,
    histogram_of,
    histograms_of,
    live_result,
    merged_by_name,
    quantiles_of,
)
from loadtests.generator.results import EXPIRED, Prediction, Result, Shadow
from loadtests.generator.tables import endings_grid, honesty_grid, latency_grid, together
from loadtests.reports.runs import Conditions
from loadtests.workload.arrivals import Fate

VARIANTS = (variant("grand", 90, Even()), variant("swift", 80, Even()))
LATENCIES = st.lists(st.floats(0, 7200), min_size=1, max_size=50)


def ended(
    at: int,
    fate: Fate = Fate.IN_TIME,
    latency_s: float = 0.01,
    lag_s: float = 0.001,
    prediction: Prediction | None = None,
    detail: str = "",
    shadow: Shadow | None = None,
    kind: int = 0,
) -> Result:
    """A result due at its own number of seconds: by default an answer of grand's, predicted exactly."""
    if prediction is None and fate in (Fate.IN_TIME, Fate.LATE):
        prediction = Prediction("grand", "quality", "fits", 0.01, 0.01, 0.01, met=fate is Fate.IN_TIME)
    return Result(at, kind, "classify", at, 0.05, at + lag_s, latency_s, fate, detail, prediction, shadow)


def figures(*results: Result, note: str = "") -> LiveResult:
    """The figures of a run of ten seconds with these results."""
    conditions = Conditions("gateway", "by-hand", 1.0, 1.0, 1, 100.0, 10.0, "live")
    return live_result(conditions, results, VARIANTS, REQUESTS, Capacity(100.0), note)


@given(LATENCIES, LATENCIES)
def test_merged_histograms_are_what_one_would_have_been(first: list[float], second: list[float]) -> None:
    """Merged histograms equal the histogram of all values, in any order, with nothing lost at either end."""
    whole = histogram_of([*first, *second])
    parts = [{"all": histogram_of(first)}, {"all": histogram_of(second)}]
    assert merged_by_name(parts) == merged_by_name(reversed(parts)) == {"all": whole}
    assert sum(whole.values()) == len(first) + len(second)


@given(st.lists(st.floats(1e-5, 3000), min_size=1, max_size=200))
def test_a_histogram_knows_latencies_to_three_digits(latencies_s: Sequence[float]) -> None:
    """A histogram keeps latencies to three digits or to a microsecond, whichever is coarser."""
    found = quantiles_of(histogram_of(latencies_s))
    assert found is not None
    assert found.max_s == pytest.approx(max(latencies_s), rel=1e-3, abs=1e-6)
    middle = sorted(latencies_s)[(len(latencies_s) - 1) // 2]
    assert found.p50_s == pytest.approx(middle, rel=1e-3, abs=1.5e-6)
    assert quantiles_of(histogram_of([])) is None


def test_histograms_part_answers_by_class_from_refusals() -> None:
    """Histograms hold answers by class and refusals, but no failures; runs are merged by the histograms' names."""
    results = [ended(0), ended(1, Fate.LATE, 0.2, kind=1), ended(2, Fate.REFUSED), ended(3, Fate.FAILED, 9.0)]
    found = histograms_of(results)
    assert {name: sum(one.values()) for name, one in found.items()} == {
        "answered": 2,
        "answered/0": 1,
        "answered/1": 1,
        "refused": 1,
    }
    twice = merged_by_name([found, histograms_of(results[:1])])
    assert [sum(twice[name].values()) for name in ("answered", "answered/0", "refused")] == [3, 2, 1]


def test_a_run_is_invalid_when_more_than_one_request_in_a_hundred_was_sent_late() -> None:
    """A run is invalid once more than 1 % of its requests were sent more than 10 ms late."""
    on_time = [ended(at, lag_s=0.0099) for at in range(100)]
    one = figures(ended(0, lag_s=0.011), *on_time[1:], note="beside: nothing")
    assert one.valid and one.late_sends == 0.01 and one.note == "beside: nothing"
    two = figures(ended(0, lag_s=0.011), ended(1, lag_s=0.011), *on_time[2:], note="beside: nothing")
    assert not two.valid and two.note == "beside: nothing; 2.0% of the requests were sent more than 10 ms late"
    assert one.lag is not None and one.lag.max_s == pytest.approx(0.011)


def test_a_run_in_which_nothing_but_failed_is_no_figure_of_a_gateway() -> None:
    """A run in which every request failed is invalid: a wrong port must not look like an attainment of 0 %."""
    failed = figures(*(ended(at, Fate.FAILED, detail="ClientConnectorError") for at in range(3)))
    assert not failed.valid and "ClientConnectorError" in failed.note
    assert figures(ended(0, Fate.FAILED), ended(1, Fate.REFUSED)).valid


def test_coverage_is_told_by_both_clocks() -> None:
    """Coverage by the client's clock includes the network; by the gateway's, it includes expired strict requests."""
    seen = Prediction("swift", "realtime", "fits", 0.008, 0.012, 0.011)
    found = figures(ended(0, latency_s=0.013, prediction=seen), ended(1, latency_s=0.009, prediction=seen))
    assert (found.coverage, found.coverage_at_gateway) == (0.5, 1.0)
    cut = ended(
        2, Fate.FAILED, 0.05, prediction=Prediction("swift", "realtime", "fits", 0.008, 0.012, 0.05), detail=EXPIRED
    )
    expired = figures(ended(0, latency_s=0.009, prediction=seen), cut)
    assert (expired.coverage, expired.coverage_at_gateway) == (1.0, 0.5)
    silent = Prediction("swift", "realtime", "fits", 0.008, None, 0.011)
    assert figures(ended(0, prediction=silent)).coverage_at_gateway is None


def test_refusals_and_shadows_are_counted_apart() -> None:
    """A refused request stays refused even if its second try came in time; second tries enter no other figure."""
    needless, late, broken = (Shadow(fate, 0.04) for fate in (Fate.IN_TIME, Fate.LATE, Fate.FAILED))
    no = [
        ended(at, Fate.REFUSED, 0.003 * (at + 1), detail="overloaded", shadow=one)
        for at, one in enumerate((needless, late, late, broken, None))
    ]
    found = figures(*no, ended(9))
    assert (found.offered, found.served, found.refused) == (6, 1, 5) and found.attainment == pytest.approx(1 / 6)
    assert found.refusals is not None and found.refusals.p50_s == pytest.approx(0.009)
    assert found.latency is not None and found.latency.max_s == 0.01
    shadows = found.shadows
    assert shadows is not None and (shadows.sent, shadows.needless, shadows.failed) == (4, 1, 1)
    assert shadows.rightly == pytest.approx(2 / 3) and found.details == {"overloaded": 5}
    assert together([shadows, shadows]).rightly == pytest.approx(2 / 3)
    assert figures(ended(0)).shadows is None


def test_the_tables_say_what_the_runs_say() -> None:
    """The tables pool the runs of all seeds at one load."""
    no = ended(1, Fate.REFUSED, 0.002, detail="overloaded", shadow=Shadow(Fate.LATE, 0.1))
    runs = [figures(ended(0, latency_s=0.01), no), figures(ended(0, latency_s=0.03), no)]
    assert [entry.text for entry in latency_grid(runs).rows[0].entries] == ["10.0", "30.0", "30.0", "2.0", "2.0"]
    honest = [entry.text for entry in honesty_grid(runs).rows[0].entries]
    assert honest == ["50.0%", "100.0%", "95.0%", "2", "100% of 2", "0.00%", "1.0"]
    endings = [entry.text for entry in endings_grid(runs).rows[0].entries]
    assert endings == ["4", "50.0%", "50.0%", "0.0%", "50.0%", "0.0%", "overloaded 2"]
