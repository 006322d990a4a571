"""Results: what is counted of a run, what its file holds, and which samples thinning keeps."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from sketched_runs import CATALOG, CLASSES, Checkpoint, all_runs, results, run, samples, scenario

from gateway.model.tier import Tier
from loadtests.reports.runs import (
    WINDOW,
    Conditions,
    RunResult,
    Sample,
    read_json,
    recorded,
    result_of,
    sample_of,
    write_json,
)
from loadtests.workload.arrivals import Fate, Offered
from loadtests.workload.scenario import RequestClass

CONDITIONS = Conditions("punctual", "sketched", 1.0, 2.0, 7, rate_per_s=2.0, seconds=4.0)
FIRST = ["policy", "scenario", "load", "cv", "seed", "offered", "served", "late", "refused", "failed"]
FIRST += ["attainment", "goodput_per_s", "effective_quality", "by_variant"]


def answered(variant: int, latency_s: float, kind: int = 0, quantile_s: float | None = None) -> Sample:
    """An answer by one of the catalog's variants to a request with a budget of one second."""
    one = CATALOG[variant]
    fate = Fate.IN_TIME if latency_s <= 1 else Fate.LATE
    return Sample(kind, 0.0, 1.0, fate, latency_s, one.name, one.tier, quantile_s=quantile_s)


EIGHT = [
    answered(2, 0.5, quantile_s=0.6),
    answered(2, 0.7, quantile_s=0.6),
    answered(0, 0.9, quantile_s=0.9),
    answered(0, 0.2, kind=1, quantile_s=0.1),
    answered(1, 1.5),
    Sample(0, 1.0, 1.0, Fate.REFUSED),
    Sample(1, 1.0, 1.0, Fate.REFUSED, quantile_s=5.0),
    Sample(1, 2.0, 1.0, Fate.FAILED),
]


def test_every_request_counts_once_and_only_answers_in_time_count_for_quality() -> None:
    """Attainment, goodput and effective quality are over requests offered; late and refused ones count 0."""
    found = result_of(CONDITIONS, EIGHT, CATALOG, CLASSES)
    assert (found.offered, found.served, found.late, found.refused, found.failed) == (8, 4, 1, 2, 1)
    assert found.attainment == 0.5
    assert found.goodput_per_s == 1.0
    assert found.effective_quality == pytest.approx((90 + 90 + 70 + 70) / 8)
    assert found.by_variant == {"large": 2, "small": 2}
    assert found.late_by_variant == {"middle": 1}
    assert found.by_tier == {Tier.REALTIME: 2, Tier.QUALITY: 2}
    assert found.quality_unit == "points"


def test_coverage_is_of_answers_that_were_forecast() -> None:
    """Coverage counts only answers with a forecast; an answer exactly at its quantile is covered."""
    found = result_of(CONDITIONS, EIGHT, CATALOG, CLASSES)
    assert found.coverage == 0.5
    assert found.nominal == pytest.approx((3 * 0.95 + 0.99) / 4)
    assert result_of(CONDITIONS, [answered(1, 0.5)], CATALOG, CLASSES).coverage is None


def test_classes_share_out_the_whole() -> None:
    """The classes' counts add up to the run's, and each class has its own quality and coverage."""
    found = result_of(CONDITIONS, EIGHT, CATALOG, CLASSES)
    assert [one.offered for one in found.by_class] == [5, 3]
    assert sum(one.served for one in found.by_class) == found.served
    assert [one.coverage for one in found.by_class] == [pytest.approx(2 / 3), 0.0]
    assert found.by_class[1].effective_quality == pytest.approx(70 / 3)
    assert found.by_class[1].about == "classify, 60 to 400 ms, 20 to 200 words, strict, at 99 %"


def test_qualities_of_several_tasks_are_shares_of_each_task_s_best() -> None:
    """With several tasks, quality is a share of each task's best, because accuracy and ROUGE have no common unit."""
    catalog = (*CATALOG, Checkpoint("writes", "summarize", 40.0, Tier.QUALITY))
    classes = (CLASSES[0], RequestClass(task="summarize", budget_ms=(1000, 1000)))
    of = [answered(0, 0.5), Sample(1, 0.0, 1.0, Fate.IN_TIME, 0.5, "writes", Tier.QUALITY)]
    found = result_of(CONDITIONS, of, catalog, classes)
    assert found.quality_unit == "share of the task's best"
    assert found.effective_quality == pytest.approx((70 / 90 + 1) / 2)


@pytest.mark.parametrize("of", [[], [Sample(0, 0.0, 1.0, Fate.OPEN)]], ids=["none", "open"])
def test_a_run_that_is_none_or_has_not_ended_has_no_result(of: list[Sample]) -> None:
    """A run without requests, or with one that has not ended, has no result."""
    with pytest.raises(ValueError, match=r"without requests|not ended"):
        result_of(CONDITIONS, of, CATALOG, CLASSES)


def test_windows_are_whole_and_in_the_order_of_arrival() -> None:
    """Windows have equal numbers of answers, in order of arrival, whatever the order in which they ended."""
    good = [Sample(0, float(at), 1.0, Fate.IN_TIME, 0.1, "small", Tier.REALTIME, 0.1, 0.2) for at in range(WINDOW)]
    bad = [Sample(0, WINDOW + at, 1.0, Fate.IN_TIME, 0.3, "small", Tier.REALTIME, 0.1, 0.2) for at in range(WINDOW + 9)]
    windows = result_of(CONDITIONS, bad + good, CATALOG, CLASSES).windows
    assert [window.coverage for window in windows] == [1.0, 0.0]
    assert (windows[0].from_s, windows[0].to_s) == (0.0, WINDOW - 1)


@pytest.mark.parametrize("name", ["runs.json", "runs.jsonl", "none.json", "none.jsonl"])
def test_what_was_written_is_read_back(name: str, tmp_path: Path) -> None:
    """A result that is written as JSON or JSON lines is read back unchanged, one run a line."""
    runs = [] if name.startswith("none") else [run(seed=1).result, run("other", valid=False).result]
    path = tmp_path / name
    write_json(runs, path)
    assert read_json(path) == tuple(runs)
    lines = [line.strip(",") for line in path.read_text().splitlines() if line.startswith("{")]
    assert [json.loads(line)["policy"] for line in lines] == [one.policy for one in runs]


def test_a_file_of_several_lines_is_an_array_and_begins_with_the_members_agreed_on(tmp_path: Path) -> None:
    """A JSON file is an array, and each run begins with the documented members in order."""
    path = tmp_path / "runs.json"
    write_json([run().result, run(seed=2).result], path)
    document = json.loads(path.read_text())
    assert len(document) == 2
    assert list(document[0])[: len(FIRST)] == FIRST
    with pytest.raises(msgspec.DecodeError):
        read_json(Path(__file__))


def test_thinning_keeps_every_so_manyth_in_the_order_of_arrival() -> None:
    """Thinning keeps evenly spaced requests over the whole run, at most the given number."""
    of = samples(CONDITIONS, 1.0, 1001)
    kept = recorded(run().result, of[::-1], most=100).samples
    assert 80 < len(kept) <= 100
    assert list(kept) == of[::11]
    assert len(recorded(run().result, of).samples) == 1001


def test_a_simulated_request_becomes_a_sample() -> None:
    """A simulated request becomes a sample; only an answered one has a latency and a variant."""
    request = Offered(1, "classify", 2.0, 1.0, 16, kind=1, fate=Fate.LATE, variant="large", finished_s=3.5)
    found = sample_of(request, {"large": Tier.QUALITY}, 0.8, 0.9)
    assert found == Sample(1, 2.0, 1.0, Fate.LATE, 1.5, "large", Tier.QUALITY, 0.8, 0.9)
    refused = Offered(1, "classify", 2.0, 1.0, 16, fate=Fate.REFUSED, finished_s=2.1)
    assert sample_of(refused, {}) == Sample(0, 2.0, 1.0, Fate.REFUSED)


def test_sketches_keep_the_law_of_endings() -> None:
    """Every made-up run obeys offered = served + late + refused + failed."""
    found: list[RunResult] = results(all_runs(scenario(loads=(1.0, 2.0), cvs=(1.0,)), count=60))
    assert all(one.offered == one.served + one.late + one.refused + one.failed == 60 for one in found)
    assert any(one.refused for one in found) and any(one.failed for one in found) and any(one.late for one in found)
