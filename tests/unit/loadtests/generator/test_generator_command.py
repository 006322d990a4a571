"""`punctual load` from its options to its files, against a small gateway over real sockets."""

from __future__ import annotations

import json
from pathlib import Path

import fake_summaries
import msgspec
import pytest
from fakes import GRAND, SWIFT
from small_gateway import Asked, SmallGateway, Told, answer, checkpoints, problem
from typer.testing import CliRunner

from loadtests.generator.command import app
from loadtests.generator.figures import LiveResult
from loadtests.reports.runs import read_json

SCENARIO = """
name = "small"
seconds = 0.3
warmup_s = 0.1
seeds = [1, 2, 3]

[catalog]
manifests = "starter"

[arrivals]
rate_per_s = 200.0

[[requests]]
budget_ms = [30000, 60000]
mode = "strict"

[[requests]]
budget_ms = [30000, 60000]
"""


def behave(asked: Asked) -> Told:
    """Refuses one strict request in three; answers the others with the pinned checkpoint, or with swift."""
    if asked.path == "/checkpoints":
        return Told(body=checkpoints(fake_summaries.catalog(), fake_summaries.manifests()))
    if asked.headers["x-sla-mode"] == "strict" and len(asked.body) % 3 == 0:
        return problem(429, "overloaded")
    checkpoint = asked.headers.get("x-checkpoint", SWIFT)
    return answer(checkpoint, X_Predicted_Latency_Ms="5", X_Forecast_Quantile_Ms="90", Server_Timing="total;dur=1")


def shown(scenario: Path, *arguments: str) -> tuple[int, str]:
    """The exit status and the output of the command."""
    result = CliRunner().invoke(app, [str(scenario), *arguments], env={"COLUMNS": "200"}, catch_exceptions=False)
    return result.exit_code, result.output


def test_a_scenario_is_offered_counted_shown_and_written(tmp_path: Path) -> None:
    """With two policies, every counted request is written as a sample and every answer is in its run's histogram."""
    scenario, gateway = tmp_path / "small.toml", SmallGateway(behave)
    scenario.write_text(SCENARIO)
    out, samples = tmp_path / "runs.json", tmp_path / "samples.jsonl"
    with gateway.elsewhere() as url:
        given = ("--statics", "--shadow", "--shadow-share", "1", "--seeds", "1", "2")
        files = ("--json", str(out), "--samples", str(samples))
        status, said = shown(scenario, "--url", url + "/", *given, *files)
    runs = msgspec.json.decode(out.read_bytes(), type=tuple[LiveResult, ...])
    assert {(run.policy, run.seed) for run in runs} == {
        (policy, seed) for policy in ("gateway", f"static:{GRAND}", f"static:{SWIFT}", "static:even") for seed in (1, 2)
    }
    assert status == (0 if all(run.valid for run in runs) else 1)
    lines = [json.loads(line) for line in samples.read_bytes().splitlines()]
    assert len(lines) == sum(run.offered for run in runs) and all(line["due_s"] >= 0.1 for line in lines)
    for run in runs:
        assert run.served + run.late + run.refused + run.failed == run.offered and run.refused > 0
        assert sum(run.histograms["answered"].values()) == run.served + run.late
        assert run.refusals is not None and run.coverage_at_gateway == 1.0
        assert run.shadows is not None and run.shadows.sent == run.refused
        by = {"gateway": SWIFT}.get(run.policy, run.policy.removeprefix("static:"))
        assert set(run.by_variant) == {by}
    assert [run.offered for run in read_json(out)] == [run.offered for run in runs]
    assert "Forecasts, refusals and the generator" in said
    shadows = sum(run.shadows.sent for run in runs if run.shadows)
    calls = sum(asked.path == "/classify" for asked in gateway.asked)
    assert calls >= len(lines) + shadows


def test_a_page_is_drawn_of_a_pinned_run(tmp_path: Path) -> None:
    """A report of a run with a pin names the policy after the pinned checkpoint."""
    scenario, page = tmp_path / "small.toml", tmp_path / "runs.html"
    scenario.write_text(SCENARIO.replace("rate_per_s = 200.0", "") + "\n[node]\ncores = 8\n")
    with SmallGateway(behave).elsewhere() as url:
        given = ("--url", url, "--pin", SWIFT, "--seeds", "1", "--loads", "1", "2", "--html", str(page))
        shown(scenario, *given)
    assert f"static:{SWIFT}" in page.read_text()


def test_a_gateway_that_only_fails_is_a_status_of_one(tmp_path: Path) -> None:
    """A gateway that only fails gives exit status 1, and the output says which runs are invalid and why."""
    scenario = tmp_path / "small.toml"
    scenario.write_text(SCENARIO)

    def fail(asked: Asked) -> Told:
        return behave(asked) if asked.path == "/checkpoints" else problem(500, "inference_failed")

    with SmallGateway(fail).elsewhere() as url:
        status, said = shown(scenario, "--url", url, "--seeds", "1")
    assert status == 1 and "NOT VALID" in said and "500 inference_failed" in said


@pytest.mark.parametrize(
    "wrong",
    [("--shadow-share", "1.5"), ("--loads", "0"), ("--at", "-1"), ("--mode", "lax"), ("--json", "nowhere/at/all.json")],
)
def test_an_option_that_cannot_be_is_refused(wrong: tuple[str, ...]) -> None:
    """An impossible option is named, and the exit status is 2."""
    status, said = shown(Path("x"), *wrong)
    assert status == 2 and wrong[0] in said
