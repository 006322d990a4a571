"""`punctual simulate made-up`: every made-up scenario under every policy, in one table."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from sketched_runs import run

import punctual
from loadtests.reports.runs import RunResult, read_json
from loadtests.simulator.several import (
    BEST_STATIC,
    behind,
    margin_grid,
    plays_of,
    quality_grid,
    sentences,
    simulation_of,
)
from loadtests.simulator.simulation import BOUND, FEASIBLE, OURS, UnknownPolicy
from loadtests.workload.scenario import MADE_UP

BEST = {"made-up/one": 90.0, "made-up/other": 90.0}


def worth(policy: str, scenario: str, values: tuple[float, ...]) -> list[RunResult]:
    """Runs of a policy at one place, with these effective qualities by seed."""
    one = run().result
    return [
        msgspec.structs.replace(one, policy=policy, scenario=scenario, seed=seed, effective_quality=value)
        for seed, value in enumerate(values)
    ]


RUNS = [
    *worth(OURS, "made-up/one", (81.0, 81.0, 81.9)),
    *worth("slackfit", "made-up/one", (72.0, 72.0, 72.9)),
    *worth("static:a", "made-up/one", (63.0, 63.0, 63.0)),
    *worth("static:b", "made-up/one", (54.0, 54.0, 54.0)),
    *worth(BOUND, "made-up/one", (90.0, 90.0, 90.0)),
    *worth(FEASIBLE, "made-up/one", (89.0, 89.0, 89.0)),
    *worth(OURS, "made-up/other", (45.0, 45.0, 45.9)),
    *worth("slackfit", "made-up/other", (54.0, 54.0, 54.9)),
]


def test_policies_are_compared_over_scenarios_of_their_own_units() -> None:
    """Each policy has a row, in percent of each scenario's best; static choices share one row, the best of each."""
    grid = quality_grid(RUNS, BEST)
    rows = {row.label.text: [entry.text for entry in row.entries] for row in grid.rows}
    assert list(rows) == [OURS, "slackfit", BEST_STATIC, BOUND]
    assert rows[OURS][0] == "70.33" and rows[OURS][1].startswith("90.33 ± ")
    assert rows[BEST_STATIC] == ["70.00", "70.00 ± 0.00", "-"]
    bold = {row.label.text: [entry.bold for entry in row.entries[1:]] for row in grid.rows}
    assert bold[OURS] == [True, False] and bold["slackfit"] == [False, True] and bold[BOUND] == [False, False]
    assert quality_grid(RUNS, BEST, each=False).header == ("policy", "mean")


def test_where_a_baseline_is_above_ours_is_said() -> None:
    """A baseline that is above ours beyond chance in a scenario is named with the difference."""
    assert list(behind(RUNS, BEST)) == [("made-up/other", "slackfit")]
    assert sentences(RUNS, BEST) == ("other: punctual is below slackfit, −10.00 ± 0.00",)
    assert sentences(RUNS[:6], BEST) == ("No baseline is significantly above punctual in any scenario.",)
    rows = {row.label.text: [entry.text for entry in row.entries] for row in margin_grid(RUNS, BEST).rows}
    assert rows["one"][1:] == ["slackfit", "80.33 ± 1.43", "+10.00 ± 0.00", "90.3 %"]
    assert rows["other"][1] == "slackfit" and rows["other"][-1] == "-"


def test_a_policy_is_played_where_it_is_known() -> None:
    """A static choice is played only in the scenarios with its variants; one that none has is refused."""
    simulations = [simulation_of(name, 1.0, [1]) for name in MADE_UP]
    plays = plays_of(simulations, ["static:only", "slackfit"])
    of_static = {play.simulation.scenario.name for play in plays if play.order.policy == "static:only"}
    of_slackfit = {play.simulation.scenario.name for play in plays if play.order.policy == "slackfit"}
    assert of_static == {"made-up/one-variant"} and of_slackfit == set(MADE_UP)
    with pytest.raises(UnknownPolicy):
        plays_of(simulations, ["static:nobody"])
    assert simulation_of("made-up/tight", 0.5, None).scenario.seconds == simulations[8].scenario.seconds / 2


def test_the_command_plays_them_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`punctual simulate made-up` plays every scenario and writes its tables with the command that gives them."""
    markdown, json = tmp_path / "made-up.md", tmp_path / "made-up.jsonl"
    few = ["--policy", "slackfit", "--policy", "static:only", "--seeds", "1", "--longer", "0.1", "--jobs", "1"]
    assert punctual.main(["simulate", "made-up", *few, "--markdown", str(markdown), "--json", str(json)]) == 0
    assert "slackfit" in capsys.readouterr().out
    text = markdown.read_text()
    assert "punctual simulate made-up --policy slackfit --policy static:only --longer 0.1 --seeds 1" in text
    assert "| policy | mean | accelerator |" in text
    assert {run.scenario for run in read_json(json)} == set(MADE_UP)
