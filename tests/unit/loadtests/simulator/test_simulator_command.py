"""`punctual simulate` from its options to its files and its exit status, on small scenarios."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loadtests.reports.comparison import Roles
from loadtests.reports.runs import read_json
from loadtests.simulator.command import app, command_line
from loadtests.simulator.simulation import NothingCounted, UnknownPolicy
from loadtests.simulator.verdicts import verdict_of
from loadtests.workload.files import ScenarioError

SCENARIO = """
name = "small"
about = "three made-up classifiers"
seconds = 0.5
warmup_s = 0.1
seeds = [1, 2, 3]
loads = [0.5, 2]

[catalog]
profile = "small.csv"

[[requests]]
budget_ms = [40, 200]
mode = "strict"
"""
PROFILE = """variant,quality,batch,latency_ms
grand,90,1,20
grand,90,8,130
swift,80,1,4
swift,80,8,20
"""
FIRST = ["policy", "scenario", "load", "cv", "seed", "offered", "served", "late", "refused", "failed"]
THEN = ["attainment", "goodput_per_s", "effective_quality", "by_variant"]


def own(folder: Path) -> Path:
    """A scenario of the user's own, with its profile beside it."""
    (folder / "small.csv").write_text(PROFILE)
    path = folder / "small.toml"
    path.write_text(SCENARIO)
    return path


def shown(scenario: Path | str, *arguments: str) -> tuple[int, str]:
    """The exit status and the output of the command."""
    words = [str(scenario), "--cache", "nowhere", *arguments]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"}, catch_exceptions=False)
    return result.exit_code, result.output


def test_a_shipped_scenario_of_a_csv_is_played_end_to_end(tmp_path: Path) -> None:
    """A shipped scenario with a CSV profile is simulated without any export, download or preparation."""
    out = tmp_path / "runs.json"
    small = ("--seconds", "0.2", "--seeds", "1", "--cvs", "4", "--loads", "2", "--jobs", "1")
    named = [word for policy in ("punctual", "slackfit", "static:huge", "oracle") for word in ("--policy", policy)]
    _, said = shown("example-profile", *small, *named, "--json", str(out))
    runs = json.loads(out.read_bytes())
    assert {run["policy"] for run in runs} >= {"punctual", "slackfit", "static:huge", "oracle"}
    for run in runs:
        assert list(run)[:14] == FIRST + THEN
        assert run["offered"] == run["served"] + run["late"] + run["refused"] + run["failed"] > 0
        assert run["attainment"] == pytest.approx(run["served"] / run["offered"])
        assert run["goodput_per_s"] == pytest.approx(run["served"] / 0.2)
        if run["policy"] != "oracle":
            assert sum(run["by_variant"].values()) == run["served"]
    for title in ("Means over 1 place", "Effective quality, points; CV 4", "best baseline", "Share of oracle's"):
        assert title in " ".join(said.split())
    assert "a second of a core" in said


def test_a_scenario_of_ones_own_is_played_and_written_in_every_form(tmp_path: Path) -> None:
    """The exit status follows the verdict, and the Markdown report names the command that reproduces it."""
    scenario = own(tmp_path)
    json_at, markdown_at, page_at = tmp_path / "runs.jsonl", tmp_path / "runs.md", tmp_path / "runs.html"
    policies = ("punctual", "slackfit", "static:swift", "oracle")
    named = [word for policy in policies for word in ("--policy", policy)]
    files = ("--json", str(json_at), "--markdown", str(markdown_at), "--html", str(page_at))
    status, said = shown(scenario, *named, "--seeds", "1", "2", "3", "--jobs", "1", *files)
    runs = read_json(json_at)
    assert {run.policy for run in runs} == {*policies, "oracle-feasible"}
    assert len(runs) == 5 * 2 * 3
    verdict = verdict_of(runs, Roles.of(runs))
    assert status == (0 if verdict.good else 1)
    text = markdown_at.read_text()
    assert f"punctual simulate {scenario} --policy punctual" in text and "--jobs" not in text
    assert "| policy | load 0.5 | load 2 |" in text and f"{(verdict.share or 0) * 100:.1f} %" in text
    assert "small" in page_at.read_text() and "static:swift" in said


def test_however_many_processes_the_files_are_the_same(tmp_path: Path) -> None:
    """The files are equal to the byte, whatever the number of processes."""
    scenario, written = own(tmp_path), []
    for jobs in ("1", "2"):
        files = [tmp_path / f"{jobs}.json", tmp_path / f"{jobs}.md"]
        few = ["--policy", "punctual", "--policy", "proteus", "--policy", "oracle", "--loads", "2", "--seeds", "1", "2"]
        shown(scenario, *few, "--jobs", jobs, "--json", str(files[0]), "--markdown", str(files[1]))
        written.append([file.read_bytes() for file in files])
    assert written[0] == written[1]


def test_refusals_are_tried_once_more_where_asked(tmp_path: Path) -> None:
    """With `--shadow`, that many refused requests of each run are tried again; without it nothing is said of them."""
    scenario = own(tmp_path)
    scenario.write_text(SCENARIO.replace("[40, 200]", "[2, 6]"))  # at times less than swift takes
    crowded = ("--policy", "punctual", "--loads", "30", "--seconds", "0.1", "--seeds", "1", "2", "--jobs", "1")
    _, said = shown(scenario, *crowded, "--shadow", "3")
    row = next(line for line in said.splitlines() if "load 30" in line and "%" in line)
    assert "refused rightly" in said and row.split("│")[2].strip() == "6"
    assert "refused rightly" not in shown(scenario, *crowded)[1]


def test_a_policy_that_there_is_not_is_named_before_anything_is_played(tmp_path: Path) -> None:
    """An unknown policy is refused before any simulation, with the list of known ones."""
    with pytest.raises(UnknownPolicy, match=r"policy best: unknown .* static:swift, oracle$"):
        shown(own(tmp_path), "--policy", "punctual", "--policy", "best")


def test_what_cannot_be_played_is_a_sentence(tmp_path: Path) -> None:
    """An unknown scenario, an impossible number and a run without requests each give a one-sentence error."""
    scenario = own(tmp_path)
    with pytest.raises(ScenarioError, match="shipped scenarios: grid-classify"):
        shown("grid-nothing")
    with pytest.raises(ScenarioError, match="--cvs"):
        shown(scenario, "--cvs", "100")
    with pytest.raises(NothingCounted, match=r"small: no request is counted at load 0\.001"):
        shown(scenario, "--policy", "slackfit", "--loads", "0.001", "--seconds", "0.01", "--jobs", "1")


def test_a_policy_keeps_the_name_that_it_had_once(tmp_path: Path) -> None:
    """The oracle's former name, clairvoyant, is still accepted."""
    _, said = shown(own(tmp_path), "--policy", "clairvoyant", "--loads", "2", "--seeds", "1", "--jobs", "1")
    assert "oracle" in said and "clairvoyant" not in said


@pytest.mark.parametrize("wrong", [("--jobs", "0"), ("--loads", "-1"), ("--shadow", "0"), ("--json", "no/such/folder")])
def test_an_option_that_cannot_be_is_refused(wrong: tuple[str, ...]) -> None:
    """An impossible option is named, and the exit status is 2."""
    status, said = shown("example-profile", *wrong)
    assert status == 2 and wrong[0] in said


def test_the_command_that_gives_the_same_says_what_was_asked_and_not_where_it_went() -> None:
    """The reported command has the scenario, policies and numbers, quoted for a shell, but no output files."""
    numbers = {"loads": [0.5, 2.0], "cvs": None, "seeds": [3], "seconds": 1.5}
    wanted = "punctual simulate 'my scenario.toml' --policy punctual --loads 0.5 2 --seeds 3 --seconds 1.5 --shadow 100"
    assert command_line("my scenario.toml", ["punctual"], numbers, 100) == wanted
    assert command_line("grid-both", [], {}, 0) == "punctual simulate grid-both"
