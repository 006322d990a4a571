"""`punctual simulate` from its options to its files and its exit status, on small scenarios."""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from loadtests.results.files import read_json
from loadtests.results.roles import Roles
from loadtests.scenarios.errors import ScenarioError
from loadtests.simulator.commands import command_line, simulate, simulate_arguments
from loadtests.simulator.errors import NothingCounted, UnknownPolicy
from loadtests.simulator.verdicts import verdict_of

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


def options(scenario: Path | str, *arguments: str) -> argparse.Namespace:
    """As the command line gives them."""
    parser = argparse.ArgumentParser()
    simulate_arguments(parser)
    parser.add_argument("--cache", type=Path, default=Path("nowhere"))
    return parser.parse_args([str(scenario), *arguments])


def own(folder: Path) -> Path:
    """A scenario of one's own, with its profile beside it."""
    (folder / "small.csv").write_text(PROFILE)
    path = folder / "small.toml"
    path.write_text(SCENARIO)
    return path


def shown(given: argparse.Namespace) -> tuple[int, str]:
    """The exit status, and what was said."""
    said = io.StringIO()
    status = simulate(given, Console(file=said, width=200))
    return status, said.getvalue()


def test_a_shipped_scenario_of_a_csv_is_played_end_to_end_in_seconds(tmp_path: Path) -> None:
    """A variant profile is all that is needed: nothing is exported, fetched or prepared."""
    out, began_s = tmp_path / "runs.json", time.process_time()
    small = ("--seconds", "0.2", "--seeds", "1", "--cvs", "4", "--loads", "2", "--jobs", "1")
    _, said = shown(options("example-profile", *small, "--json", str(out)))
    assert time.process_time() - began_s < 5
    runs = json.loads(out.read_bytes())
    assert {run["policy"] for run in runs} >= {"punctual", "slackfit", "static:huge", "clairvoyant"}
    for run in runs:
        assert list(run)[:14] == FIRST + THEN
        assert run["offered"] == run["served"] + run["late"] + run["refused"] + run["failed"] > 0
        assert run["attainment"] == pytest.approx(run["served"] / run["offered"])
        assert run["goodput_per_s"] == pytest.approx(run["served"] / 0.2)
        if run["policy"] != "clairvoyant":
            assert sum(run["by_variant"].values()) == run["served"]
    for title in ("Means over 1 place", "Effective quality, points; CV 4", "best baseline", "Share of clairvoyant's"):
        assert title in said
    assert "a second of a core" in said


def test_a_scenario_of_ones_own_is_played_and_written_in_every_form(tmp_path: Path) -> None:
    """The status is that of the verdict, and the document says by which command it was made."""
    scenario = own(tmp_path)
    json_at, markdown_at, page_at = tmp_path / "runs.jsonl", tmp_path / "runs.md", tmp_path / "runs.html"
    policies = ("punctual", "slackfit", "static:swift", "clairvoyant")
    named = [word for policy in policies for word in ("--policy", policy)]
    files = ("--json", str(json_at), "--markdown", str(markdown_at), "--html", str(page_at))
    status, said = shown(options(scenario, *named, "--seeds", "1", "2", "3", "--jobs", "1", *files))
    runs = read_json(json_at)
    assert {run.policy for run in runs} == {*policies, "clairvoyant-feasible"}
    assert len(runs) == 5 * 2 * 3
    verdict = verdict_of(runs, Roles.of(runs))
    assert status == (0 if verdict.good else 1)
    text = markdown_at.read_text()
    assert f"punctual simulate {scenario} --policy punctual" in text and "--jobs" not in text
    assert "| policy | load 0.5 | load 2 |" in text and f"{(verdict.share or 0) * 100:.1f} %" in text
    assert "small" in page_at.read_text() and "static:swift" in said


def test_however_many_processes_the_files_are_the_same(tmp_path: Path) -> None:
    """To the byte, the document too."""
    scenario, written = own(tmp_path), []
    for jobs in ("1", "2"):
        files = [tmp_path / f"{jobs}.json", tmp_path / f"{jobs}.md"]
        few = (
            "--policy",
            "punctual",
            "--policy",
            "proteus",
            "--policy",
            "clairvoyant",
            "--loads",
            "2",
            "--seeds",
            "1",
            "2",
        )
        shown(options(scenario, *few, "--jobs", jobs, "--json", str(files[0]), "--markdown", str(files[1])))
        written.append([file.read_bytes() for file in files])
    assert written[0] == written[1]


def test_refusals_are_tried_once_more_where_asked(tmp_path: Path) -> None:
    """So many of each run as were asked for; nothing is said of them otherwise."""
    scenario = own(tmp_path)
    scenario.write_text(SCENARIO.replace("[40, 200]", "[2, 6]"))  # less than the swift one takes, at times
    crowded = ("--policy", "punctual", "--loads", "30", "--seconds", "0.1", "--seeds", "1", "2", "--jobs", "1")
    _, said = shown(options(scenario, *crowded, "--shadow", "3"))
    row = next(line for line in said.splitlines() if "load 30" in line and "%" in line)
    assert "refused rightly" in said and row.split("│")[2].strip() == "6"
    assert "refused rightly" not in shown(options(scenario, *crowded))[1]


def test_a_policy_that_there_is_not_is_named_before_anything_is_played(tmp_path: Path) -> None:
    """With those that there are."""
    with pytest.raises(UnknownPolicy, match=r"policy best: there is none .* static:swift, clairvoyant$"):
        simulate(options(own(tmp_path), "--policy", "punctual", "--policy", "best"), Console(file=io.StringIO()))


def test_what_cannot_be_played_is_a_sentence(tmp_path: Path) -> None:
    """No such scenario; a number out of its limits; a run so short that nobody comes."""
    console, scenario = Console(file=io.StringIO()), own(tmp_path)
    with pytest.raises(ScenarioError, match="shipped scenarios: grid-classify"):
        simulate(options("grid-nothing"), console)
    with pytest.raises(ScenarioError, match="--cvs"):
        simulate(options(scenario, "--cvs", "100"), console)
    nobody = options(scenario, "--policy", "slackfit", "--loads", "0.001", "--seconds", "0.01", "--jobs", "1")
    with pytest.raises(NothingCounted, match=r"small: no request is counted at load 0\.001"):
        simulate(nobody, console)


@pytest.mark.parametrize("wrong", [("--jobs", "0"), ("--loads", "-1"), ("--shadow", "0"), ("--json", "no/such/folder")])
def test_an_option_that_cannot_be_is_refused(wrong: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """With the usual exit status of a wrong call."""
    with pytest.raises(SystemExit, match="2"):
        options("example-profile", *wrong)
    assert wrong[0] in capsys.readouterr().err


def test_the_command_that_gives_the_same_says_what_was_asked_and_not_where_it_went() -> None:
    """Quoted as a shell needs it."""
    given = ("--policy", "punctual", "--loads", "0.5", "2", "--seeds", "3", "--seconds", "1.5", "--shadow")
    said = command_line(options("my scenario.toml", *given, "--jobs", "3", "--json", "out.json"))
    wanted = "punctual simulate 'my scenario.toml' --policy punctual --loads 0.5 2 --seeds 3 --seconds 1.5 --shadow 100"
    assert said == wanted
    assert command_line(options("grid-both")) == "punctual simulate grid-both"
