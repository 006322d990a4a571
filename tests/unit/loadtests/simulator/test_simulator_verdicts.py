"""What a grid of runs says of our policy, and how it is worded."""

from __future__ import annotations

import msgspec
import pytest
from sketched_runs import all_runs, results, scenario

from loadtests.reports.comparison import Place, Roles
from loadtests.reports.runs import RunResult
from loadtests.simulator.verdicts import SHARE_OF_BOUND, Verdict, sentences, verdict_of


def runs(*policies: str, ours: str = "proteus", seeds: int = 3) -> list[RunResult]:
    """Runs of these policies at two loads; ours copies the given one, so that it is weaker than some."""
    found = results(all_runs(scenario((1.0, 2.0), (1.0,)), (*policies, ours)))
    named = [msgspec.structs.replace(run, policy="punctual") if run.policy == ours else run for run in found]
    return [run for run in named if run.seed <= seeds]


def judged(found: list[RunResult]) -> tuple[Verdict, str]:
    """The verdict and its sentences."""
    roles = Roles.of(found)
    verdict = verdict_of(found, roles)
    return verdict, "\n".join(sentences(verdict, found, roles))


def test_a_baseline_that_is_above_ours_beyond_chance_is_named_with_its_place() -> None:
    """A baseline that is significantly above ours is named with its load and CV; others are not."""
    verdict, said = judged(runs("slack-greedy", "static-large"))
    assert {(one.baseline, one.place) for one in verdict.beaten} == {("slack-greedy", Place(1.0, 2.0))}
    assert "CV 1, load 2: punctual is below slack-greedy, −" in said and "static-large" not in said
    assert not verdict.good


def test_a_level_baseline_is_nothing_against_ours() -> None:
    """A baseline level with ours does not count: the whole interval must lie below zero."""
    found = runs("static-large")
    level = [msgspec.structs.replace(run, policy="level") for run in found if run.policy == "punctual"]
    verdict, said = judged([*found, *level])
    assert verdict.good and verdict.judged == verdict.pairs == 4
    assert "No baseline is significantly above punctual" in said


def test_two_seeds_are_no_verdict() -> None:
    """With two seeds nothing is judged, and the verdict says so."""
    verdict, said = judged(runs("slack-greedy", seeds=2))
    assert verdict.good and verdict.judged == 0 < verdict.pairs
    assert "Fewer than 3 seeds" in said and "No baseline" not in said


@pytest.mark.parametrize(("part", "good"), [(SHARE_OF_BOUND + 0.001, True), (SHARE_OF_BOUND - 0.001, False)])
def test_ours_must_have_so_much_of_the_bound_on_average(part: float, good: bool) -> None:
    """Our mean share of the oracle's bound, over all loads, must reach 95 %; the feasible schedule is not the bound."""
    found = [run for run in runs("oracle") if run.policy == "oracle"]
    shares = {1.0: part + 0.01, 2.0: part - 0.01}
    ours = [
        msgspec.structs.replace(run, policy="punctual", effective_quality=shares[run.load] * run.effective_quality)
        for run in found
    ]
    near = [msgspec.structs.replace(run, policy="oracle-feasible", effective_quality=1e9) for run in found]
    verdict, said = judged([*found, *near, *ours])
    assert verdict.share == pytest.approx(part) and verdict.good is good
    assert f"{part * 100:.1f} % of the oracle's bound" in said
    assert ("less than the 95 % that it must have" in said) is not good


def test_without_ours_there_is_nothing_to_say() -> None:
    """Without runs of our policy the verdict is empty."""
    found = [run for run in runs("oracle", "static-large") if run.policy != "punctual"]
    assert judged(found) == (Verdict((), 0, 0, None), "")
